"""Predictions beside what happened, without a bundle."""

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
from training.evaluation.intervals import Resamples
from training.evaluation.judged import Judged
from training.fitting.examples import Examples


def judged_on(
    proba: FloatArray, examples: Examples, groups: NDArray[np.intp], expected_cost: FloatArray | None = None
) -> Judged:
    """Examples with an outcome for every tier, judged at recorded costs; at one each where none are expected.

    proba, expected_cost: (n, k). groups: (n,).
    """
    outcome, ones = examples.acceptable.astype(np.float64), np.ones(examples.acceptable.shape)
    free = expected_cost is None
    return Judged(
        proba=proba,
        expected_cost=ones if free else expected_cost,
        acceptable=examples.acceptable,
        evidence=ones,
        quality=outcome,
        cost=ones if free else examples.cost_usd,
        resamples=Resamples.of(groups),
        examples=examples,
        costs="unknown" if free else "recorded",
    )
