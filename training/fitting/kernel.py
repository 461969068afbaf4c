"""How a kernel is fitted: ridge regression on similarities to landmarks, one solution a tier.

With features of unit variance, and a ridge of the noise of an outcome (about .2) over the variance of what is to be
learned, it is the mean of a Gaussian process on the landmarks (Rasmussen & Williams 2006, section 8.3.4).
"""

from typing import Final

import numpy as np
from scipy.linalg import solve

from serving.classifier.kernel import Kernel, Scale, similarity
from serving.classifier.proba import FloatArray
from training.config import HeadSettings

_BLOCK: Final = 4096  # rows whose similarities are held at a time
_JITTER: Final = 1e-4  # on the diagonal, where two landmarks are the same prompt


def fit_scale(features: FloatArray, embedding: float) -> Scale:
    """Mean and reciprocal standard deviation of (n, f) features; what never varies is left out."""
    deviation = features.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6
    per_unit = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    return Scale(embedding, features.mean(axis=0, dtype=np.float64).astype(np.float32), per_unit.astype(np.float32))


def fit_kernel(
    embeddings: FloatArray | None,
    features: FloatArray,
    target: FloatArray,
    weight: FloatArray,
    settings: HeadSettings,
    seed: int,
) -> Kernel:
    """A kernel with an output for each column of `target`.

    embeddings: (n, d), or None for features alone. features: (n, f). target, weight: (n, k); weight is 0 where there is
    nothing to learn from. Where nothing is similar, an output is the mean of its targets.
    """
    scale = fit_scale(features, settings.embedding_scale if embeddings is not None else 0.0)
    n, k = target.shape
    chosen = np.sort(np.random.default_rng(seed).choice(n, min(settings.landmarks, n), replace=False))
    landmarks = scale(None if embeddings is None else embeddings[chosen], features[chosen])
    m = len(landmarks)
    patterns, pattern_of = np.unique(weight, axis=1, return_inverse=True)  # tiers with the same weights share sums
    gram, total = np.zeros((patterns.shape[1], m, m)), np.zeros((patterns.shape[1], m))
    moment = np.zeros((k, m))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        A = similarity(
            scale(None if embeddings is None else embeddings[rows], features[rows]), landmarks, settings.gamma
        )
        for i, w in enumerate(patterns[rows].T):
            used, tiers = w > 0, pattern_of == i
            a = A[used].astype(np.float64)
            weighted = a * w[used][:, None]
            gram[i] += weighted.T @ a
            moment[tiers] += target[rows][used][:, tiers].T @ weighted
            total[i] += weighted.sum(axis=0)
    # In single precision, errors of similarity × ridge outgrow the jitter where a log has few different prompts.
    exact = landmarks.astype(np.float64)
    penalty = settings.ridge * similarity(exact, exact, settings.gamma) + _JITTER * np.eye(m)
    weights, intercept = np.zeros((m, k)), np.zeros(k)
    for tier, i in enumerate(pattern_of):
        used = weight[:, tier] > 0
        mass = float(weight[used, tier].sum())
        mean = float(target[used, tier] @ weight[used, tier]) / mass if mass else 0.0
        at = total[i] / mass if mass else np.zeros(m)
        system = gram[i] - np.outer(at, total[i]) + penalty
        weights[:, tier] = solve(system, moment[tier] - mean * total[i], assume_a="pos")
        intercept[tier] = mean - float(at @ weights[:, tier])
    return Kernel(scale, settings.gamma, landmarks, weights, intercept)
