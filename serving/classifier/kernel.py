"""A kernel regression on embedding and features together: similar prompts get similar outcomes.

f(x) = k(x, Z) W + intercept with the Gaussian kernel k(x, z) = exp(-gamma |x - z|²) and landmarks Z, some of
the prompts it was fitted on (Nyström: Williams & Seeger 2001). `training.fitting.kernel` fits the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
from serving.errors import BundleError

_BLOCK: Final = 4096  # rows whose similarities are held at a time: of a large log, all would take gigabytes
_LARGEST: Final = 3.0  # standard deviations: a feature that is further out is as unusual as it gets


@dataclass(frozen=True)
class Scale:
    """Where embedding and features become one vector.

    embedding: what embeddings, of length 1, are multiplied by; 0 leaves them out. mean, per_unit: float32 (f,);
    features less their mean, times per_unit, held within ±3. per_unit is 0 for what never varied.
    """

    embedding: float
    mean: NDArray[np.float32]
    per_unit: NDArray[np.float32]

    def __call__(self, embeddings: FloatArray | None, features: FloatArray) -> NDArray[np.float32]:
        """(n, d) or None, (n, f) → float32 (n, d + f), or (n, f) without embeddings."""
        scaled = np.clip((features - self.mean) * self.per_unit, -_LARGEST, _LARGEST)
        parts = [scaled] if embeddings is None else [embeddings * np.float32(self.embedding), scaled]
        return np.hstack(parts).astype(np.float32)


@dataclass(frozen=True)
class Kernel:
    """landmarks: float32 (m, columns), scaled. weights: float64 (m, k). intercept: float64 (k,)."""

    scale: Scale
    gamma: float
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def __call__(self, embeddings: FloatArray | None, features: FloatArray) -> NDArray[np.float64]:
        """The k outputs for n prompts: (n, d) or None, (n, f) → float64 (n, k)."""
        outputs = np.empty((len(features), len(self.intercept)))
        for start in range(0, len(features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            X = self.scale(None if embeddings is None else embeddings[rows], features[rows])
            similar = similarity(X, self.landmarks, self.gamma, self._squared)
            outputs[rows] = similar @ self.weights + self.intercept
        return outputs

    @cached_property
    def _squared(self) -> FloatArray:
        """|z|² of the landmarks, (m,): else most of the time that one prompt takes."""
        return squared_lengths(self.landmarks)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for `np.savez`."""
        own = {name: getattr(self, name) for name in ("gamma", "landmarks", "weights", "intercept")}
        return {f"{prefix}.{name}": np.asarray(value) for name, value in (vars(self.scale) | own).items()}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str, *, dimension: int, columns: int, outputs: int
    ) -> Self:
        """The kernel stored under `prefix`, for embeddings of `dimension` (0: for features alone) and f = `columns`.

        Raises BundleError if an array is missing or has another shape.
        """
        m = len(np.atleast_1d(arrays.get(f"{prefix}.landmarks", ())))
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (), "mean": (columns,), "per_unit": (columns,), "gamma": (),
            "landmarks": (m, dimension + columns), "weights": (m, outputs), "intercept": (outputs,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if not _finite(arrays.get(f"{prefix}.{name}"), shape):
                raise BundleError(
                    f"heads.npz: {prefix}.{name} is not an array of shape {shape} with finite values; "
                    "train the router again"
                )
        if not (m and float(arrays[f"{prefix}.gamma"]) > 0):
            raise BundleError(f"heads.npz: {prefix} compares with nothing; train the router again")
        single = {
            name: np.asarray(arrays[f"{prefix}.{name}"], np.float32) for name in ("mean", "per_unit", "landmarks")
        }
        double = {name: np.asarray(arrays[f"{prefix}.{name}"], np.float64) for name in ("weights", "intercept")}
        scale = Scale(float(arrays[f"{prefix}.embedding"]), single["mean"], single["per_unit"])
        return cls(scale, float(arrays[f"{prefix}.gamma"]), single["landmarks"], **double)


def _finite(stored: NDArray[np.generic] | None, shape: tuple[int, ...]) -> bool:
    return (
        stored is not None and stored.dtype.kind in "fiu" and stored.shape == shape and bool(np.isfinite(stored).all())
    )


def similarity(X: FloatArray, landmarks: FloatArray, gamma: float, squared: FloatArray | None = None) -> FloatArray:
    """k(x, z) of every row with every landmark, 0 to 1: (n, columns), (m, columns) → (n, m), as precise as they are.

    squared: |z|² of the landmarks, (m,), where they are known already.
    """
    known = squared_lengths(landmarks) if squared is None else squared
    distance = squared_lengths(X)[:, None] + known - 2 * (X @ landmarks.T)
    return np.asarray(np.exp(-gamma * np.maximum(distance, 0)))


def squared_lengths(X: FloatArray) -> FloatArray:
    """|x|² of every row: (n, columns) → (n,)."""
    return np.asarray((X * X).sum(axis=1))
