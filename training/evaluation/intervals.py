"""How far a figure might move on other prompts: bootstrap intervals, resampled by prompt group."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 1000
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights, how often each prompt counts, (n,) → values (m,)."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; None where it is not defined, as APGR is where the strong tier is the worse."""

    value: float | None
    interval: tuple[float, float] | None


def group_weights(groups: NDArray[np.intp], *, seed: int = 0) -> Iterable[NDArray[np.float64]]:
    """How often each prompt counts in each resample: groups are drawn with replacement, whole.

    Prompts of a group are versions of one question: drawn singly they would make intervals too short.
    Source: Davison & Hinkley 1997, section 3.8 (cluster resampling).
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        yield drawn[member].astype(np.float64)


def estimated(
    statistic: Statistic, groups: NDArray[np.intp], *, recentre: bool = False, seed: int = 0
) -> list[Estimate]:
    """Each value of a statistic on all prompts, with its percentile interval. The same seed gives paired resamples.

    recentre: for debiased statistics. A resample repeats prompts, so it holds their noise once more and is centred
    too high by what the statistic takes off; the interval is moved back by that.
    """
    whole = statistic(np.ones(len(groups)))
    drawn = np.array([statistic(weight) for weight in group_weights(groups, seed=seed)])
    return [_estimate(value, column, recentre) for value, column in zip(whole, drawn.T, strict=True)]


def _estimate(value: float, drawn: NDArray[np.float64], recentre: bool) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return Estimate(None, None)
    if len(drawn) == 0:
        return Estimate(float(value), None)
    low, high = np.quantile(drawn, [0.025, 0.975]) - (drawn.mean() - value if recentre else 0)
    return Estimate(float(value), (float(low), float(high)))
