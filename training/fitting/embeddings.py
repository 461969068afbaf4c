"""Embeddings of logged prompts: computed once, kept by hash, so that a run can stop and go on.

A vector is kept as int8 with its scale, 388 bytes: the same form as in `datasets/public_outcomes.parquet`.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.classifier.encoder import Encoder
from serving.classifier.quantised import dequantised, quantised
from serving.classifier.text_key import text_key

_CHUNK: Final = 256  # texts embedded between two commits: at most two seconds of work are lost


class EmbeddingStore:
    """Embeddings by one encoder in one SQLite file, under `folder`."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._encoder = encoder
        self._path = folder / f"{encoder.identity.digest}.db"
        with closing(self._connect()) as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS embedding (key BLOB PRIMARY KEY, codes BLOB, scale REAL) WITHOUT ROWID"
            )

    def add(self, texts: Iterable[str]) -> Iterator[int]:
        """Embed the texts that are not kept yet, on every core; yields the number of texts seen, chunk by chunk."""
        with closing(self._connect()) as db, ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = iter(texts)
            while chunk := list(islice(waiting, _CHUNK)):
                missing = {key: text for text in chunk if not self._has(db, key := text_key(text))}
                if missing:
                    found = list(pool.map(self._encoder.embed, missing.values()))
                    codes, scale = quantised(np.stack([embedding.vector for embedding in found]))
                    rows = zip(missing, map(bytes, codes), map(float, scale), strict=True)
                    with db:
                        db.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?, ?)", rows)
                yield len(chunk)

    def read(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """The embeddings of texts that were added, by their keys: float32 (n, d)."""
        codes = np.empty((len(keys), self._encoder.identity.dimension), np.int8)
        scale = np.empty(len(keys), np.float32)
        with closing(self._connect()) as db:
            for i, key in enumerate(keys):
                stored, scale[i] = db.execute("SELECT codes, scale FROM embedding WHERE key = ?", (key,)).fetchone()
                codes[i] = np.frombuffer(stored, np.int8)
        return dequantised(codes, scale)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    @staticmethod
    def _has(db: sqlite3.Connection, key: bytes) -> bool:
        return db.execute("SELECT 1 FROM embedding WHERE key = ?", (key,)).fetchone() is not None
