"""Which μ keeps a promise: the largest whose retained quality is at least the target, with stated confidence.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052): the grid of μ is fixed before any outcome is seen
and tested from the most cautious on; the first that cannot be shown to hold ends the search, so the chance of
choosing one that fails is at most 1 - confidence, however long the grid. Each test is a betting test of a
bounded mean (Waudby-Smith & Ramdas 2024, arXiv:2010.09686), which holds for any sample size and for
propensity-weighted outcomes as well as for plain ones.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import CalibrationSet, Predictions, Threshold
from serving.classifier.heads import FloatArray
from serving.routing.costs import expected_costs
from serving.tiers import Tier

CONFIDENCE: Final = 0.95
_ORDERS: Final = 20  # random orders whose bets are averaged; the average of valid bets is a valid bet
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
    usable = _usable(calibration)
    predicted = calibration.fallback if fallback else calibration.predicted
    predicted = Predictions(predicted.proba[usable], predicted.output_tokens[usable])
    costs = expected_costs(tiers, calibration.input_tokens[usable], predicted.output_tokens)
    unit = expected_costs(tiers, np.array([1000.0]), np.full((1, len(tiers)), 1000.0))[0, -1]
    grid = _GRID / unit if unit > 0 else _GRID[:1]
    acceptable, weight = calibration.acceptable[usable], calibration.weight[usable]
    choices = [choose(predicted.proba, costs, mu) for mu in grid]
    return tuple(
        _threshold(target, confidence, grid, choices, np.nan_to_num(acceptable) * weight * ~np.isnan(acceptable))
        for target in targets
    )


def retained_quality(outcome: FloatArray, choice: NDArray[np.intp]) -> float:
    """Share acceptable under `choice` over share acceptable at the top tier; nan when the top is never acceptable.

    outcome: (n, k), share acceptable times inverse propensity, 0 where the tier was not tried.
    """
    top = float(outcome[:, -1].sum())
    return float(outcome[np.arange(len(outcome)), choice].sum()) / top if top > 0 else float("nan")


def _usable(calibration: CalibrationSet) -> NDArray[np.bool_]:
    """Rows that speak for every tier: all tried, or one tried with its propensity known."""
    tried = ~np.isnan(calibration.acceptable)
    weighted = (calibration.weight > 1).any(axis=1)
    return np.asarray(tried.all(axis=1) | (tried.any(axis=1) & weighted))


def _threshold(
    target: float,
    confidence: float,
    grid: NDArray[np.float64],
    choices: Sequence[NDArray[np.intp]],
    outcome: FloatArray,
) -> Threshold:
    if len(outcome) == 0:
        reason = "no calibration prompt has outcomes for all tiers, or for one with its propensity"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    scale = max(1.0, float(outcome.max()))
    null_mean = target / (1 + target)  # of the margin below when retained quality is exactly the target
    held: float | None = None
    previous: NDArray[np.intp] | None = None
    first_margin = np.empty(0)
    for mu, choice in zip(grid, choices, strict=True):
        if previous is None or not np.array_equal(choice, previous):
            chosen = outcome[np.arange(len(outcome)), choice]
            margin = ((chosen - target * outcome[:, -1]) / scale + target) / (1 + target)  # in [0, 1]
            if previous is None:
                first_margin = margin
            if betting_wealth(margin, null_mean, 1 - confidence) < 1 / (1 - confidence):
                break
            previous = choice
        held = float(mu)
    if held is not None:
        return Threshold(target=target, confidence=confidence, mu=held)
    return _refused(target, confidence, first_margin, null_mean)


def _refused(target: float, confidence: float, margin: NDArray[np.float64], null_mean: float) -> Threshold:
    """Why not even μ = 0 could be shown to hold, and how many labels might: 2 ln(1/α) σ² / δ² of a fixed bet."""
    delta = float(margin.mean()) - null_mean
    if delta <= 0:
        reason = f"even the most probable tier does not retain {target:.0%} on these outcomes"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    needed = 2 * np.log(1 / (1 - confidence)) * float(margin.var()) / delta**2
    if needed > _MOST_LABELS:
        reason = f"even the most probable tier hardly retains {target:.0%} on these outcomes"
        return Threshold(target=target, confidence=confidence, mu=None, refused=reason)
    labels = max(int(np.ceil(needed / 100) * 100), 100 * (len(margin) // 100 + 1))
    reason = f"{len(margin)} calibration prompts cannot show it; about {labels} could"
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
    bets = np.minimum(np.sqrt(2 * np.log(1 / alpha) / (n * before)), 0.75 / mean)
    return float(np.exp(np.log1p(bets * (x - mean)).sum(axis=1)).mean())
