"""Matrix factorisation in RouteLLM's form: a tier is a vector, a prompt a projected embedding, both give a score."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray, sigmoid
from serving.classifier.trained_on import TrainedOn
from training.fitting.examples import Examples

_SIZE: Final = 128  # of the shared space. Source: Ong et al. 2024, arXiv:2406.18665v4
_EPOCHS: Final = 200  # at most; it stops when a tenth of the pairs has not got better for _PATIENCE of them
_PATIENCE: Final = 5
_BATCH: Final = 64
_RATE: Final = 3e-4  # with the decay and Adam: the same paper
_DECAY: Final = 1e-5
_ADAM_MEAN: Final = 0.9  # Source of these and of 1e-8: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1
_ADAM_SQUARE: Final = 0.999


def factorisation(trained_on: TrainedOn, examples: Examples) -> NDArray[np.float64] | None:
    """Chance that each tier's answer beats the lowest tier's, which itself gets one half: (n, k).

    δ(tier, prompt) = wᵀ (v_tier ∘ (W prompt + b)), fitted by logistic regression on pairs of tiers of which one
    was acceptable and the other not; the chance is σ(δ(tier) - δ(lowest)). Source: the same paper, whose ten epochs are
    for 65,000 pairs; here it learns until pairs that it has not seen get no better. None without pairs of both kinds.
    """
    prompt, better, worse = _battles(trained_on.acceptable)
    model = _Model(trained_on.codes.shape[1], trained_on.acceptable.shape[1])
    embedding = trained_on.embedding
    rng = np.random.default_rng(0)
    unseen = np.isin(prompt, rng.permutation(len(embedding))[: len(embedding) // 10])
    held, fit = np.flatnonzero(unseen), np.flatnonzero(~unseen)
    if len(held) == 0 or len(fit) == 0:
        return None
    best, least, waited = model.strengths(examples.embedding), np.inf, 0
    for _ in range(_EPOCHS):
        for batch in _batches(rng.permutation(fit)):
            model.learn(embedding[prompt[batch]], better[batch], worse[batch])
        loss = model.loss(embedding[prompt[held]], better[held], worse[held])
        waited = 0 if loss < least else waited + 1
        if loss < least:
            best, least = model.strengths(examples.embedding), loss
        elif waited == _PATIENCE:
            break
    return sigmoid(best - best[:, :1])


def _battles(acceptable: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Prompt, better and worse tier of every pair of tiers whose outcomes differ."""
    k = acceptable.shape[1]
    found = [
        np.stack([rows, np.full(len(rows), i), np.full(len(rows), j)])
        for i in range(k)
        for j in range(k)
        if len(rows := np.flatnonzero(acceptable[:, i] > acceptable[:, j]))
    ]
    prompt, better, worse = np.concatenate(found, axis=1) if found else np.empty((3, 0), np.intp)
    return prompt, better, worse


def _batches(order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(order), _BATCH):
        yield order[start : start + _BATCH]


class _Model:
    """The parameters, and a step of Adam (Kingma & Ba 2015) on the logistic loss."""

    def __init__(self, dimension: int, tiers: int) -> None:
        rng = np.random.default_rng(0)
        self._weights = {
            "tier": rng.normal(size=(tiers, _SIZE)),
            "project": rng.normal(size=(dimension, _SIZE)) / np.sqrt(dimension),
            "bias": np.zeros(_SIZE),
            "out": rng.normal(size=_SIZE) / np.sqrt(_SIZE),
        }
        self._mean = {name: np.zeros_like(value) for name, value in self._weights.items()}
        self._square = {name: np.zeros_like(value) for name, value in self._weights.items()}
        self._step = 0

    def strengths(self, embedding: FloatArray) -> NDArray[np.float64]:
        """δ of every tier for each prompt: (n, d) → (n, k)."""
        w = self._weights
        return np.asarray(((embedding @ w["project"] + w["bias"]) * w["out"]) @ w["tier"].T)

    def loss(self, embedding: FloatArray, better: NDArray[np.intp], worse: NDArray[np.intp]) -> float:
        """Mean logistic loss of pairs, at least one: (n, d), (n,), (n,)."""
        strength, rows = self.strengths(embedding), np.arange(len(better))
        return float(np.logaddexp(0, strength[rows, worse] - strength[rows, better]).mean())

    def learn(self, embedding: FloatArray, better: NDArray[np.intp], worse: NDArray[np.intp]) -> None:
        """One step down the loss of pairs: (n, d), (n,), (n,)."""
        w = self._weights
        hidden = embedding @ w["project"] + w["bias"]
        contrast = w["tier"][better] - w["tier"][worse]
        error = (sigmoid((contrast * hidden) @ w["out"]) - 1)[:, None] / len(better)
        to_hidden, to_tier = error * contrast * w["out"], error * hidden * w["out"]
        tier = np.zeros_like(w["tier"])
        np.add.at(tier, better, to_tier)
        np.add.at(tier, worse, -to_tier)
        self._adam(
            {
                "tier": tier,
                "project": embedding.T @ to_hidden,
                "bias": to_hidden.sum(axis=0),
                "out": (error * contrast * hidden).sum(axis=0),
            }
        )

    def _adam(self, gradients: dict[str, NDArray[np.float64]]) -> None:
        self._step += 1
        for name, gradient in gradients.items():
            gradient = gradient + _DECAY * self._weights[name]
            self._mean[name] += (1 - _ADAM_MEAN) * (gradient - self._mean[name])
            self._square[name] += (1 - _ADAM_SQUARE) * (gradient**2 - self._square[name])
            mean = self._mean[name] / (1 - _ADAM_MEAN**self._step)
            square = self._square[name] / (1 - _ADAM_SQUARE**self._step)
            self._weights[name] -= _RATE * mean / (np.sqrt(square) + 1e-8)
