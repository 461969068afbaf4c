"""An embedding as int8 with one scale, a quarter of its size: as stores, data sets and bundles keep it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_TINY: Final = np.finfo(np.float32).tiny


def quantised(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(n, d) vectors as int8 and scale (n,), each row scaled by its largest magnitude; a zero vector stays zero."""
    scale = np.abs(vectors).max(axis=1) / 127
    return np.rint(vectors / np.maximum(scale, _TINY)[:, None]).astype(np.int8), scale.astype(np.float32)


def dequantised(codes: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors of `quantised`, of length 1 again: float32 (n, d)."""
    vectors = codes.astype(np.float32) * scale[:, None]
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY), np.float32)
