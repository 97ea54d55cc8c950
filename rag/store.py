"""An open knowledge base: many threads read whole states of it, while this or another process changes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rag.cache import DEFAULT_SETTINGS, IndexSettings
from rag.index import Vectors, load_vectors, next_vectors
from rag.inspection import Statistics, faults, statistics
from rag.schema import DATABASE, Manifest, check_encoder, corpus_hash, explained, open_reader, read_manifest
from rag.schema import SAMPLE as SAMPLE
from rag.scope import Where
from rag.types import DEFAULT_MODE, Citation, Document, Encoder, Evidence, KnowledgeError, Mode, Reranker
from rag.view import View
from rag.write import Change, Writer


class KnowledgeBase:
    """A knowledge base that is searched and changed; open one with `open`.

    Args:
        folder: what `rag.build.build` or a `rag.write.Writer` made.
        encoder: the one that it was made with.
        reranker: puts what was found in its last order.
        settings: of the index.
        now: seconds since 1970; what expires is compared with it.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        reranker: Reranker | None = None,
        settings: IndexSettings = DEFAULT_SETTINGS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self._reranker = reranker
        self._settings = settings
        self._now = now
        self._lock = threading.Lock()
        self._free: list[sqlite3.Connection] = []
        self._file: tuple[int, int] | None = None  # the database that the connections and vectors are of
        self._vectors: Vectors | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        encoder: Encoder,
        *,
        reranker: Reranker | None = None,
        settings: IndexSettings = DEFAULT_SETTINGS,
        now: Callable[[], float] = time.time,
    ) -> KnowledgeBase:
        """Open a folder, once its manifest has been compared with what it holds.

        Raises:
            KnowledgeError: it is missing or damaged, the format is unknown, or the vectors are another encoder's.
        """
        knowledge = cls(folder, encoder, reranker=reranker, settings=settings, now=now)
        with knowledge.view() as view:
            knowledge._check_manifest(view)
        return knowledge

    def close(self) -> None:
        """Let go of the files; views that are open go on."""
        with self._lock:
            self._forget()

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """One whole state, the latest; what is committed later is not seen in it.

        Raises:
            KnowledgeError: the base is gone, damaged, or another encoder's by now.
        """
        connection, file = self._take()
        try:
            with explained(self.folder):
                manifest, vectors = self._begin(connection, file)
                yield View(self.folder, connection, manifest, vectors, self.encoder, self._reranker, self._now)
        finally:
            self._give_back(connection, file)

    @property
    def manifest(self) -> Manifest:
        """What the base says of itself now."""
        with self.view() as view:
            return view.manifest

    def search(
        self, query: str, k: int, *, document: str | None = None, where: Where | None = None, mode: Mode = DEFAULT_MODE
    ) -> list[Evidence]:
        """See `View.search`."""
        with self.view() as view:
            return view.search(query, k, document=document, where=where, mode=mode)

    def document(self, document_id: str, version: str | None = None) -> Document:
        """See `View.document`."""
        with self.view() as view:
            return view.document(document_id, version)

    def check(self, citation: Citation, *, current: bool = False) -> bool:
        """See `View.check`."""
        with self.view() as view:
            return view.check(citation, current=current)

    def change(self, add: Sequence[Document] = (), remove: Sequence[str] = ()) -> Change:
        """Add or replace documents, and remove others, all at once; see `Writer.change`."""
        with Writer(self.folder, self.encoder, now=self._now) as writer:
            return writer.change(add, remove)

    def verify(self) -> list[str]:
        """What is wrong with the base; empty if all is sound."""
        with self.view() as view:
            return list(faults(view._connection, view.manifest, self.folder))

    def statistics(self) -> Statistics:
        """How much there is, and how it is searched."""
        with self.view() as view:
            return statistics(view._connection, view.manifest, view._vectors, self.folder, self._now())

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
        """A connection that nobody uses; a new one if the database is another file than before."""
        with self._lock:
            found = self._on_disk()
            if found is not None and found != self._file:
                self._forget()
                self._file = found
            if self._free:
                return self._free.pop(), self._file
            return open_reader(self.folder), self._file

    def _give_back(self, connection: sqlite3.Connection, file: tuple[int, int] | None) -> None:
        with self._lock:
            if connection.in_transaction:
                connection.rollback()
            if file == self._file and self._file is not None:
                self._free.append(connection)
            else:
                connection.close()

    def _begin(self, connection: sqlite3.Connection, file: tuple[int, int] | None) -> tuple[Manifest, Vectors]:
        """A read transaction, and the vectors of the state that it sees."""
        while True:
            connection.execute("BEGIN")
            manifest = read_manifest(connection, self.folder)
            check_encoder(manifest, self.encoder, self.folder)
            with self._lock:
                vectors = self._vectors
                if vectors is None or (vectors.identity, vectors.generation) != (
                    manifest.identity,
                    manifest.generation,
                ):
                    if vectors and vectors.identity == manifest.identity and vectors.generation > manifest.generation:
                        connection.rollback()  # others have seen a later state: go on from that
                        continue
                    vectors = self._derive(vectors, connection, manifest)
                    if file == self._file:
                        self._vectors = vectors
                return manifest, vectors

    def _derive(self, old: Vectors | None, connection: sqlite3.Connection, manifest: Manifest) -> Vectors:
        if old is None:
            return load_vectors(connection, manifest, self.folder, self._settings)
        return next_vectors(old, connection, manifest, self.folder, self._settings)

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.folder / DATABASE)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _forget(self) -> None:
        while self._free:
            self._free.pop().close()
        self._file = self._vectors = None

    def _check_manifest(self, view: View) -> None:
        current = "SELECT id, version FROM documents WHERE died IS NULL"
        pairs = view._connection.execute(current).fetchall()
        (passages,) = view._connection.execute("SELECT count(*) FROM passages").fetchone()
        manifest = view.manifest
        if (manifest.corpus, manifest.documents, manifest.passages) != (corpus_hash(pairs), len(pairs), passages):
            raise KnowledgeError(
                f"knowledge base {self.folder} holds other documents than its manifest says; build it again"
            )
