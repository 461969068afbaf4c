"""What the rule gives over its whole range: along its path, from all cheapest to all dearest, and at chosen μ."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
from serving.routing.promise import choose
from training.evaluation.judged import Judged
from training.evaluation.paths import Path

_POINTS: Final = 101


@dataclass(frozen=True)
class Curve:
    """Retained quality and relative cost, (p,), and each tier's share of calls, (p, k); nan where not defined."""

    quality: NDArray[np.float64]
    cost: NDArray[np.float64]
    share: NDArray[np.float64]

    def best_at(self, cost: FloatArray) -> NDArray[np.float64]:
        """The best retained quality that costs at most so much, (m,) → (m,): in hindsight, so it never falls.

        nan below the cheapest point and above the dearest.
        """
        order = np.argsort(self.cost, kind="stable")
        at, quality = self.cost[order], np.fmax.accumulate(self.quality[order])
        return np.interp(cost, at, quality, left=np.nan, right=np.nan)


def curve_along(path: Path, judged: Judged) -> Curve:
    """The curve of a path, thinned to about a hundred points, evenly in steps."""
    weight, k = np.ones(len(judged)), judged.quality.shape[1]
    best, dearest = judged.tops(weight)
    quality = path.mean_along(judged.quality, judged.evidence).totals(weight) / best
    cost = path.along(judged.cost).totals(weight) / dearest
    shares = [path.along(np.broadcast_to(np.eye(k)[t], (len(judged), k))).totals(weight) for t in range(k)]
    points = np.unique(np.linspace(0, len(quality) - 1, _POINTS).round().astype(int))
    return Curve(quality[points], cost[points], np.stack(shares, axis=1)[points])


def curve_by_mu(judged: Judged, mus: NDArray[np.float64]) -> Curve:
    """What the rule gives at each μ, one point a μ."""
    weight = np.ones(len(judged))
    choices = [choose(judged.proba, judged.expected_cost, float(mu)) for mu in mus]
    quality, cost, share = zip(*(judged.of_choice(choice, weight) for choice in choices), strict=True)
    return Curve(np.array(quality), np.array(cost), np.array(share))
