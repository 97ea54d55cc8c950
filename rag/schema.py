"""The database of a knowledge base: its tables, its manifest, and how it is opened to read and to write."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from rag.lexical import TOKENIZER
from rag.types import Encoder, KnowledgeError, Unusable

FORMAT = 3
DATABASE = "knowledge.db"
SAMPLE = Path(__file__).parent / "assets" / "sample"
OLD_FILES = ("manifest.json", "documents.jsonl", "passages.jsonl", "index.faiss")  # format 1

_READ_WAIT_S = 5.0
_MOST_COMPARED = 2000  # ids among which one like a mistyped one is looked for
_TABLES = f"""
CREATE TABLE manifest (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    encoder TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    words INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    pruned INTEGER NOT NULL,
    corpus TEXT NOT NULL,
    documents INTEGER NOT NULL,
    passages INTEGER NOT NULL
) STRICT;
CREATE TABLE documents (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    version TEXT NOT NULL,
    born INTEGER NOT NULL,
    died INTEGER,
    removed REAL,
    expires REAL,
    file TEXT,
    seal TEXT NOT NULL,
    asks_seal TEXT,
    title TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX documents_current ON documents (id) WHERE died IS NULL;
CREATE INDEX documents_versions ON documents (id, version);
CREATE INDEX documents_died ON documents (died) WHERE died IS NOT NULL;
CREATE INDEX documents_expires ON documents (expires) WHERE died IS NULL AND expires IS NOT NULL;
CREATE INDEX documents_file ON documents (file) WHERE died IS NULL AND file IS NOT NULL;
CREATE TABLE passages (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL,
    number INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    vector BLOB NOT NULL
) STRICT;
CREATE INDEX passages_document ON passages (document);
CREATE TABLE asks (document INTEGER PRIMARY KEY, vectors BLOB NOT NULL) STRICT;
CREATE INDEX documents_asks ON documents (row) WHERE died IS NULL AND asks_seal IS NOT NULL;
CREATE TABLE entries (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    document INTEGER NOT NULL,
    PRIMARY KEY (key, value, document)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_document ON entries (document);
CREATE TABLE files (path TEXT PRIMARY KEY, hash TEXT NOT NULL, reason TEXT) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "{TOKENIZER}");
PRAGMA user_version = {FORMAT};
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a knowledge base says of itself.

    Attributes:
        format: of the database; a reader refuses one it does not know.
        identity: of this base, whatever it holds; another base has another.
        encoder: fingerprint of the encoder that made the vectors.
        dimension: of the vectors.
        words: in a passage, at most.
        generation: how many changes were committed.
        pruned: the last generation in which a document died that is no longer kept.
        corpus: hash over the ids and versions of the current documents; see `corpus_hash`.
        documents: how many are current.
        passages: how many they have.
    """

    format: int
    identity: str
    encoder: str
    dimension: int
    words: int
    generation: int
    pruned: int
    corpus: str
    documents: int
    passages: int


def corpus_hash(pairs: Iterable[tuple[str, str]], start: str = "0", *, sign: int = 1) -> str:
    """A hash over (document id, version) pairs, in hex: the sum of their SHA-256, so that one pair can come or go.

    Args:
        pairs: in any order.
        start: the hash that they are added to.
        sign: 1 to add them, -1 to take them away.
    """
    total = int(start, 16)
    for name, version in pairs:
        total += sign * int.from_bytes(hashlib.sha256(f"{version} {name}".encode()).digest(), "big")
    return f"{total % 2**256:064x}"


class Access(StrEnum):
    """How a reader opens the database file."""

    SHARED = "mode=rw"  # ours to write: readers and writers know of one another
    LOGGED = "mode=ro"  # not ours to write, but somebody's log lies beside it
    FROZEN = "mode=ro&immutable=1"  # not ours to write, all of it in the one file: no lock is taken


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """A database file as it was found; what is read from it may be kept as long as an equal one is found.

    Attributes:
        access: how it is read.
        place: device and inode.
        state: size, and nanoseconds of the last change, of a frozen file; nobody tells its readers of a change.
    """

    access: Access
    place: tuple[int, int]
    state: tuple[int, int]

    @classmethod
    def find(cls, folder: Path) -> DatabaseFile:
        """The file of a knowledge base.

        Raises:
            KnowledgeError: there is none.
        """
        path = _existing(folder)
        try:
            found = path.stat()
        except OSError as exc:
            raise KnowledgeError(f"knowledge base {folder} cannot be used ({exc.strerror}); check the folder") from exc
        access = _access(folder, path)
        state = (found.st_size, found.st_mtime_ns) if access is Access.FROZEN else (0, 0)
        return cls(access, (found.st_dev, found.st_ino), state)

    def check_unchanged(self, folder: Path) -> None:
        """Refuse what was read of a frozen file if it was written meanwhile.

        Raises:
            KnowledgeError: it was.
        """
        if self.access is not Access.FROZEN:
            return
        with contextlib.suppress(OSError):  # gone: what was read is of one state
            found = (folder / DATABASE).stat()
            state = found.st_size, found.st_mtime_ns
            if (found.st_dev, found.st_ino) == self.place and state != self.state:
                raise KnowledgeError(f"knowledge base {folder} was written by another while it was read; ask again")


def open_reader(folder: Path, file: DatabaseFile | None = None) -> sqlite3.Connection:
    """A connection that reads.

    A base in a folder that this process may not write, or the package's sample, is read without a trace.

    Args:
        folder: a knowledge base.
        file: as it was found; it is looked for without one.

    Raises:
        KnowledgeError: there is no knowledge base, or it cannot be opened.
    """
    file = file or DatabaseFile.find(folder)
    with explained(folder):
        return _connect(folder / DATABASE, file.access, _READ_WAIT_S, "query_only = 1")


def open_writer(folder: Path, wait_s: float) -> sqlite3.Connection:
    """A connection that writes; what it commits has reached the disk.

    Args:
        folder: a knowledge base.
        wait_s: seconds to wait for another writer.

    Raises:
        KnowledgeError: there is no knowledge base, or it cannot be written.
    """
    path = _existing(folder)
    with explained(folder, wait_s):
        connection = _connect(path, "mode=rw", wait_s, "synchronous = FULL")
        connection.execute("PRAGMA fullfsync = 1")  # macOS: through the disk's own cache too
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            connection.close()
            raise KnowledgeError(f"knowledge base {folder} cannot be written; make the folder writable")
        return connection


def create(folder: Path, encoder: Encoder, words: int, wait_s: float) -> None:
    """Make an empty knowledge base where there is none; one that is there stays.

    Raises:
        KnowledgeError: the folder holds something else, or cannot be written.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if DATABASE not in names and names:
        raise KnowledgeError(
            f"{folder} exists and is not a knowledge base of this format; build one there, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DATABASE).touch()
    except OSError as exc:
        raise KnowledgeError(f"knowledge base {folder} cannot be made ({exc.strerror}); name another folder") from exc
    connection = open_writer(folder, wait_s)
    with contextlib.closing(connection), explained(folder, wait_s):
        if _tables(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        if not _tables(connection):  # else another process was faster
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            first = (uuid.uuid4().hex, encoder.fingerprint, encoder.dimension, words, corpus_hash(()))
            connection.execute("INSERT INTO manifest VALUES (1, ?, ?, ?, ?, 0, 0, ?, 0, 0)", first)
        connection.execute("COMMIT")


def read_manifest(connection: sqlite3.Connection, folder: Path) -> Manifest:
    """The manifest, as the connection's transaction sees it.

    Raises:
        Unusable: the format is an older one, or the manifest is lost.
        KnowledgeError: the format is a newer one.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > FORMAT:
        raise KnowledgeError(
            f"knowledge base {folder} has format {found}, this version reads {FORMAT}; use a newer one"
        )
    if found < FORMAT:
        raise Unusable(f"knowledge base {folder} has format {found}, this version reads {FORMAT}; build it again")
    row = connection.execute(
        "SELECT identity, encoder, dimension, words, generation, pruned, corpus, documents, passages FROM manifest"
    ).fetchone()
    if row is None:
        raise Unusable(f"knowledge base {folder} has lost its manifest; build it again")
    return Manifest(FORMAT, *row)


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of the knowledge base in a folder; None where there is none that this version reads.

    Raises:
        KnowledgeError: that cannot be told for now.
    """
    if not (folder / DATABASE).is_file():
        return None
    try:
        return manifest_of(folder)
    except Unusable:
        return None


def manifest_of(folder: Path) -> Manifest:
    """The manifest of the knowledge base in a folder.

    Raises:
        KnowledgeError: there is none that this version reads, or that cannot be told for now.
    """
    with contextlib.closing(open_reader(folder)) as connection, explained(folder):
        return read_manifest(connection, folder)


def document_ids(connection: sqlite3.Connection) -> list[str]:
    """The ids of the current documents, in their order."""
    return [name for (name,) in connection.execute("SELECT id FROM documents WHERE died IS NULL ORDER BY id")]


def near_ids(connection: sqlite3.Connection, name: str) -> str:
    """The way out of an id that no document has: those that are like it."""
    ids = document_ids(connection)
    near = difflib.get_close_matches(name, ids) if len(ids) <= _MOST_COMPARED else []
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "`airlock kb show` lists those that it has"


def schema_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """The tables and indexes that are missing, and those that are not as `create` makes them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(_TABLES)
        expected = _definitions(fresh)
    found = _definitions(connection)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"the database has no {name}"
        elif found[name] != expected.get(name):
            yield f"the database has another {name} than the one it was made with"


def check_encoder(manifest: Manifest, encoder: Encoder, folder: Path) -> None:
    """Refuse vectors that are another encoder's.

    Raises:
        KnowledgeError: they are.
    """
    if (manifest.encoder, manifest.dimension) != (encoder.fingerprint, encoder.dimension):
        raise KnowledgeError(
            f"knowledge base {folder} was built with encoder {manifest.encoder[:12]}… ({manifest.dimension} "
            f"dimensions), not with {encoder.fingerprint[:12]}… ({encoder.dimension}); build it again with this one"
        )


@contextlib.contextmanager
def explained(folder: Path, wait_s: float = _READ_WAIT_S) -> Iterator[None]:
    """Turn what SQLite raises into an error that names the base and the way out."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none for text that is not UTF-8
        if code == sqlite3.SQLITE_ERROR:
            raise Unusable(f"knowledge base {folder} is damaged ({exc}); build it again") from exc
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise KnowledgeError(
                f"knowledge base {folder} is written by another process for more than {wait_s:g} seconds; "
                "wait until it has ended"
            ) from exc
        raise KnowledgeError(f"knowledge base {folder} cannot be used ({exc}); check the disk and the folder") from exc
    except sqlite3.DatabaseError as exc:
        raise Unusable(f"knowledge base {folder} is damaged ({exc}); build it again") from exc


def _existing(folder: Path) -> Path:
    path = folder / DATABASE
    if path.is_file():
        return path
    if (folder / OLD_FILES[0]).is_file():
        raise Unusable(f"knowledge base {folder} has format 1, this version reads {FORMAT}; build it again")
    raise Unusable(f"knowledge base {folder}: {DATABASE} is not there; build one there, or name another folder")


def _access(folder: Path, path: Path) -> Access:
    if folder != SAMPLE and os.access(folder, os.W_OK) and os.access(path, os.W_OK):
        return Access.SHARED
    with contextlib.suppress(OSError):
        if path.with_name(path.name + "-wal").stat().st_size:
            return Access.LOGGED
    return Access.FROZEN


def _tables(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return int(found)


def _definitions(connection: sqlite3.Connection) -> dict[str, str]:
    """Each table, index, trigger and view by its name; without SQLite's own and those that FTS5 keeps for itself."""
    query = "SELECT name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*' AND name NOT GLOB 'words_*'"
    return {name: sql for name, sql in connection.execute(query)}


def _connect(path: Path, how: str, wait_s: float, pragma: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA {pragma}")
        _tables(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
