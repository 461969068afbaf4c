"""Sums of regression trees and the projection they read, from plain arrays.

The arrays come from scikit-learn's gradient boosting (`training.fitting.forest` exports them), so nothing of
scikit-learn is needed to read or to run them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.proba import FloatArray
from serving.errors import BundleError


@dataclass(frozen=True)
class Forest:
    """Sums of regression trees, several outputs in one set of arrays.

    A node's children stand side by side: `left` and `left + 1`. A leaf points to itself and has an infinite
    threshold, so walking `depth` steps from every root ends in the leaves, without a branch.
    Arrays over nodes: feature, threshold, left, value. `roots` (t,) are grouped by output, and
    `first_tree` (m,) says where each output's trees begin. `baseline` (m,) is added to the sums.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    value: NDArray[np.float64]
    roots: NDArray[np.int32]
    first_tree: NDArray[np.int32]
    baseline: NDArray[np.float64]
    depth: int

    def __call__(self, X: FloatArray) -> NDArray[np.float64]:
        """The outputs for each row of X: (n, columns) → float64 (n, m)."""
        sums = np.empty((len(X), len(self.baseline)))
        for start in range(0, len(X), 1024):  # keeps the (rows, trees) intermediates within the cache
            rows = X[start : start + 1024]
            flat, offset = rows.ravel(), (np.arange(len(rows)) * rows.shape[1])[:, None]
            node = self.roots[None, :]
            for _ in range(self.depth):
                node = self.left[node] + (flat[offset + self.feature[node]] > self.threshold[node])
            sums[start : start + 1024] = np.add.reduceat(self.value[node], self.first_tree, axis=1)
        return sums + self.baseline

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for `np.savez`."""
        return {f"{prefix}.{name}": np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str, *, columns: int) -> Self:
        """The forest stored under `prefix`, for inputs of `columns` columns.

        Raises BundleError if an array is missing or an index leads outside.
        """
        names = ("feature", "threshold", "left", "value", "roots", "first_tree", "baseline", "depth")
        if missing := [name for name in names if f"{prefix}.{name}" not in arrays]:
            raise BundleError(f"heads.npz lacks {prefix}.{missing[0]}; train the router again")
        fields = {name: arrays[f"{prefix}.{name}"] for name in names}
        forest = cls(**{**fields, "depth": int(fields["depth"])})  # type: ignore[arg-type]
        nodes, trees = len(forest.left), len(forest.roots)
        sound = (
            len(forest.feature) == len(forest.threshold) == len(forest.value) == nodes > 0
            and _within(forest.feature, columns)
            and _within(forest.left, nodes)
            and _within(forest.left + np.isfinite(forest.threshold), nodes)  # a leaf has no right child
            and _within(forest.roots, nodes)
            and _within(forest.first_tree, trees)
            and len(forest.first_tree) == len(forest.baseline)
            and 0 <= forest.depth <= 64
            and bool(np.isfinite(forest.value).all() and np.isfinite(forest.baseline).all())
        )
        if not sound:
            raise BundleError(f"heads.npz: the trees of {prefix} are inconsistent; train the router again")
        return forest


def _within(indices: NDArray[np.int32], size: int) -> bool:
    return len(indices) > 0 and bool(indices.min() >= 0 and indices.max() < size)


@dataclass(frozen=True)
class Projection:
    """Principal components of the embeddings: `(E - mean) @ components.T`.

    mean: float32 (d,). components: float32 (p, d).
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __call__(self, embeddings: FloatArray) -> NDArray[np.float32]:
        """(n, d) → float32 (n, p)."""
        return np.asarray((embeddings - self.mean) @ self.components.T, np.float32)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for `np.savez`."""
        return {f"{prefix}.{name}": array for name, array in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str, *, dimension: int) -> Self:
        """The projection stored under `prefix`. Raises BundleError if it does not take `dimension`."""
        try:
            mean, components = (np.asarray(arrays[f"{prefix}.{name}"], np.float32) for name in ("mean", "components"))
        except KeyError as error:
            raise BundleError(f"heads.npz lacks {error}; train the router again") from None
        if mean.shape != (dimension,) or components.ndim != 2 or components.shape[1] != dimension:
            raise BundleError(f"heads.npz: the projection does not take embeddings of {dimension} dimensions")
        return cls(mean, components)


def design_matrix(projection: Projection, embeddings: FloatArray, features: FloatArray) -> NDArray[np.float32]:
    """What the trees see: principal components, then surface features. (n, d), (n, f) → float32 (n, p + f)."""
    return np.hstack([projection(embeddings), np.asarray(features, np.float32)])
