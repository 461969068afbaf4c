"""What the heads compute: embedding and features → P(acceptable) and expected output tokens of every tier.

    kernel (+ trees) + prior → log-odds → calibration → P(acceptable)

All of it from plain arrays, so that nothing of scikit-learn is needed to read or to run them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.forest import Forest, Projection, design_matrix
from serving.classifier.kernel import Kernel
from serving.classifier.prior import Prior
from serving.classifier.proba import FloatArray, log_odds, sigmoid
from serving.errors import BundleError

_MOST_TOKENS: Final = 1e6


@dataclass(frozen=True)
class Heads:
    """One head a tier, on one view of the prompt. slope, intercept: float64 (k,), of Platt's calibration.

    kernel: k outputs, P(acceptable), or what is missing to it from the prior's. trees: the same once more, where they
    have a part in it: the mean of theirs and the kernel's counts. tokens: k outputs, the log of expected output tokens.
    projection: None where the heads see the features alone.
    """

    kernel: Kernel
    trees: Forest | None
    tokens: Forest
    projection: Projection | None
    prior: Prior | None
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def predict(
        self, embeddings: FloatArray | None, features: FloatArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """P(acceptable | prompt, tier) and expected output tokens, 1 to 10^6; both (n, k).

        embeddings: (n, d), None for heads without a projection. features: (n, f).
        """
        X = self._columns(embeddings, features)
        proba = sigmoid(self._log_odds(embeddings, features, X) * self.slope + self.intercept)
        return proba, np.exp(np.clip(self.tokens(X), 0, np.log(_MOST_TOKENS)))

    def log_odds(self, embeddings: FloatArray | None, features: FloatArray) -> NDArray[np.float64]:
        """What calibration starts from, (n, k)."""
        return self._log_odds(embeddings, features, self._columns(embeddings, features))

    def _columns(self, embeddings: FloatArray | None, features: FloatArray) -> FloatArray:
        """What the trees see, (n, columns)."""
        if embeddings is None or self.projection is None:
            return features
        return design_matrix(self.projection, embeddings, features)

    def _log_odds(self, embeddings: FloatArray | None, features: FloatArray, X: FloatArray) -> NDArray[np.float64]:
        acceptable = self.kernel(embeddings, features)
        if self.trees is not None:
            acceptable = (acceptable + self.trees(X)) / 2
        if self.prior is not None:
            acceptable += self.prior(embeddings, features)
        return log_odds(acceptable)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for `np.savez`."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"{prefix}.slope": self.slope,
            f"{prefix}.intercept": self.intercept,
        }
        for name in ("kernel", "trees", "tokens", "projection", "prior"):
            part: Kernel | Forest | Projection | Prior | None = getattr(self, name)
            arrays |= {} if part is None else part.to_arrays(f"{prefix}.{name}")
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str, *, dimension: int, columns: int, tiers: int
    ) -> Self:
        """The heads stored under `prefix`, for embeddings of `dimension` (0: for features alone), f = `columns`.

        Raises BundleError if they do not fit that, or `tiers`.
        """
        there = {name: any(array.startswith(f"{prefix}.{name}.") for array in arrays) for name in ("trees", "prior")}
        shape = {"dimension": dimension, "columns": columns}
        projection = Projection.from_arrays(arrays, f"{prefix}.projection", dimension=dimension) if dimension else None
        seen = columns if projection is None else columns + len(projection.components)
        try:
            slope, intercept = (np.asarray(arrays[f"{prefix}.{name}"], np.float64) for name in ("slope", "intercept"))
        except KeyError as error:
            raise BundleError(f"heads.npz lacks {error}; train the router again") from None
        heads = cls(
            kernel=Kernel.from_arrays(arrays, f"{prefix}.kernel", **shape, outputs=tiers),
            trees=Forest.from_arrays(arrays, f"{prefix}.trees", columns=seen) if there["trees"] else None,
            tokens=Forest.from_arrays(arrays, f"{prefix}.tokens", columns=seen),
            projection=projection,
            prior=Prior.from_arrays(arrays, f"{prefix}.prior", **shape, tiers=tiers) if there["prior"] else None,
            slope=slope,
            intercept=intercept,
        )
        forests = (heads.tokens, *(() if heads.trees is None else (heads.trees,)))
        if not (all(len(f.baseline) == tiers for f in forests) and slope.shape == intercept.shape == (tiers,)):
            raise BundleError(f"heads.npz: {prefix} does not have one head for each of {tiers} tiers")
        if not np.isfinite([slope, intercept]).all():
            raise BundleError(f"heads.npz: the calibration of {prefix} is not finite; train the router again")
        return heads
