"""Embeddings that are made once: a cache on disk before a sentence encoder, for measurements that are run again."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.types import Encoder

_AT_ONCE = 128  # texts that an interrupted run loses at most


class CachedEncoder:
    """An `rag.types.Encoder` that keeps each vector it made in a file; for one thread.

    Args:
        encoder: makes the vectors that are not known yet.
        path: an SQLite file, made if it is not there; several encoders may share one.
    """

    def __init__(self, encoder: Encoder, path: Path) -> None:
        self._encoder = encoder
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT, WITHOUT ROWID"
        )

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._encoder.dimension

    @property
    def fingerprint(self) -> str:
        """Of the encoder behind the cache."""
        return self._encoder.fingerprint

    @property
    def floor(self) -> float:
        """Of the encoder behind the cache."""
        return self._encoder.floor

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, shape ``(texts, dimension)``; only texts that were never seen cost anything."""
        return self._vectors("", lambda some: self._encoder.encode(some, progress=progress), texts)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for what is asked."""
        return self._vectors("query", self._encoder.encode_queries, texts)

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for questions that are kept."""
        return self._vectors("asks", self._encoder.encode_asks, texts)

    def _vectors(
        self, kind: str, make: Callable[[Sequence[str]], NDArray[np.float32]], texts: Sequence[str]
    ) -> NDArray[np.float32]:
        keys = [self._key(kind, text) for text in texts]
        found = {key: vector for key in dict.fromkeys(keys) if (vector := self._find(key)) is not None}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(missing, key=lambda key: len(missing[key]))  # texts of one length need no padding
        for at in range(0, len(order), _AT_ONCE):
            some = order[at : at + _AT_ONCE]
            made = np.ascontiguousarray(make([missing[key] for key in some]), "<f4")
            rows = [(key, vector.tobytes()) for key, vector in zip(some, made, strict=True)]
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            found |= dict(rows)
        vectors = np.frombuffer(b"".join(found[key] for key in keys), dtype="<f4")
        return vectors.reshape(len(texts), self.dimension).astype(np.float32)

    def has(self, text: str, *, asks: bool = False) -> bool:
        """Whether the vector of a text, or of one that asks, is there already."""
        return self._find(self._key("query" if asks else "", text)) is not None

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    def _key(self, kind: str, text: str) -> bytes:
        return hashlib.sha256("\0".join([self.fingerprint, kind, text]).encode()).digest()

    def _find(self, key: bytes) -> bytes | None:
        row = self._database.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
        return row[0] if row and len(row[0]) == 4 * self.dimension else None
