"""Logits of texts, kept on disk: a model reads a text once, however often it is calibrated and measured on it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.model import TierClassifier
from classifier.readings import READING
from classifier.settings import ClassifierSettings
from training.datasets import TrainingError
from training.tiers.model_folder import load_classifier, network_version

_AT_ONCE = 64  # texts that an interrupted run loses at most
Logits = NDArray[np.float64]


class Scores:
    """The logits of a model folder; for one thread. The model is loaded when a text comes that was never read.

    Args:
        folder: of the model.
        path: an SQLite file, made if it is not there; several models may share one. It holds hashes, no texts.

    Raises:
        TrainingError: the model is not whole, or the file cannot be used.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        described = ClassifierSettings.load(folder)
        self._folder = folder
        read = f"{described.window}/{described.overlap}/{READING}"
        self._version = "\0".join([network_version(folder), described.encoder_sha256, read])
        self._path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS logits "
                    "(key BLOB PRIMARY KEY, windows INTEGER NOT NULL, logits BLOB NOT NULL) STRICT, WITHOUT ROWID"
                )
            except sqlite3.Error:
                self.close()
                raise

    def logits(self, texts: Sequence[str]) -> list[Logits]:
        """Category logits of each text's windows, in order: shape ``(windows, categories)`` each.

        Raises:
            ClassifierError: the model is broken, or gave logits that are no numbers.
            TrainingError: the file cannot be read or written.
        """
        keys = [self._key(text) for text in texts]
        found = {key: logits for key in dict.fromkeys(keys) if (logits := self._find(key)) is not None}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(missing, key=lambda key: len(missing[key]))  # texts of one length need no padding
        for at in range(0, len(order), _AT_ONCE):
            some = order[at : at + _AT_ONCE]
            made = [np.ascontiguousarray(each, "<f4") for each in self._model.logits([missing[key] for key in some])]
            rows = [(key, len(each), each.tobytes()) for key, each in zip(some, made, strict=True)]
            with self._told():
                self._database.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?, ?)", rows)
            found |= {key: each.astype(np.float64) for key, each in zip(some, made, strict=True)}
        return [found[key] for key in keys]

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    @cached_property
    def _model(self) -> TierClassifier:
        return load_classifier(self._folder)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._version}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _find(self, key: bytes) -> Logits | None:
        with self._told():
            row = self._database.execute("SELECT windows, logits FROM logits WHERE key = ?", (key,)).fetchone()
        return np.frombuffer(row[1], "<f4").reshape(row[0], -1).astype(np.float64) if row else None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise TrainingError(f"--scores {self._path}: {exc}; name another file, or one that is not there") from exc
