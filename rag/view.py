"""One whole state of a knowledge base: all that is read in a view is of one moment, whatever is written meanwhile."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.documents import version as version_of
from rag.fusion import DEPTH, fuse
from rag.index import Vectors
from rag.lexical import search_words
from rag.metadata import expiry
from rag.mode import DEFAULT_MODE, Mode
from rag.schema import Manifest, document_ids, near_ids
from rag.scope import Scope, Where
from rag.types import Citation, Document, Encoder, Evidence, KnowledgeError, Passage, Reranker, similarity

_ASKED = 5  # documents with the nearest asks, whose passages come in
_RERANKED = 20  # passages that a reranker reads, or k if that is more
_NAMED = 5  # versions of a document in an error
_DOCUMENT = "SELECT id, version, title, text, metadata FROM documents WHERE "


class View:
    """A knowledge base as one generation has it; `KnowledgeBase.view` gives one. Not for several threads at once.

    Args:
        folder: the knowledge base's.
        connection: in a transaction that stays open as long as the view is used.
        manifest: as the transaction sees it.
        vectors: gives those of the same generation.
        encoder: for queries.
        reranker: puts what was found in its last order, if there is one.
        now: its moment, in seconds since 1970; what expires later has not expired in it.
    """

    def __init__(
        self,
        folder: Path,
        connection: sqlite3.Connection,
        manifest: Manifest,
        vectors: Callable[[], Vectors],
        encoder: Encoder,
        reranker: Reranker | None,
        now: float,
    ) -> None:
        self._folder = folder
        self._connection = connection
        self.manifest = manifest
        self._derive = vectors
        self._vectors: Vectors | None = None  # until they are needed
        self._encoder = encoder
        self._reranker = reranker
        self._now = now
        self._documents: dict[tuple[str, str | None], Document] = {}

    @property
    def generation(self) -> int:
        """Of the knowledge base: how many changes were committed before."""
        return self.manifest.generation

    def vectors(self) -> Vectors:
        """Those of all passages.

        Raises:
            KnowledgeError: they are not those that the documents were stored with.
        """
        if self._vectors is None:
            self._vectors = self._derive()
        return self._vectors

    def search(
        self, query: str, k: int, *, document: str | None = None, where: Where | None = None, mode: Mode = DEFAULT_MODE
    ) -> list[Evidence]:
        """The `k` best passages for a query, best first; fewer if there are fewer.

        Args:
            query: in any words.
            k: how many.
            document: look at this document only.
            where: look at documents that have, for each metadata entry, one of its values.
            mode: by vectors, by words, or by both; documents are found by their asks too unless by words alone.

        Raises:
            KnowledgeError: `k` is below 1, the document is unknown, or the base is damaged.
        """
        if k < 1:
            raise KnowledgeError(f"search for k = {k} passages: need at least 1")
        if document is not None:
            self.document(document)
        scope = Scope.make(self._now, document=document, where=where)
        vector = np.asarray(self._encoder.encode_queries([query])[0], dtype=np.float32)
        least = max(k, _RERANKED) if self._reranker else k
        depth = least if mode is Mode.BM25 else max(least, DEPTH)
        nearest, beside, near = ([], [], {}) if mode is Mode.BM25 else self._nearest(vector, depth, scope)
        worded = [] if mode is Mode.DENSE else search_words(self._connection, query, depth, scope)
        scores = dict(nearest) | dict(beside)
        scores |= {row: self._similarity(row, vector) for row, _ in worded if row not in scores}
        asked = self._asked(scores, near) if near else {}
        if mode is Mode.BM25:
            order = [row for row, _ in worded]
        else:
            order = fuse(scores, dict(worded), asked, least=nearest[:DEPTH][-1][1] if nearest else 0.0)
        return self._reranked(query, [self._evidence(row, scores[row], asked.get(row)) for row in order[:least]])[:k]

    def document(self, document_id: str, version: str | None = None) -> Document:
        """The document of that id: the current one, or the version named, which may be an old one.

        Raises:
            KnowledgeError: there is none, or it is damaged.
        """
        found = self._find(document_id, version)
        if found is None and (kept := self.versions(document_id)):
            which = f" of version {version}" if version else " any more"
            way_out = f"`airlock kb show {document_id} --json` lists its versions"
            if self._find(document_id, None) is None:
                last = ", ".join(known[:12] for known in kept[-_NAMED:])
                way_out = f"kept of it are {last}: `airlock kb show {document_id} --version {kept[-1][:12]}`"
            raise KnowledgeError(f"knowledge base {self._folder} has no document {document_id!r}{which}; {way_out}")
        if found is None:
            raise KnowledgeError(
                f"knowledge base {self._folder} has no document {document_id!r}; "
                f"{near_ids(self._connection, document_id)}"
            )
        return found

    def document_ids(self) -> list[str]:
        """The ids of the current documents, in their order."""
        return document_ids(self._connection)

    def documents(self) -> Iterator[Document]:
        """The current documents, in the order of their ids.

        Raises:
            KnowledgeError: one is damaged.
        """
        for row in self._connection.execute(f"{_DOCUMENT} died IS NULL ORDER BY id"):
            yield _document(row, self._folder)

    def count(self, where: Where | None = None) -> int:
        """How many documents a search can find: with a passage, not expired, with one of the values of each entry."""
        return Scope.make(self._now, where=where).count(self._connection)

    def entries(self) -> list[str]:
        """The metadata entries that documents have, in the order of their names: what a search can ask for."""
        return [key for (key,) in self._connection.execute("SELECT DISTINCT key FROM entries ORDER BY key")]

    def versions(self, document_id: str) -> list[str]:
        """Every version that is kept of a document, the oldest first."""
        rows = self._connection.execute("SELECT version FROM documents WHERE id = ? ORDER BY row", (document_id,))
        return list(dict.fromkeys(version for (version,) in rows))

    def check(self, citation: Citation, *, current: bool = False) -> bool:
        """Whether the quote stands in this version of the document, at its offsets, and is not empty.

        Args:
            citation: of any version that is kept and has not expired.
            current: whether it must be of the current version.
        """
        document = self._find(citation.document, None if current else citation.version)
        return (
            document is not None
            and document.version == citation.version
            and not self._expired(document)
            and 0 <= citation.start < citation.end <= len(document.text)
            and document.text[citation.start : citation.end] == citation.quote
        )

    def _find(self, document_id: str, version: str | None) -> Document | None:
        key = document_id, version
        if key not in self._documents:
            which, values = ("died IS NULL", ()) if version is None else ("version = ? LIMIT 1", (version,))
            row = self._connection.execute(f"{_DOCUMENT} id = ? AND {which}", (document_id, *values)).fetchone()
            if row is None:
                return None
            self._documents[key] = _document(row, self._folder)
        return self._documents[key]

    def _expired(self, document: Document) -> bool:
        ends = expiry(document.metadata)
        return ends is not None and ends <= self._now

    def _nearest(
        self, vector: NDArray[np.float32], k: int, scope: Scope
    ) -> tuple[list[tuple[int, float]], list[tuple[int, float]], dict[int, float]]:
        """The nearest passages, those of documents with the nearest asks, and how near an ask of each document is."""
        vectors, hidden = self.vectors(), scope.expired(self._connection)
        allowed = scope.allowed(self._connection)
        nearest = vectors.search(vector, k, allowed=allowed, hidden=hidden)
        near = vectors.asks.nearest(vector, allowed=allowed, hidden=hidden)
        if not near:
            return nearest, [], near
        first = np.array(heapq.nlargest(_ASKED, near, key=near.__getitem__), dtype=np.int64)
        return nearest, vectors.search(vector, k, allowed=first, hidden=hidden), near

    def _asked(self, rows: Iterable[int], near: Mapping[int, float]) -> dict[int, float]:
        """How near an ask of each passage's document is, for those whose document has any."""
        query = "SELECT row, document FROM passages WHERE row IN (SELECT value FROM json_each(?))"  # any number of rows
        owners = self._connection.execute(query, (json.dumps([*rows]),))
        return {row: near[owner] for row, owner in owners if owner in near}

    def _similarity(self, row: int, vector: NDArray[np.float32]) -> float:
        (stored,) = self._connection.execute("SELECT vector FROM passages WHERE row = ?", (row,)).fetchone()
        return float(np.clip(np.frombuffer(stored, dtype="<f4") @ vector, -1, 1))

    def _evidence(self, row: int, cosine: float, asked: float | None) -> Evidence:
        name, number, start, stop = self._connection.execute(
            "SELECT d.id, p.number, p.start, p.stop FROM passages AS p "
            "JOIN documents AS d ON d.row = p.document WHERE p.row = ?",
            (row,),
        ).fetchone()
        document = self.document(name)
        passage = Passage(f"{name}#{number}", name, document.version, start, stop, document.text[start:stop])
        floor = self._encoder.floor
        return Evidence(passage, similarity(cosine, floor), None if asked is None else similarity(asked, floor))

    def _reranked(self, query: str, found: list[Evidence]) -> list[Evidence]:
        if self._reranker is None or not found:
            return found
        scores = self._reranker.score(query, [item.passage.text for item in found])
        order = sorted(range(len(found)), key=lambda place: -float(scores[place]))  # stable: equals as they were
        return [found[place] for place in order]


def _document(row: tuple[str, str, str, str, str], folder: Path) -> Document:
    name, version, title, text, metadata = row
    try:
        document = Document(name, version, title, text, json.loads(metadata))
    except ValueError:
        document = None
    if document is None or version_of(title, document.metadata, text) != version:
        raise KnowledgeError(f"knowledge base {folder}: document {name!r} is damaged; build it again")
    return document
