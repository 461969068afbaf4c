"""What a bundle remembers of the prompts it was trained on: no text, but enough to name neighbours and spot repeats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.errors import BundleError


def quantised(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(n, d) vectors as int8 and scale (n,), each row scaled by its largest magnitude."""
    scale = np.abs(vectors).max(axis=1) / 127
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def dequantised(codes: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors of `quantised`, of length 1 again: float32 (n, d)."""
    vectors = codes.astype(np.float32) * scale[:, None]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def seen_keys(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """The first 8 bytes of hex sha256 keys, sorted, once each: what `TrainedOn.seen` holds."""
    return np.unique(_numbers(keys))


@dataclass(frozen=True)
class TrainedOn:
    """n prompts that the heads were fitted on, and the keys of all that had a part in the router.

    id: text (n,), of the request in the log. codes, scale: embeddings, int8 (n, d) and float32 (n,).
    features: float32 (n, f). acceptable: float32 (n, k), NaN where the tier was not tried.
    seen: uint64, sorted; of every prompt that the heads, the calibration or the thresholds come from.
    """

    id: NDArray[np.str_]
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    features: NDArray[np.float32]
    acceptable: NDArray[np.float32]
    seen: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.id)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """float32 (n, d), of length 1."""
        return dequantised(self.codes, self.scale)

    def has_seen(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which of the prompts, by hex sha256 of their texts, the router was made from: (m,) → bool (m,)."""
        return np.isin(_numbers(keys), self.seen)

    def nearest(self, embedding: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The most similar prompts, best first: their rows and cosines, at most `count`. embedding: (d,)."""
        codes = self.codes.astype(np.float32)
        cosine = codes @ embedding / np.linalg.norm(codes, axis=1)
        rows = np.argsort(-cosine, kind="stable")[:count]
        return rows, np.asarray(cosine[rows], np.float32)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], *, dimension: int, columns: int, tiers: int
    ) -> Self:
        """The stored arrays. Raises BundleError if one is missing or of another shape."""
        rows = len(arrays.get("id", ()))
        shapes = {
            "id": (rows,), "codes": (rows, dimension), "scale": (rows,), "features": (rows, columns),
            "acceptable": (rows, tiers),
        }  # fmt: skip
        for name, shape in shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                raise BundleError(f"trained_on.npz: {name} is not an array of shape {shape}; train the router again")
        if "seen" not in arrays or arrays["seen"].ndim != 1:
            raise BundleError("trained_on.npz lacks the keys of the prompts seen; train the router again")
        return cls(**{name: arrays[name] for name in (*shapes, "seen")})  # type: ignore[arg-type]


def _numbers(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    return np.array([int(key[:16], 16) for key in keys], np.uint64)
