"""Search by vectors: a snapshot that is never changed, and the next one made of it when documents came or went."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from rag.asks import Asks, Rows, read_asks
from rag.cache import DEFAULT_SETTINGS, Cached, IndexSettings, build_cached, load_cached, read_note, stamp
from rag.schema import Manifest, corpus_hash, explained, open_reader, read_manifest
from rag.types import KnowledgeError

_FAISS: Any = faiss  # whose type stubs lack the parameters of searches
_YOUNG = 1000  # passages that may be searched beside the main ones, or a tenth of those if that is more
_STALE = 5  # of so many cached passages, one may be out of date
_NONE: Rows = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """Passages with an index of their vectors.

    Attributes:
        index: flat or HNSW; nothing changes it any more.
        rows: of the passages, in the index's order, ascending.
        documents: the row of each one's document; -1 if it is gone.
    """

    index: faiss.Index
    rows: Rows
    documents: Rows

    @classmethod
    def flat(cls, dimension: int, rows: Rows, documents: Rows, vectors: NDArray[np.float32]) -> Segment:
        """A segment that is searched exactly; `vectors` has the shape ``(rows, dimension)``."""
        index = faiss.IndexFlatIP(dimension)
        if len(rows):
            index.add(vectors)
        return cls(index, rows, documents)

    def search(self, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None) -> list[tuple[int, float]]:
        """The `k` nearest rows of those in the mask with their similarity, in no certain order."""
        index, selector = self.index, None
        most = len(self.rows) if mask is None else int(mask.sum())
        if not most:
            return []
        if mask is not None:
            selector = _FAISS.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if isinstance(index, faiss.IndexHNSWFlat):
            if most * 2 < len(self.rows):  # a graph of which most is hidden leads nowhere
                index = _FAISS.downcast_index(index.storage)
                parameters = _FAISS.SearchParameters(sel=selector)
            else:
                breadth = max(index.hnsw.efSearch, 2 * k)
                parameters = _FAISS.SearchParametersHNSW(sel=selector, efSearch=breadth)
        else:
            parameters = _FAISS.SearchParameters(sel=selector)
        scores, found = index.search(vector[None, :], min(k, most), params=parameters)
        return [
            (int(self.rows[place]), float(score))
            for place, score in zip(found[0], np.clip(scores[0], -1, 1), strict=True)
            if place >= 0
        ]


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of all passages, and of all asks, as one generation has them.

    Attributes:
        identity: of the knowledge base.
        generation: of the knowledge base.
        corpus: hash over its current documents.
        newest: the highest row of a document.
        main: most of them.
        young: those that came later; searched exactly.
        dead: rows of the documents that have gone since, ascending.
        cached: what the main segment was read from; None if it is flat.
        asks: the vectors of the questions that the documents say they answer.
    """

    identity: str
    generation: int
    corpus: str
    newest: int
    main: Segment
    young: Segment
    dead: Rows
    cached: Cached | None
    asks: Asks

    @property
    def kind(self) -> Literal["flat", "hnsw"]:
        """How the main segment is searched."""
        return "hnsw" if self.cached else "flat"

    def are_of(self, manifest: Manifest) -> bool:
        """Whether they are the vectors of this state."""
        said = manifest.identity, manifest.generation, manifest.corpus
        return (self.identity, self.generation, self.corpus) == said

    def search(
        self, vector: NDArray[np.float32], k: int, *, allowed: Rows | None = None, hidden: Rows = _NONE
    ) -> list[tuple[int, float]]:
        """The `k` nearest passages' rows and their similarity, -1 to 1, best first, equals by row.

        Args:
            vector: a unit vector, shape ``(dimension,)``.
            k: how many; fewer come back if there are fewer.
            allowed: rows of the documents to look at; None for all.
            hidden: rows of documents to leave out.
        """
        gone = np.concatenate([self.dead, hidden])
        found = [
            pair
            for segment in (self.main, self.young)
            for pair in segment.search(vector, k, _mask(segment, allowed, gone))
        ]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]


