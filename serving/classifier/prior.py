"""What other people's outcomes say of a prompt, put on this log's scale: where a fit with few labels starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.kernel import Kernel
from serving.classifier.proba import FloatArray, log_odds, sigmoid
from serving.errors import BundleError


@dataclass(frozen=True)
class Prior:
    """A kernel fitted on the public outcomes, with j outputs for the tiers of their ladder, cheapest first.

    slope, intercept: float64 (k,), of Platt's calibration on this log's labels. Both ladders reach from their cheapest
    to their top tier: between its ends, a tier takes the log-odds between the two that are nearest. share: 0 to 1, how
    much of it the log's own heads start from.
    """

    kernel: Kernel
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    share: float

    def __call__(self, embeddings: FloatArray | None, features: FloatArray) -> NDArray[np.float64]:
        """What to start from, that share of P(acceptable), for every tier: (n, d), (n, f) → (n, k)."""
        return self.share * sigmoid(self.log_odds(embeddings, features) * self.slope + self.intercept)

    def log_odds(self, embeddings: FloatArray | None, features: FloatArray) -> NDArray[np.float64]:
        """What calibration starts from, (n, k)."""
        public = log_odds(self.kernel(embeddings, features))
        position = np.linspace(0, public.shape[1] - 1, len(self.slope))
        below = np.minimum(position.astype(int), public.shape[1] - 2)
        share = position - below
        return np.asarray(public[:, below] * (1 - share) + public[:, below + 1] * share)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """The arrays by name, for `np.savez`."""
        platt = {f"{prefix}.slope": self.slope, f"{prefix}.intercept": self.intercept}
        return platt | {f"{prefix}.share": np.array(self.share)} | self.kernel.to_arrays(f"{prefix}.kernel")

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str, *, dimension: int, columns: int, tiers: int
    ) -> Self:
        """The prior stored under `prefix`. Raises BundleError if it does not fit."""
        outputs = len(np.atleast_1d(arrays.get(f"{prefix}.kernel.intercept", ())))
        kernel = Kernel.from_arrays(
            arrays, f"{prefix}.kernel", dimension=dimension, columns=columns, outputs=max(outputs, 2)
        )
        slope, intercept = (
            np.asarray(arrays.get(f"{prefix}.{name}", ()), np.float64) for name in ("slope", "intercept")
        )
        if not slope.shape == intercept.shape == (tiers,) or not np.isfinite([slope, intercept]).all():
            raise BundleError(
                f"heads.npz: {prefix} has no finite calibration for each of {tiers} tiers; train the router again"
            )
        share = np.asarray(arrays.get(f"{prefix}.share", 1.0))  # those that were written before there was one
        if share.shape != () or not 0 <= share <= 1:
            raise BundleError(f"heads.npz: {prefix}.share is {share}, not a number from 0 to 1; train the router again")
        return cls(kernel, slope, intercept, float(share))
