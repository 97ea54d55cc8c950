"""The rows of a document in the database: checked, stored, ended and counted within a writer's transaction."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag.asks import asks_seal
from rag.chunking import embedding_text
from rag.documents import version as version_of
from rag.index import seal
from rag.lexical import spaced
from rag.metadata import asks, expiry, pairs
from rag.schema import corpus_hash
from rag.types import Document, KnowledgeError, Passage, Unreadable


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is ready to be stored.

    Attributes:
        document: as it was read.
        passages: with the vector of each as little-endian float32; None if the base has them.
        asks: the vectors of its `asks`, one after the other, likewise; empty without any.
    """

    document: Document
    passages: tuple[tuple[Passage, bytes], ...] | None
    asks: bytes = b""


def check_document(document: Document) -> None:
    """Refuse a document that could not be read or cited again.

    Raises:
        KnowledgeError: its id, text, metadata or version is not sound.
    """
    if not document.id or not document.id.isprintable():
        raise KnowledgeError(f"document id {document.id!r} is empty or cannot be printed; name it otherwise")
    try:
        said = [*asks(document.metadata), *itertools.chain(*pairs(document.metadata))]
        "".join([document.id, document.title, document.text, *said]).encode()
    except Unreadable as exc:
        raise KnowledgeError(f"document {document.id!r}: {exc}") from exc
    except UnicodeEncodeError as exc:
        raise KnowledgeError(f"document {document.id!r} holds half of a surrogate pair; correct its text") from exc
    if version_of(document.title, document.metadata, document.text) != document.version:
        raise KnowledgeError(
            f"document {document.id!r} is not of the version it says; take `rag.documents.version` of it"
        )
    expiry(document.metadata)


def replace_documents(
    connection: sqlite3.Connection,
    gone: Sequence[tuple[str, str]],
    new: Sequence[Prepared],
    generation: int,
    now: float,
) -> None:
    """End current documents, store others, and bring the manifest up to date.

    Args:
        connection: in the writer's transaction.
        gone: ids and versions of the documents that are ended.
        new: what is stored, with passages.
        generation: that the transaction makes.
        now: seconds since 1970.
    """
    passages = -sum(_end_document(connection, name, generation, now) for name, _ in gone)
    for item in new:
        _store_document(connection, item, generation)
        passages += len(item.passages or ())
    come = [(item.document.id, item.document.version) for item in new]
    (corpus,) = connection.execute("SELECT corpus FROM manifest").fetchone()
    corpus = corpus_hash(come, corpus_hash(gone, corpus, sign=-1))
    connection.execute(
        "UPDATE manifest SET generation = ?, corpus = ?, documents = documents + ?, passages = passages + ?",
        (generation, corpus, len(come) - len(gone), passages),
    )


def _store_document(connection: sqlite3.Connection, item: Prepared, generation: int) -> None:
    """Store a document with its passages, as of a generation."""
    document, made = item.document, item.passages or ()
    row = connection.execute(
        "INSERT INTO documents (id, version, born, expires, seal, asks_seal, title, metadata, text) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            document.id,
            document.version,
            generation,
            expiry(document.metadata),
            seal((passage.start, passage.end, vector) for passage, vector in made),
            asks_seal(item.asks) if item.asks else None,
            document.title,
            json.dumps(dict(document.metadata), ensure_ascii=False),
            document.text,
        ),
    ).lastrowid
    if item.asks:
        connection.execute("INSERT INTO asks VALUES (?, ?)", (row, item.asks))
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", [(*pair, row) for pair in pairs(document.metadata)])
    found_by = places(document, (passage for passage, _ in made))
    for number, ((_, vector), (start, stop, words)) in enumerate(zip(made, found_by, strict=True)):
        place = connection.execute(
            "INSERT INTO passages (document, number, start, stop, vector) VALUES (?, ?, ?, ?, ?)",
            (row, number, start, stop, vector),
        ).lastrowid
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (place, words))


def places(document: Document, cut: Iterable[Passage]) -> list[tuple[int, int, str]]:
    """Where passages start and stop, and the words that they are found by."""
    return [(passage.start, passage.end, spaced(embedding_text(document, passage))) for passage in cut]


def stored_places(connection: sqlite3.Connection, name: str) -> list[tuple[int, int, str]]:
    """The `places` of the passages that are stored of a current document."""
    query = (
        "SELECT p.start, p.stop, w.text FROM documents AS d JOIN passages AS p ON p.document = d.row "
        "JOIN words AS w ON w.rowid = p.row WHERE d.id = ? AND d.died IS NULL ORDER BY p.number"
    )
    return connection.execute(query, (name,)).fetchall()


def _end_document(connection: sqlite3.Connection, name: str, generation: int, now: float) -> int:
    """Keep the text for the citations that name it; its passages are deleted, so many, and the vectors of its asks."""
    query = "SELECT row FROM documents WHERE id = ? AND died IS NULL"
    (row,) = connection.execute(query, (name,)).fetchone()
    connection.execute("DELETE FROM words WHERE rowid IN (SELECT row FROM passages WHERE document = ?)", (row,))
    passages = connection.execute("DELETE FROM passages WHERE document = ?", (row,)).rowcount
    connection.execute("DELETE FROM asks WHERE document = ?", (row,))
    connection.execute("DELETE FROM entries WHERE document = ?", (row,))
    connection.execute("UPDATE documents SET died = ?, removed = ?, file = NULL WHERE row = ?", (generation, now, row))
    return passages


def forget_files(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Forget that the files of these documents were read, so that they are read again."""
    query = "DELETE FROM files WHERE path = (SELECT file FROM documents WHERE id = ? AND died IS NULL)"
    connection.executemany(query, [(name,) for name in names])
