"""Which μ keeps a promise: the largest whose retained quality is at least the target, with stated confidence.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052): the grid of μ is fixed before any outcome is seen
and tested from the most cautious on; the first that cannot be shown to hold ends the search, so the chance of
choosing one that fails is at most 1 - confidence, however long the grid. Each test is a bet against "retained
quality is below the target" (Waudby-Smith & Ramdas 2024, arXiv:2010.09686), which holds for any number of prompts
and for propensity-weighted outcomes as well as for plain ones. The stake is set anew by what is still to be won and
how many prompts are left to win it (Voráček & Orabona 2025, arXiv:2505.22422).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import CalibrationSet, Threshold
from serving.classifier.proba import FloatArray
from serving.routing.costs import expected_costs, unit_cost
from serving.tiers import Tier

CONFIDENCE: Final = 0.95
_BLOCKS: Final = 200  # times the stake is set anew; docs/decisions/2026-11-26-promise-measured.md
_LARGEST_BET: Final = 0.75  # of the stake; any constant below 1 is valid. Source: the first paper, section 4.2
_AT_ONCE: Final = 64  # μ tested together: few enough to be small, and the walk seldom sees the whole grid
_MOST_LABELS: Final = 200_000  # a number beyond this is no advice
_GRID: Final = np.concatenate([[0.0], np.logspace(-3, 3, 601)])
"""μ times the cost of a call with 1,000 tokens in and out at the top tier: no look at any outcome goes into it."""


def choose(proba: FloatArray, costs: FloatArray, mu: float) -> NDArray[np.intp]:
    """The tier of highest P(acceptable) - μ × cost for each row, ties to the cheaper: (n, k), (n, k) → (n,)."""
    return np.asarray(np.argmax(proba - mu * costs, axis=1), np.intp)


def promised_thresholds(
    calibration: CalibrationSet,
    tiers: Sequence[Tier],
    targets: Sequence[float],
    *,
    fallback: bool = False,
    confidence: float = CONFIDENCE,
) -> tuple[Threshold, ...]:
    """The largest μ for each target, in the order given; refused with a reason where the outcomes do not carry it.

    `fallback`: for the features-only heads.
    """
    weight = evidence(calibration.acceptable, calibration.weight)
    usable = ~np.isnan(weight).any(axis=1)
    predicted = calibration.fallback if fallback else calibration.predicted
    proba, output_tokens = predicted.proba[usable], predicted.output_tokens[usable]
    costs = expected_costs(tiers, calibration.input_tokens[usable], output_tokens)
    walk = walk_of(proba, costs, unit_cost(tiers))
    outcomes = Outcomes.of(calibration.acceptable[usable], weight[usable])
    return tuple(_threshold(target, confidence, walk, outcomes) for target in targets)


@dataclass(frozen=True)
class Walk:
    """Growing μ, the last of each run that decides alike, (g,), and what they choose for each prompt, (g, n)."""

    mu: NDArray[np.float64]
    choices: NDArray[np.int8]


def walk_of(proba: FloatArray, costs: FloatArray, unit: float) -> Walk:
    """The μ to test, most cautious first. proba, costs: (n, k). unit: a typical cost at the top tier, 0 if free."""
    grid = _GRID / unit if unit > 0 else _GRID[:1]
    choices = np.stack([choose(proba, costs, mu).astype(np.int8) for mu in grid])
    last = np.append((choices[1:] != choices[:-1]).any(axis=1), True)
    return Walk(grid[last], choices[last])


@dataclass(frozen=True)
class Outcomes:
    """What each tier got of each prompt, (n, k), at least 0, and what the top tier would have, (n,), at most 1.

    Inverse propensity weighting of what is acceptable at the chosen tier, and of what is *not* at the top:
    weights that were clipped then make the policy look worse and the top better, never the other way.
    """

    got: NDArray[np.float64]
    top: NDArray[np.float64]

    @classmethod
    def of(cls, acceptable: FloatArray, weight: FloatArray) -> Self:
        """acceptable: (n, k), NaN where not tried. weight: (n, k), as `evidence` gives it."""
        tried, good = ~np.isnan(acceptable), np.nan_to_num(acceptable)
        got = np.where(tried, good * weight, 0.0)
        top = 1 - np.where(tried, (1 - good) * weight, 0.0)[:, -1]
        return cls(np.asarray(got, np.float64), np.asarray(top, np.float64))

    def __len__(self) -> int:
        return len(self.top)

    def take(self, rows: NDArray[np.intp] | slice) -> Self:
        """The prompts at `rows`."""
        return replace(self, got=self.got[rows], top=self.top[rows])

    def by(self, choices: NDArray[np.int8]) -> NDArray[np.float64]:
        """What each choice got of each prompt: (g, n) → (g, n)."""
        return self.got[np.arange(len(self)), choices]

    def margins(self, choices: NDArray[np.int8], target: float) -> NDArray[np.float64]:
        """Values of at least -target, (g, n), that average 0 or less where retained quality is below the target.

        Where the top tier is chosen, what it got is known to be what it would have: were the two estimated apart, all
        the noise of a propensity would be in their difference.
        """
        got = self.by(choices)
        return np.where(choices == self.got.shape[1] - 1, (1 - target) * got, got - target * self.top)


def evidence(acceptable: FloatArray, weight: FloatArray) -> NDArray[np.float64]:
    """How much each outcome says of a policy: acceptable, weight (n, k), NaN where not tried and not logged → (n, k).

    1 in rows where every tier was tried, whichever of its answers was logged with a propensity. In rows where one was,
    its inverse propensity, and 0 at the others. NaN in all other rows: they say nothing of other tiers.
    """
    tried = ~np.isnan(acceptable)
    whole = tried.all(axis=1)
    single = (tried.sum(axis=1) == 1) & ~np.isnan(np.where(tried, weight, 0)).any(axis=1)
    counts = np.where(tried, np.nan_to_num(weight, nan=1.0), 0.0)
    counts[whole] = 1.0
    counts[~(whole | single)] = np.nan
    return np.asarray(counts, np.float64)


def held(outcomes: Outcomes, choices: NDArray[np.int8], target: float, alpha: float) -> int:
    """How many of the choices (g, n) were shown to hold before the first that was not, 0 to g."""
    for start in range(0, len(choices), _AT_ONCE):
        shown = above_zero(outcomes.margins(choices[start : start + _AT_ONCE], target), -target, alpha)
        if not shown.all():
            return start + int(np.argmin(shown))
    return len(choices)


def _threshold(target: float, confidence: float, walk: Walk, outcomes: Outcomes) -> Threshold:
    if len(outcomes) == 0:
        reason = "no calibration prompt has outcomes for all tiers, or for one with its propensity"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    if holding := held(outcomes, walk.choices, target, 1 - confidence):
        return Threshold(target=target, confidence=confidence, mu=float(walk.mu[holding - 1]))
    return _refused(target, confidence, outcomes.margins(walk.choices[:1], target)[0])


def _refused(target: float, confidence: float, margin: NDArray[np.float64]) -> Threshold:
    """Why not even μ = 0 could be shown to hold, and how many labels might, four times in five: 2 ln(1/α) σ² / δ²."""
    delta = float(margin.mean())
    if delta <= 0:
        reason = f"on {len(margin)} prompts set aside for it even the most probable tier did not show {target:.0%}"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    needed = 2 * np.log(1 / (1 - confidence)) * float(margin.var()) / delta**2
    if needed > _MOST_LABELS:
        reason = f"on {len(margin)} prompts set aside for it even the most probable tier hardly showed {target:.0%}"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    labels = max(int(np.ceil(needed / 100) * 100), 100 * (len(margin) // 100 + 1))
    reason = f"{len(margin)} prompts set aside for it cannot show it; some {labels} might"
    return Threshold(target=target, confidence=confidence, mu=None, refused=reason, labels_needed=labels)


def above_zero(values: FloatArray, lowest: float, alpha: float) -> NDArray[np.bool_]:
    """Whether a gambler who bets that values average more than 0 makes 1/alpha of 1: (g, n) → (g,).

    lowest: below 0, and no value is below it. If they average no more than 0, that happens with probability at most
    alpha: fair bets of less than all one has are a martingale that cannot fall below 0 (Ville), however they are sized.
    They are sized by what is still to be won, the values left to win it, and the variance of those seen (with one of
    size 1 to begin with). Once 1/alpha is reached nothing more is staked. The order is random with a fixed seed.
    """
    g, n = values.shape
    shuffled = np.ascontiguousarray(values[:, np.random.default_rng(0).permutation(n)])
    edges = np.linspace(0, n, min(n, _BLOCKS) + 1).astype(np.intp)
    variance = _variance_before(shuffled, edges[:-1])
    goal = np.log(1 / alpha)
    won = np.zeros(g)
    for block, (start, end) in enumerate(pairwise(edges)):
        missing = np.maximum(goal - won, 0)
        if not missing.any():
            break
        bet = np.minimum(np.sqrt(2 * missing / ((n - start) * variance[:, block])), _LARGEST_BET / -lowest)
        won += np.log1p(bet[:, None] * shuffled[:, start:end]).sum(axis=1)
    return np.asarray(won >= goal, np.bool_)


def _variance_before(values: FloatArray, starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Variance of the values before each start, and of one with mean 0 and square 1: (g, n), (b,) → (g, b)."""
    sums, squares = (np.add.reduceat(powers, starts, axis=1) for powers in (values, values**2))
    mean = (np.cumsum(sums, axis=1) - sums) / (starts + 1)
    return np.asarray((1 + np.cumsum(squares, axis=1) - squares) / (starts + 1) - mean**2, np.float64)