def load_vectors(connection: sqlite3.Connection, manifest: Manifest, folder: Path, settings: IndexSettings) -> Vectors:
    """The vectors of the connection's transaction; from the cached index, if there is a sound one and enough of them.

    Raises:
        KnowledgeError: vectors are not those that the documents were stored with.
    """
    cached = load_cached(folder, manifest) if manifest.passages > settings.flat else None
    main = _cached_segment(connection, cached, manifest.dimension) if cached else None
    if cached is None or main is None:
        cached, main = None, _read(connection, 0, manifest.dimension)
    young = _read(connection, _last(main), manifest.dimension)
    dead = np.array([-1]) if (main.documents < 0).any() else _NONE
    (newest,) = connection.execute("SELECT coalesce(max(row), 0) FROM documents").fetchone()
    asks = read_asks(connection, 0, manifest.dimension)
    return Vectors(manifest.identity, manifest.generation, manifest.corpus, newest, main, young, dead, cached, asks)


def next_vectors(
    old: Vectors | None, connection: sqlite3.Connection, manifest: Manifest, folder: Path, settings: IndexSettings
) -> Vectors:
    """The vectors of the connection's transaction; made of older ones if its state came from theirs.

    Raises:
        KnowledgeError: vectors are not those that the documents were stored with.
    """
    if old is None or not _follows(old, connection, manifest):
        return load_vectors(connection, manifest, folder, settings)
    (newest,) = connection.execute("SELECT coalesce(max(row), 0) FROM documents").fetchone()
    young, last = old.young, max(_last(old.main), _last(old.young))
    new = _read(connection, last, manifest.dimension)
    died = connection.execute("SELECT row FROM documents WHERE died > ? ORDER BY row", (old.generation,)).fetchall()
    dead = np.union1d(old.dead, np.array(died, dtype=np.int64).ravel())
    waste = len(new.rows) + len(young.rows) + int(np.isin(old.main.documents, dead).sum())
    if waste > max(_YOUNG, len(old.main.rows) // 10) and (old.cached is None or stamp(folder) != old.cached.stamp):
        return load_vectors(connection, manifest, folder, settings)
    if len(new.rows):
        young = _joined(young, new, manifest.dimension)
    return replace(
        old,
        generation=manifest.generation,
        corpus=manifest.corpus,
        newest=newest,
        young=young,
        dead=dead,
        asks=old.asks.followed_by(read_asks(connection, old.newest, manifest.dimension), dead),
    )


def reindex(folder: Path, settings: IndexSettings = DEFAULT_SETTINGS, *, check: bool = True) -> None:
    """Make the cached index of a large knowledge base, if there is none or a fifth of it is out of date.

    Args:
        folder: the knowledge base.
        settings: of the index.
        check: whether one that is not out of date is compared with the passages, and made anew if it is damaged.

    Raises:
        KnowledgeError: the base is missing or damaged.
    """
    with contextlib.closing(open_reader(folder)) as connection, explained(folder):
        connection.execute("BEGIN")
        manifest = read_manifest(connection, folder)
        if manifest.passages <= settings.flat:
            return
        note = read_note(folder)
        if not _is_stale(connection, manifest, note):
            if "sha256" not in note and note.get("settings") == asdict(settings):
                return  # no graph of these passages is good enough
            if "sha256" in note and (not check or _is_sound(connection, manifest, folder)):
                return
        rows, _, vectors = _read_all(connection, 0, manifest.dimension)
    build_cached(folder, manifest, rows, vectors, settings)


def seal(places: Iterable[tuple[int, int, bytes]]) -> str:
    """SHA-256 over the passages of a document, in hex: start, stop and vector of each."""
    digest = hashlib.sha256()
    for start, stop, vector in places:
        digest.update(b"%d %d " % (start, stop) + vector)
    return digest.hexdigest()


def _is_stale(connection: sqlite3.Connection, manifest: Manifest, note: Mapping[str, Any]) -> bool:
    """Whether too many passages came or went since a note of the cached index was written, or it is another base's."""
    passages, last = note.get("passages"), note.get("last")
    if note.get("identity") != manifest.identity or not isinstance(passages, int) or not isinstance(last, int):
        return True
    (kept,) = connection.execute("SELECT count(*) FROM passages WHERE row <= ?", (last,)).fetchone()
    return bool((manifest.passages - kept + max(passages - kept, 0)) * _STALE > passages)


def _is_sound(connection: sqlite3.Connection, manifest: Manifest, folder: Path) -> bool:
    cached = load_cached(folder, manifest)
    return cached is not None and _cached_segment(connection, cached, manifest.dimension) is not None


def _follows(old: Vectors, connection: sqlite3.Connection, manifest: Manifest) -> bool:
    """Whether the documents that came and went since make this state of the old one.

    They do not if what went is not told any more, or if an older copy of the database was put in its place.
    """
    if manifest.identity != old.identity or not manifest.pruned <= old.generation <= manifest.generation:
        return False
    gone = "SELECT id, version FROM documents WHERE died > ? AND row <= ?"
    come = "SELECT id, version FROM documents WHERE died IS NULL AND row > ?"
    corpus = corpus_hash(connection.execute(gone, (old.generation, old.newest)), old.corpus, sign=-1)
    return corpus_hash(connection.execute(come, (old.newest,)), corpus) == manifest.corpus


def _cached_segment(connection: sqlite3.Connection, cached: Cached, dimension: int) -> Segment | None:
    """The passages of a cached index; None if one that the table has is not in it, or is another there."""
    owners = np.full(len(cached.rows), -1, dtype=np.int64)
    last = int(cached.rows[-1])
    for document, rows, vectors in _documents(connection, 0, dimension):
        if rows[0] > last:
            break
        places = np.searchsorted(cached.rows, rows)
        if rows[-1] > last or (cached.rows[places] != rows).any() or (cached.vectors[places] != vectors).any():
            return None
        owners[places] = document
    return Segment(cached.index, cached.rows, owners)


def _read(connection: sqlite3.Connection, after: int, dimension: int) -> Segment:
    """The passages behind a row, each document's against its seal."""
    return Segment.flat(dimension, *_read_all(connection, after, dimension))


def _read_all(connection: sqlite3.Connection, after: int, dimension: int) -> tuple[Rows, Rows, NDArray[np.float32]]:
    (count,) = connection.execute("SELECT count(*) FROM passages WHERE row > ?", (after,)).fetchone()
    rows, documents = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    vectors, end = np.empty((count, dimension), dtype=np.float32), 0
    for document, these, made in _documents(connection, after, dimension):
        start, end = end, end + len(these)
        rows[start:end], documents[start:end], vectors[start:end] = these, document, made
    return rows[:end], documents[:end], vectors[:end]


def _documents(
    connection: sqlite3.Connection, after: int, dimension: int
) -> Iterator[tuple[int, Rows, NDArray[np.float32]]]:
    """Each document with passages behind a row: its row, theirs, and their vectors, checked against its seal."""
    found = connection.execute(
        "SELECT p.document, p.row, p.start, p.stop, p.vector, d.seal, d.id FROM passages AS p "
        "JOIN documents AS d ON d.row = p.document WHERE p.row > ? ORDER BY p.row",
        (after,),
    )
    for document, group in itertools.groupby(found, key=lambda passage: passage[0]):
        passages = list(group)
        if seal([passage[2:5] for passage in passages]) != passages[0][5]:
            raise KnowledgeError(
                f"the vectors of document {passages[0][6]!r} are damaged; build the knowledge base again"
            )
        vectors = np.frombuffer(b"".join(passage[4] for passage in passages), dtype="<f4").reshape(-1, dimension)
        yield document, np.array([passage[1] for passage in passages], dtype=np.int64), vectors


def _joined(one: Segment, two: Segment, dimension: int) -> Segment:
    vectors = [segment.index.reconstruct_n(0, len(segment.rows)) for segment in (one, two) if len(segment.rows)]
    return Segment.flat(
        dimension,
        np.concatenate([one.rows, two.rows]),
        np.concatenate([one.documents, two.documents]),
        np.concatenate(vectors),
    )


def _mask(segment: Segment, allowed: Rows | None, gone: Rows) -> NDArray[np.bool_] | None:
    mask = None if allowed is None else np.isin(segment.documents, allowed)
    if len(gone):
        kept = ~np.isin(segment.documents, gone)
        mask = kept if mask is None else mask & kept
    return mask


def _last(segment: Segment) -> int:
    return int(segment.rows[-1]) if len(segment.rows) else 0
