"""The latest vectors of a database file: each view derives those of its own state from them, when it needs some."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from rag.cache import IndexSettings
from rag.index import Vectors, next_vectors
from rag.schema import Manifest


class Snapshots:
    """The latest vectors, for many threads.

    Args:
        folder: the knowledge base's.
        settings: of the index.
    """

    def __init__(self, folder: Path, settings: IndexSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._lock = threading.Lock()
        self.latest: Vectors | None = None

    def derive(self, known: Vectors | None, connection: sqlite3.Connection, manifest: Manifest) -> Vectors:
        """The vectors of the connection's transaction.

        Args:
            known: the latest ones when the transaction had not begun, which is why they are not of a later state.
            connection: in a transaction.
            manifest: as it sees it.

        Raises:
            KnowledgeError: vectors are not those that the documents were stored with.
        """
        if (latest := self.latest) is not None and latest.are_of(manifest):
            return latest
        with self._lock:
            latest = self.latest
            if latest is not None and latest.are_of(manifest):
                return latest
            overtaken = latest is not known and latest is not None and latest.generation > manifest.generation
            made = next_vectors(known if overtaken else latest, connection, manifest, self._folder, self._settings)
            if not overtaken:
                self.latest = made
            return made
