"""What a bundle remembers of the prompts it was trained on: no text, but enough to name neighbours and spot repeats."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from serving.classifier.quantised import dequantised
from serving.errors import BundleError

_BLOCK: Final = 1024  # embeddings turned to floats at a time, so that they stay within the processor's cache


def seen_keys(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """The first 8 bytes of hex sha256 keys, sorted, once each: what `TrainedOn.seen` holds."""
    return np.unique(_numbers(keys))


@dataclass(frozen=True)
class TrainedOn:
    """n prompts that the heads were fitted on, and the keys of all that had a part in the router.

    ids: of the requests in the log. codes, scale: embeddings, int8 (n, d) and float32 (n,). features: float32 (n, f).
    acceptable: float32 (n, k), what was judged, NaN where it was not. seen: uint64, sorted; of every prompt that the
    heads, their prior, the calibration or the thresholds come from.
    """

    ids: tuple[str, ...]
    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    features: NDArray[np.float32]
    acceptable: NDArray[np.float32]
    seen: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """float32 (n, d), of length 1; made anew each time, because a service never needs all of it."""
        return dequantised(self.codes, self.scale)

    @cached_property
    def typical_features(self) -> NDArray[np.float32]:
        """The median of every feature, float32 (f,)."""
        return np.asarray(np.median(self.features, axis=0), np.float32)

    def has_seen(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which of the prompts, by hex sha256 of their texts, the router was made from: (m,) → bool (m,)."""
        return np.isin(_numbers(keys), self.seen)

    def nearest(self, embedding: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The most similar prompts, best first: their rows and cosines, at most `count`. embedding: (d,), length 1."""
        blocks = [self.codes[i : i + _BLOCK].astype(np.float32) @ embedding for i in range(0, len(self), _BLOCK)]
        cosine = np.concatenate(blocks) / self._lengths
        rows = np.argpartition(-cosine, min(count, len(self)) - 1)[:count]
        rows = rows[np.argsort(-cosine[rows], kind="stable")]
        return rows, np.asarray(cosine[rows], np.float32)

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        """Of the codes, (n,)."""
        return np.asarray(np.maximum(np.linalg.norm(self.codes.astype(np.float32), axis=1), 1), np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, for `np.savez`; ids as JSON, since one long text would widen an array of texts."""
        ids = np.frombuffer(json.dumps(self.ids, ensure_ascii=False).encode(), np.uint8)
        return {"ids": ids, **{name: getattr(self, name) for name in (*_BY_ROW, "seen")}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, dimension: int, columns: int, tiers: int) -> Self:
        """The stored arrays. Raises BundleError if one is missing or of another shape."""
        try:
            ids = tuple(map(str, json.loads(arrays["ids"].tobytes())))
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(f"trained_on.npz: the ids cannot be read: {error}; train the router again") from None
        widths: dict[str, tuple[int, ...]] = {
            "codes": (dimension,), "scale": (), "features": (columns,), "acceptable": (tiers,)
        }  # fmt: skip
        for name, width in widths.items():
            if name not in arrays or arrays[name].shape != (len(ids), *width):
                raise BundleError(f"trained_on.npz: {name} does not fit {len(ids)} prompts; train the router again")
        if "seen" not in arrays or arrays["seen"].ndim != 1:
            raise BundleError("trained_on.npz lacks the keys of the prompts seen; train the router again")
        return cls(ids, *(arrays[name] for name in (*_BY_ROW, "seen")))


_BY_ROW: Final = ("codes", "scale", "features", "acceptable")


def _numbers(keys: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    return np.array([int(key[:16], 16) for key in keys], np.uint64)
