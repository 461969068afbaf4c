"""How good probabilities are: do they tell good from bad, and do they mean what they say?

Each takes weights, how often a prompt counts, so that it can be resampled. Definitions: docs/metrics.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray

BINS: Final = 15


def auc(proba: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    """Chance that an acceptable answer had a higher probability than one that was not, ties half; nan with one kind.

    proba, y, weight: (n,). A share of acceptable answers counts as acceptable from one half on.
    Source: Hanley & McNeil 1982, as the Mann-Whitney statistic.
    """
    good = y >= 0.5
    _, level = np.unique(proba, return_inverse=True)
    positive, negative = np.bincount(level, weight * good), np.bincount(level, weight * ~good)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float(positive @ (below + negative / 2) / pairs) if pairs > 0 else float("nan")


def brier(proba: FloatArray, y: FloatArray, weight: FloatArray) -> float:
    """Mean squared gap between P(acceptable) and the outcome, in [0, 1]. Source: Brier 1950, eq. 2, per class."""
    return float(weight @ (proba - y) ** 2 / weight.sum())


def bins_of(proba: FloatArray, bins: int = BINS) -> NDArray[np.intp]:
    """Bin number of each probability, (n,), in at most `bins` equally filled bins; equal ones share a bin."""
    edges = np.unique(np.quantile(proba, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.asarray(np.searchsorted(edges, proba, side="right"), np.intp)


def squared_calibration_error(proba: FloatArray, y: FloatArray, weight: FloatArray, bin_of: NDArray[np.intp]) -> float:
    """Debiased mean over the bins of the squared gap between mean probability and mean outcome; its root is `ece`.

    proba, y, weight: (n,). bin_of: int (n,). The variance of a bin's mean gap is taken off its square, so that a
    perfectly calibrated router scores 0 on average, below 0 at times; a plain ECE grows as bins get few prompts.
    nan when no bin has two prompts. Source: the debiased estimator of Kumar et al. 2019, arXiv:1909.10155, with the
    variance of the gaps in place of y (1 - y), which also holds where probabilities differ within a bin and for shares.
    """
    gap = proba - y
    n = np.bincount(bin_of, weight)
    usable = n > 1
    if not usable.any():
        return float("nan")
    n = n[usable]
    first = np.bincount(bin_of, weight * gap)[usable] / n
    second = np.bincount(bin_of, weight * gap**2)[usable] / n
    variance = (second - first**2) / (n - 1)
    return float(n @ (first**2 - variance) / n.sum())
