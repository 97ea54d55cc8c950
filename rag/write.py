"""Change a knowledge base: passages are cut and embedded first, then a change is committed whole or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.chunking import DEFAULT_WORDS, embedding_text, passages
from rag.metadata import asks
from rag.rows import Prepared, check_document, forget_files, places, replace_documents, stored_places
from rag.schema import DatabaseFile, check_encoder, create, explained, near_ids, open_writer, read_manifest
from rag.types import Document, Encoder, KnowledgeError, Passage

WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit did, by document ids.

    Attributes:
        generation: of the knowledge base, after it.
        added: that were not there.
        changed: of which there is a new version, or other passages.
        removed: that are gone.
        unchanged: that were there in this very version.
    """

    generation: int
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """The file of a synchronised folder that documents come from.

    Attributes:
        path: below the folder.
        hash: of its content, once all of it is stored.
    """

    path: str
    hash: str | None = None


class Writer:
    """The writing side of a knowledge base; use it as a context, in one thread.

    Args:
        folder: a knowledge base, or a path where nothing is, and one is made.
        encoder: the one that it was made with.
        words: in a passage, at most, if it is made now.
        wait_s: seconds to wait while another process writes.
        now: seconds since 1970.

    Raises:
        KnowledgeError: the folder holds something else, or the vectors are another encoder's.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        words: int = DEFAULT_WORDS,
        wait_s: float = WAIT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        create(folder, encoder, words, wait_s)
        self.folder = folder
        self._encoder = encoder
        self._wait_s = wait_s
        self._now = now
        self._file = DatabaseFile.find(folder)
        self._connection = open_writer(folder, wait_s)
        try:
            with explained(folder, wait_s):
                self.manifest = read_manifest(self._connection, folder)
            check_encoder(self.manifest, encoder, folder)
        except KnowledgeError:
            self._connection.close()
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def change(self, add: Sequence[Document] = (), remove: Sequence[str] = ()) -> Change:
        """Add or replace documents, and remove others, in one commit; returns once it has reached the disk.

        Raises:
            KnowledgeError: a document to remove is not there, one to add is not sound, an id is named twice, or another
                process does not stop writing. Nothing has changed then.
        """
        names = Counter([*(document.id for document in add), *remove])
        if (most := names.most_common(1)) and most[0][1] > 1:
            raise KnowledgeError(f"one change names document {most[0][0]!r} twice; name it once")
        while True:
            done = self.commit(self.prepare(add), remove, strict=True)
            if done is not None:
                return done

    def prepare(self, documents: Sequence[Document], *, recut: Collection[str] = ()) -> list[Prepared]:
        """Cut and embed the documents that are not stored in this version; all in one batch.

        Args:
            documents: as they were read.
            recut: ids of those that are cut again though their version is stored: it may have been cut otherwise.

        Raises:
            KnowledgeError: a document's version is not its content's, or the encoder gave no proper vectors.
        """
        for document in documents:
            check_document(document)
        current = self.current_versions(document.id for document in documents)
        words = self.manifest.words
        new: list[Document] = []
        cut: list[tuple[Document, Passage]] = []
        for document in documents:
            is_stored = current.get(document.id) == document.version
            if is_stored and document.id not in recut:
                continue
            parts = passages(document, words)
            if not is_stored or not self._is_cut(document, parts):
                new.append(document)
                cut += [(document, passage) for passage in parts]
        texts = [embedding_text(document, passage) for document, passage in cut]
        matrix = self._sound(self._encoder.encode(texts), len(cut), "passages")
        asked = self._asked(new)
        made: dict[str, list[tuple[Passage, bytes]]] = {document.id: [] for document in new}
        for (document, passage), vector in zip(cut, matrix, strict=True):
            made[document.id].append((passage, vector.tobytes()))
        return [
            Prepared(document, tuple(made[document.id]) if document.id in made else None, asked.get(document.id, b""))
            for document in documents
        ]

    def commit(
        self,
        prepared: Sequence[Prepared],
        remove: Sequence[str] = (),
        *,
        origin: Origin | None = None,
        strict: bool = False,
    ) -> Change | None:
        """Store prepared documents and remove others; None if another process changed one of them: prepare it again.

        Args:
            prepared: to add, or to put in the place of their older versions.
            remove: ids of documents.
            origin: the file that all of this comes from; without one, `sync` will look at the documents' files again.
            strict: refuse to remove a document that is not there.

        Raises:
            KnowledgeError: see `change`.
        """
        with self._transaction() as connection:
            names = [item.document.id for item in prepared]
            current = self.current_versions([*names, *remove])
            if any(
                item.passages is None and current.get(item.document.id) != item.document.version for item in prepared
            ):
                return None
            if strict and (missing := [name for name in remove if name not in current]):
                raise KnowledgeError(
                    f"knowledge base {self.folder} has no document {missing[0]!r}; nothing is changed; "
                    f"{near_ids(connection, missing[0])}"
                )
            new = [
                item
                for item in prepared
                if current.get(item.document.id) != item.document.version
                or (item.passages is not None and not self._is_cut(item.document, [part for part, _ in item.passages]))
            ]
            stored = dict.fromkeys(item.document.id for item in new)
            removed = [name for name in remove if name in current]
            change = Change(
                generation=read_manifest(connection, self.folder).generation + bool(new or removed),
                added=tuple(name for name in stored if name not in current),
                changed=tuple(name for name in stored if name in current),
                removed=tuple(removed),
                unchanged=tuple(name for name in names if name not in stored),
            )
            if origin is None:
                forget_files(connection, [*names, *removed])
            if new or removed:
                gone = [(name, current[name]) for name in (*change.changed, *removed)]
                replace_documents(connection, gone, new, change.generation, self._now())
            path = origin.path if origin else None
            connection.executemany(
                "UPDATE documents SET file = ?1 WHERE id = ?2 AND died IS NULL AND file IS NOT ?1",
                [(path, name) for name in names],
            )
            if origin and origin.hash is not None:
                connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, NULL)", (origin.path, origin.hash))
            elif origin:  # what it held before is not all there any more
                connection.execute("DELETE FROM files WHERE path = ?", (origin.path,))
        return change

    def current_versions(self, ids: Iterable[str]) -> dict[str, str]:
        """The current version of each document that there is of these ids."""
        query = "SELECT id, version FROM documents WHERE id = ? AND died IS NULL"
        with explained(self.folder, self._wait_s):
            return dict(row for name in ids for row in self._connection.execute(query, (name,)))

    def files(self) -> Mapping[str, tuple[str, str | None]]:
        """The files of the synchronised folder: path to hash and, for one that is quarantined, the reason."""
        with explained(self.folder, self._wait_s):
            found = self._connection.execute("SELECT path, hash, reason FROM files").fetchall()
        return {path: (digest, reason) for path, digest, reason in found}

    def owners(self, ids: Iterable[str]) -> dict[str, str]:
        """The file that each of these documents comes from; nothing for one that comes from none."""
        query = "SELECT id, file FROM documents WHERE id = ? AND died IS NULL AND file IS NOT NULL"
        with explained(self.folder, self._wait_s):
            return dict(row for name in ids for row in self._connection.execute(query, (name,)))

    def documents_of(self, path: str) -> list[str]:
        """The ids of the documents that come from a file."""
        query = "SELECT id FROM documents WHERE file = ? AND died IS NULL ORDER BY id"
        with explained(self.folder, self._wait_s):
            return [name for (name,) in self._connection.execute(query, (path,))]

    def rows_by_hand(self, name: str) -> set[str]:
        """The ids of the documents of no file whose ids begin with a name and ``/``, as rows of a list do."""
        query = "SELECT id FROM documents WHERE died IS NULL AND file IS NULL AND substr(id, 1, ?) = ?"
        with explained(self.folder, self._wait_s):
            return {found for (found,) in self._connection.execute(query, (len(name) + 1, f"{name}/"))}

    def origins(self) -> list[str]:
        """The files that documents come from or that are quarantined."""
        query = "SELECT path FROM files UNION SELECT file FROM documents WHERE died IS NULL AND file IS NOT NULL"
        with explained(self.folder, self._wait_s):
            return sorted(path for (path,) in self._connection.execute(query))

    def quarantine(self, path: str, digest: str, reason: str) -> None:
        """Note that a file is left out, and its hash, so that it is not read again for the same content."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (path, digest, reason))

    def forget_file(self, path: str) -> None:
        """Forget that a file was read."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM files WHERE path = ?", (path,))

    def prune(self, before: float) -> int:
        """Delete the old versions that ended before a time, in seconds since 1970; how many.

        A citation of one of them does not check any more.
        """
        with self._transaction() as connection:
            which = "died IS NOT NULL AND removed < ?"
            (last,) = connection.execute(f"SELECT max(died) FROM documents WHERE {which}", (before,)).fetchone()
            gone = connection.execute(f"DELETE FROM documents WHERE {which}", (before,)).rowcount
            if gone:
                connection.execute("UPDATE manifest SET pruned = max(pruned, ?)", (last,))
        return gone

    def _is_cut(self, document: Document, cut: Iterable[Passage]) -> bool:
        """Whether the passages that are stored of a document are these."""
        with explained(self.folder, self._wait_s):
            return stored_places(self._connection, document.id) == places(document, cut)

    def _asked(self, documents: Sequence[Document]) -> dict[str, bytes]:
        """The vectors of the documents' `asks`, by id; nothing for a document without any."""
        texts = {document.id: found for document in documents if (found := asks(document.metadata))}
        if not texts:
            return {}
        every = [text for found in texts.values() for text in found]
        matrix = self._sound(self._encoder.encode_asks(every), len(every), "asks")
        ends = np.cumsum([len(found) for found in texts.values()])[:-1]
        return {name: part.tobytes() for name, part in zip(texts, np.split(matrix, ends), strict=True)}

    def _sound(self, vectors: NDArray[np.float32], count: int, of: str) -> NDArray[np.float32]:
        """Vectors as they are stored.

        Raises:
            KnowledgeError: the encoder gave no proper ones.
        """
        matrix: NDArray[np.float32] = np.ascontiguousarray(vectors, dtype="<f4")
        if matrix.shape != (count, self.manifest.dimension) or not np.isfinite(matrix).all():
            raise KnowledgeError(
                f"the encoder gave vectors of shape {matrix.shape} or without finite values for {count} {of} of "
                f"{self.manifest.dimension} dimensions; nothing is stored"
            )
        return matrix

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with explained(self.folder, self._wait_s):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if DatabaseFile.find(self.folder).place != self._file.place:
                    raise KnowledgeError(f"knowledge base {self.folder} was replaced by another; begin again")
                check_encoder(read_manifest(self._connection, self.folder), self._encoder, self.folder)
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.rollback()
