"""How well scores rank prompts: APGR and CPT on the curve of quality against share of calls to the strong tier,
and the least cost at which a share of its quality is retained.

Definitions and sources: docs/metrics.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray

_ROUNDING: Final = 1e-9  # of means that are equal


def apgr(share: FloatArray, quality: FloatArray, weak: float, strong: float) -> float:
    """Average performance gap recovered: the area between the curve and the weak tier's line, over that of the strong.

    share, quality: (s + 1,), from share 0 to 1. weak, strong: quality of the two tiers alone. nan unless strong > weak.
    Source: Ong et al. 2024, arXiv:2406.18665v4, whose code sums eleven shares; here the integral is exact.
    """
    if not strong > weak + _ROUNDING:
        return float("nan")
    return float((np.trapezoid(quality, share) - weak) / (strong - weak))


def call_performance_threshold(
    share: FloatArray, quality: FloatArray, weak: float, strong: float, recovered: float
) -> float:
    """CPT: the least share of calls to the strong tier that recovers a share of the gap between the two.

    recovered: .5 for CPT50. nan unless strong > weak. Source: the same paper; where the curve is not
    monotone, the first time it gets there.
    """
    if not strong > weak + _ROUNDING:
        return float("nan")
    target = weak + recovered * (strong - weak)
    reached = int(np.argmax(quality >= target - 1e-12))
    if reached == 0:
        return float(share[0])
    rise = quality[reached] - quality[reached - 1]
    part = (target - quality[reached - 1]) / rise
    return float(share[reached - 1] + min(part, 1.0) * (share[reached] - share[reached - 1]))


def cheapest_at(quality: FloatArray, cost: FloatArray, share: FloatArray, target: float) -> NDArray[np.float64]:
    """Least cost on a curve of straight pieces where quality is at least `target`, and the strong tier's share there.

    quality, cost, share: (s + 1,). Gives (cost, share), nan where the curve never gets there. Pieces are walked in
    part: a policy that draws lots between its two ends gives what lies between.
    """
    enough = quality >= target - 1e-12
    crossing = np.flatnonzero(enough[1:] != enough[:-1])
    rise = quality[crossing + 1] - quality[crossing]
    part = np.clip((target - quality[crossing]) / rise, 0, 1)

    def at(amount: FloatArray) -> NDArray[np.float64]:
        between = amount[crossing] + part * (amount[crossing + 1] - amount[crossing])
        return np.concatenate([amount[enough], between])

    costs, shares = at(cost), at(share)
    if not np.isfinite(costs).any():
        return np.array([np.nan, np.nan])
    least = int(np.nanargmin(costs))
    return np.array([costs[least], shares[least]])
