"""Which μ keeps a promise: the largest whose retained quality is at least the target, with stated confidence.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052): the grid of μ is fixed before any outcome is seen
and tested from the most cautious on; the first that cannot be shown to hold ends the search, so the chance of
choosing one that fails is at most 1 - confidence, however long the grid. Each test is a betting test of a
bounded mean (Waudby-Smith & Ramdas 2024, arXiv:2010.09686), which holds for any sample size and for
propensity-weighted outcomes as well as for plain ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import CalibrationSet, Predictions, Threshold
from serving.classifier.heads import FloatArray
from serving.routing.costs import expected_costs, unit_cost
from serving.tiers import Tier

CONFIDENCE: Final = 0.95
_ORDERS: Final = 20  # random orders whose bets are averaged; the average of valid bets is a valid bet
_LARGEST_BET: Final = 0.75  # of the stake; any constant below 1 is valid. Source: the same paper, section 4.2
_MOST_LABELS: Final = 200_000  # a number beyond this is no advice
_GRID: Final = np.concatenate([[0.0], np.logspace(-3, 3, 181)])
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
    predicted = Predictions(predicted.proba[usable], predicted.output_tokens[usable])
    costs = expected_costs(tiers, calibration.input_tokens[usable], predicted.output_tokens)
    unit = unit_cost(tiers)
    grid = _GRID / unit if unit > 0 else _GRID[:1]
    outcomes = _Outcomes(calibration.acceptable[usable], weight[usable], calibration.max_weight)
    choices = [choose(predicted.proba, costs, mu) for mu in grid]
    return tuple(_threshold(target, confidence, grid, choices, outcomes) for target in targets)


@dataclass(frozen=True)
class _Outcomes:
    """acceptable: (n, k), NaN where not tried. weight: (n, k), as `evidence` gives it.

    max_weight: the clip of the weights. Known before any outcome, so that it bounds the bets.
    """

    acceptable: FloatArray
    weight: FloatArray
    max_weight: float

    def margin(self, choice: NDArray[np.intp], target: float) -> tuple[NDArray[np.float64], float]:
        """Values in [0, 1] for each row, and their mean if retained quality were exactly the target.

        Inverse propensity weighting of what is acceptable at the chosen tier, and of what is *not* at the top:
        weights that were clipped then make the policy look worse and the top better, never the other way.
        """
        tried, rows = ~np.isnan(self.acceptable), np.arange(len(choice))
        good = np.nan_to_num(self.acceptable)
        got = np.where(tried, good * self.weight, 0)[rows, choice]
        top = 1 - np.where(tried, (1 - good) * self.weight, 0)[:, -1]
        bound = self.max_weight if (self.weight != 1).any() else 1.0
        low, high = -target, bound + target * (bound - 1)
        return np.asarray((got - target * top - low) / (high - low), np.float64), -low / (high - low)


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


def _threshold(
    target: float,
    confidence: float,
    grid: NDArray[np.float64],
    choices: Sequence[NDArray[np.intp]],
    outcomes: _Outcomes,
) -> Threshold:
    if len(outcomes.acceptable) == 0:
        reason = "no calibration prompt has outcomes for all tiers, or for one with its propensity"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    held: float | None = None
    previous: NDArray[np.intp] | None = None
    for mu, choice in zip(grid, choices, strict=True):
        if previous is None or not np.array_equal(choice, previous):
            margin, null_mean = outcomes.margin(choice, target)
            if betting_wealth(margin, null_mean, 1 - confidence) < 1 / (1 - confidence):
                break
            previous = choice
        held = float(mu)
    if held is not None:
        return Threshold(target=target, confidence=confidence, mu=held)
    return _refused(target, confidence, *outcomes.margin(choices[0], target))


def _refused(target: float, confidence: float, margin: NDArray[np.float64], null_mean: float) -> Threshold:
    """Why not even μ = 0 could be shown to hold, and how many labels might: 2 ln(1/α) σ² / δ² of a fixed bet."""
    delta = float(margin.mean()) - null_mean
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


def betting_wealth(values: FloatArray, mean: float, alpha: float) -> float:
    """What a gambler has made of 1 by betting that values in [0, 1] average more than `mean`.

    If they do not, it exceeds 1/alpha with probability at most alpha (Markov), so reaching 1/alpha rejects
    "at most `mean`". Bets follow the predictable plug-in of Waudby-Smith & Ramdas 2024, eq. 26, for a fixed
    n, averaged over `_ORDERS` random orders with a fixed seed.
    """
    n = len(values)
    rng = np.random.default_rng(0)
    x = np.stack([rng.permutation(values) for _ in range(_ORDERS)])
    seen = np.arange(1, n + 1)
    running = (0.5 + np.cumsum(x, axis=1)) / (seen + 1)
    variance = (0.25 + np.cumsum((x - running) ** 2, axis=1)) / (seen + 1)
    before = np.hstack([np.full((_ORDERS, 1), 0.25), variance[:, :-1]])
    bets = np.minimum(np.sqrt(2 * np.log(1 / alpha) / (n * before)), _LARGEST_BET / mean)
    return float(np.exp(np.log1p(bets * (x - mean)).sum(axis=1)).mean())
