"""Look a knowledge base over: what is wrong with it, and how much there is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.asks import asks_seal
from rag.cache import INDEX, load_cached, stamp
from rag.documents import version as version_of
from rag.index import Vectors, seal
from rag.metadata import asks, expiry, pairs
from rag.schema import Manifest, corpus_hash, schema_faults
from rag.types import Document


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much a knowledge base holds, and how it is searched.

    Attributes:
        documents: that are current.
        expired: of these, how many are not cited any more.
        passages: of the current documents.
        asks: questions that these say they answer.
        old_versions: that are kept for the citations that name them.
        quarantined: files of the synchronised folder that were left out when it was last looked at.
        generation: how many changes were committed.
        bytes: of all files.
        index: ``flat``, where all vectors are compared, or ``hnsw``.
        recall: measured recall@10 of the graph; None where all vectors are compared.
        encoder: fingerprint.
        dimension: of the vectors.
        corpus: hash over the current documents.
    """

    documents: int
    expired: int
    passages: int
    asks: int
    old_versions: int
    quarantined: int
    generation: int
    bytes: int
    index: str
    recall: float | None
    encoder: str
    dimension: int
    corpus: str


def statistics(
    connection: sqlite3.Connection, manifest: Manifest, vectors: Vectors, folder: Path, now: float
) -> Statistics:
    """The figures of the connection's transaction."""
    expired = connection.execute("SELECT count(*) FROM documents WHERE died IS NULL AND expires <= ?", (now,))
    old = connection.execute("SELECT count(*) FROM documents WHERE died IS NOT NULL")
    left_out = connection.execute("SELECT count(*) FROM files WHERE reason IS NOT NULL")
    return Statistics(
        documents=manifest.documents,
        expired=expired.fetchone()[0],
        passages=manifest.passages,
        asks=len(vectors.asks.documents),
        old_versions=old.fetchone()[0],
        quarantined=left_out.fetchone()[0],
        generation=manifest.generation,
        bytes=sum(map(_size, folder.iterdir())),
        index=vectors.kind,
        recall=round(vectors.cached.recall, 4) if vectors.cached else None,
        encoder=manifest.encoder,
        dimension=manifest.dimension,
        corpus=manifest.corpus,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # a log that its last user took away
        return 0


def faults(connection: sqlite3.Connection, manifest: Manifest, folder: Path) -> Iterator[str]:
    """What is wrong with what the connection's transaction sees, and with the cached index."""
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield f"the database is damaged: {said}"
    yield from schema_faults(connection)
    current: list[tuple[str, str]] = []
    query = "SELECT row, id, version, title, text, metadata, expires, seal, asks_seal, died FROM documents ORDER BY row"
    for row, name, version, title, text, metadata, expires, sealed, asks_sealed, died in connection.execute(query):
        try:
            document = Document(name, version, title, text, json.loads(metadata))
        except ValueError:
            yield f"document {name} has metadata that cannot be read"
            continue
        if version_of(title, document.metadata, text) != version or expiry(document.metadata) != expires:
            yield f"document {name} is not the version it says"
        if died is None:
            current.append((name, version))
            yield from _passage_faults(connection, row, document, sealed)
            yield from _ask_faults(connection, row, document, asks_sealed, manifest.dimension)
    if corpus_hash(current) != manifest.corpus:
        yield "the documents are not the corpus that the manifest names"
    yield from _count_faults(connection, manifest, len(current))
    if stamp(folder) and load_cached(folder, manifest) is None:
        yield f"{INDEX} is damaged or another base's; it is not used, and the next change makes it anew"


def _passage_faults(connection: sqlite3.Connection, row: int, document: Document, sealed: str) -> Iterator[str]:
    query = "SELECT number, start, stop, vector FROM passages WHERE document = ? ORDER BY row"
    numbered = connection.execute(query, (row,)).fetchall()
    found = [passage[1:] for passage in numbered]
    if [number for number, *_ in numbered] != list(range(len(numbered))):
        yield f"document {document.id} has passages that are not numbered in their order"
    if seal(found) != sealed:
        yield f"document {document.id} has passages or vectors that are not those it was stored with"
    if any(not 0 <= start < stop <= len(document.text) for start, stop, _ in found):
        yield f"document {document.id} has a passage that does not stand in its text"
    kept = connection.execute("SELECT key, value FROM entries WHERE document = ? ORDER BY key, value", (row,))
    if [tuple(pair) for pair in kept] != pairs(document.metadata):
        yield f"document {document.id} is filtered by other metadata than it has"


def _ask_faults(
    connection: sqlite3.Connection, row: int, document: Document, sealed: str | None, dimension: int
) -> Iterator[str]:
    found = connection.execute("SELECT vectors FROM asks WHERE document = ?", (row,)).fetchone()
    vectors = found[0] if found else b""
    if (asks_seal(vectors) if vectors else None) != sealed or len(vectors) != 4 * dimension * len(
        asks(document.metadata)
    ):
        yield f"document {document.id} has asks that are not those it was stored with"


def _count_faults(connection: sqlite3.Connection, manifest: Manifest, documents: int) -> Iterator[str]:
    rows = [row for (row,) in connection.execute("SELECT row FROM passages ORDER BY row")]
    words = [row for (row,) in connection.execute("SELECT rowid FROM words ORDER BY rowid")]
    for name, found, said in (("documents", documents, manifest.documents), ("passages", len(rows), manifest.passages)):
        if found != said:
            yield f"{found} {name}, the manifest says {said}"
    if connection.execute(
        "SELECT 1 FROM asks AS a JOIN documents AS d ON d.row = a.document WHERE died IS NOT NULL"
    ).fetchone():
        yield "there are asks of documents that are not current"
    if rows != words:
        yield "the index of words does not hold the passages there are"
