"""How far a figure might move on other prompts: bootstrap intervals, resampled by prompt group."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 1000
FEWEST_GROUPS: Final = 10  # of fewer, resamples say nothing of other prompts: one group would give a width of 0
MOST_UNDEFINED: Final = (
    0.025  # share of resamples without the figure, beyond which an end of the interval is among them
)
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights, how often each prompt counts, (n,) → values (m,)."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; None where it is not defined, as APGR is where the strong tier is the worse."""

    value: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Resamples:
    """Draws of prompt groups with replacement, whole; the same draws for every figure, so that they can be compared.

    Prompts of a group are versions of one question: drawn singly they would make intervals too short.
    Source: Davison & Hinkley 1997, section 3.8 (cluster resampling).
    drawn: uint16 (r, g), how often each group was drawn. group: int (n,), of each prompt.
    """

    drawn: NDArray[np.uint16]
    group: NDArray[np.intp]

    @classmethod
    def of(cls, groups: NDArray[np.intp], *, seed: int = 0) -> Self:
        """Draws for prompts in the groups (n,)."""
        _, group = np.unique(groups, return_inverse=True)
        count = int(group.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        drawn = [np.bincount(rng.integers(max(count, 1), size=count), minlength=count) for _ in range(RESAMPLES)]
        return cls(np.array(drawn, np.uint16), np.asarray(group, np.intp))

    def __len__(self) -> int:
        return len(self.group)

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        """How often each prompt counts in each draw, (n,)."""
        return (counts[self.group].astype(np.float64) for counts in self.drawn)

    @property
    def groups(self) -> int:
        """How many groups the prompts are in."""
        return len(np.unique(self.group))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """The same draws for the prompts at `rows`, a mask or indices."""
        return replace(self, group=self.group[rows])


def estimated(statistic: Statistic, resamples: Resamples, *, recentre: bool = False) -> list[Estimate]:
    """Each value of a statistic on all prompts, with its percentile interval.

    recentre: for debiased statistics. A resample repeats prompts, so it holds their noise once more and is centred
    too high by what the statistic takes off; the interval is moved back by that.
    """
    whole = statistic(np.ones(len(resamples)))
    if resamples.groups < FEWEST_GROUPS:
        return [Estimate(float(value) if np.isfinite(value) else None, None) for value in whole]
    drawn = np.array([statistic(weight) for weight in resamples if weight.any()])
    return [_estimate(value, column, recentre) for value, column in zip(whole, drawn.T, strict=True)]


def _estimate(value: float, drawn: NDArray[np.float64], recentre: bool) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, None)
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
        return Estimate(float(value), None)
    low, high = np.quantile(defined, [0.025, 0.975]) - (defined.mean() - value if recentre else 0)
    return Estimate(float(value), (float(low), float(high)))
