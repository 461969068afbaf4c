"""Routers of the field, fitted on the prompts that the bundle remembers, unweighted.

Each predicts an outcome per tier: (n, k) values for new prompts, not calibrated; None where some tier has too few
outcomes.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serving.classifier.proba import FloatArray
from serving.classifier.trained_on import TrainedOn
from training.fitting.examples import Examples

_FEWEST: Final = 10  # outcomes of a tier
_NEIGHBOURS: Final = 40
_PENALTIES: Final = np.logspace(0, 5, 11)


def nearest_neighbours(trained_on: TrainedOn, examples: Examples) -> NDArray[np.float64] | None:
    """Mean outcome of the 40 most similar prompts that the tier was tried on.

    Source: the form of Hu et al. 2024, arXiv:2403.12031.
    """
    return _per_tier(
        trained_on,
        trained_on.embedding,
        examples.embedding,
        lambda rows: KNeighborsRegressor(min(_NEIGHBOURS, rows), algorithm="brute"),
    )


def ridge(trained_on: TrainedOn, examples: Examples) -> NDArray[np.float64] | None:
    """Ridge regression on embedding and surface features, its penalty chosen by leave-one-out error."""
    return _per_tier(
        trained_on,
        np.hstack([trained_on.embedding, trained_on.features]),
        np.hstack([examples.embedding, examples.features]),
        lambda _rows: make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)),
    )


def perceptron(trained_on: TrainedOn, examples: Examples) -> NDArray[np.float64] | None:
    """A multi-layer perceptron on the embedding, one hidden layer of 100, stopped early on a tenth of the prompts.

    Source: the form of Hu et al. 2024.
    """
    return _per_tier(
        trained_on,
        trained_on.embedding,
        examples.embedding,
        lambda rows: MLPRegressor(hidden_layer_sizes=(100,), early_stopping=rows >= 100, max_iter=100, random_state=0),
    )


def _per_tier(
    trained_on: TrainedOn, X: FloatArray, X_new: FloatArray, model: Callable[[int], Any]
) -> NDArray[np.float64] | None:
    """A model a tier, fitted where the tier was tried; `model` gets the number of those prompts."""
    values = []
    for outcome in trained_on.acceptable.T:
        tried = ~np.isnan(outcome)
        if tried.sum() < _FEWEST:
            return None
        values.append(model(int(tried.sum())).fit(X[tried], outcome[tried]).predict(X_new))
    return np.asarray(np.stack(values, axis=1), np.float64)
