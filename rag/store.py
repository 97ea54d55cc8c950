"""An open knowledge base: many threads read whole states of it, while this or another process changes it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rag.cache import DEFAULT_SETTINGS, IndexSettings
from rag.inspection import Statistics, faults, statistics
from rag.mode import DEFAULT_MODE, Mode
from rag.schema import SAMPLE as SAMPLE
from rag.schema import DatabaseFile, Manifest, check_encoder, corpus_hash, explained, open_reader, read_manifest
from rag.scope import Where
from rag.snapshots import Snapshots
from rag.types import Citation, Document, Encoder, Evidence, KnowledgeError, Reranker
from rag.view import View
from rag.write import Change, Writer

_GONE_S = 10.0  # so long, a base that is not there may be about to be replaced


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
        self._file: DatabaseFile | None = None  # that the connections and vectors are of; None before the first
        self._snapshots = Snapshots(folder, settings)
        self._gone: float | None = None  # when the file was first missed; None while it is there

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
            view.vectors()
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
        connection, file, snapshots = self._take()
        known = snapshots.latest  # before the transaction begins, so that it is not of an older state
        try:
            try:
                with explained(self.folder):
                    connection.execute("BEGIN")
                    manifest = read_manifest(connection, self.folder)
                    check_encoder(manifest, self.encoder, self.folder)
                    vectors = partial(snapshots.derive, known, connection, manifest)
                    yield View(self.folder, connection, manifest, vectors, self.encoder, self._reranker, self._now())
            except KnowledgeError:
                file.check_unchanged(self.folder)
                raise
            file.check_unchanged(self.folder)
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
            return statistics(view._connection, view.manifest, view.vectors(), self.folder, self._now())

    def _take(self) -> tuple[sqlite3.Connection, DatabaseFile, Snapshots]:
        """A connection that nobody uses; a new one if the database is another file than before."""
        with self._lock:
            try:
                found, self._gone = DatabaseFile.find(self.folder), None
            except KnowledgeError:
                self._gone = self._gone or time.monotonic()
                if self._file is None or not self._free or time.monotonic() - self._gone > _GONE_S:
                    raise
                found = self._file  # while nothing is there for a moment, what was
            if found != self._file:
                self._forget()
                self._file = found
            connection = self._free.pop() if self._free else open_reader(self.folder, found)
            return connection, found, self._snapshots

    def _give_back(self, connection: sqlite3.Connection, file: DatabaseFile) -> None:
        with self._lock:
            try:
                if connection.in_transaction:
                    connection.rollback()
            except sqlite3.Error:
                connection.close()
                return
            if file == self._file:
                self._free.append(connection)
            else:
                connection.close()

    def _forget(self) -> None:
        while self._free:
            self._free.pop().close()
        self._file, self._snapshots = None, Snapshots(self.folder, self._settings)

    def _check_manifest(self, view: View) -> None:
        current = "SELECT id, version FROM documents WHERE died IS NULL"
        pairs = view._connection.execute(current).fetchall()
        (passages,) = view._connection.execute("SELECT count(*) FROM passages").fetchone()
        manifest = view.manifest
        if (manifest.corpus, manifest.documents, manifest.passages) != (corpus_hash(pairs), len(pairs), passages):
            raise KnowledgeError(
                f"knowledge base {self.folder} holds other documents than its manifest says; build it again"
            )
