"""How hard a prompt is and how able a model is, from who answered what: the Rasch model.

    P(model m answers prompt i acceptably) = sigmoid(ability of m - difficulty of i)

An answer is one noisy bit; with ten to thirty models' answers the difficulty says more of what a tier can do with a
prompt than the answers of the tier's own models do, and it says it of tiers that were not asked. Source: Rasch 1960.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import sigmoid

_STEPS: Final = 60
_DAMPING: Final = 0.7  # of each Newton step; they alternate between prompts and models
_VARIANCE: Final = (4.0, 9.0)  # of the Gaussian priors on difficulty and ability: a prompt nobody solves stays finite


def rasch(
    prompt: NDArray[np.intp], model: NDArray[np.intp], score: NDArray[np.floating], prompts: int, models: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Difficulty of each prompt and ability of each model, on one scale: float64 (prompts,), (models,).

    prompt, model: indices of each answer; score: what it earned, 0 to 1; all of one length. Posterior modes.
    """
    difficulty, ability = np.zeros(prompts), np.zeros(models)
    for _ in range(_STEPS):
        for values, index, size, sign, variance in (
            (difficulty, prompt, prompts, -1.0, _VARIANCE[0]),
            (ability, model, models, 1.0, _VARIANCE[1]),
        ):
            p = sigmoid(ability[model] - difficulty[prompt])
            slope = sign * np.bincount(index, score - p, size) - values / variance
            values += _DAMPING * slope / (np.bincount(index, p * (1 - p), size) + 1 / variance)
    return difficulty, ability
