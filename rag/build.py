"""Build a knowledge base from a folder of documents: beside the old one, and then in its place in one step."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rag.cache import INDEX, INDEX_NOTE, is_leftover
from rag.chunking import DEFAULT_WORDS
from rag.index import reindex
from rag.schema import (
    DATABASE,
    OLD_FILES,
    Manifest,
    create,
    explained,
    manifest_of,
    open_reader,
    open_writer,
    read_manifest,
)
from rag.sync import Event, Happened, Progress, sync
from rag.types import Encoder, KnowledgeError, Limits, Quarantined, QuarantineError, Unusable
from rag.write import WAIT_S, Writer

_BY_HAND = "came from no folder; add it again, and take `airlock kb sync` the next time, which keeps it"
_OWN = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", INDEX, INDEX_NOTE, *OLD_FILES}


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` did.

    Attributes:
        manifest: of the base.
        quarantined: files that cannot be used.
        told: what else is to be known: documents stored with a warning, files that were passed over, and documents of
            `airlock kb add` that were there and are not any more.
    """

    manifest: Manifest
    quarantined: tuple[Quarantined, ...]
    told: tuple[Event, ...] = ()


def build(
    source: Path,
    out: Path,
    encoder: Encoder,
    *,
    words: int = DEFAULT_WORDS,
    limits: Limits | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Read the documents below `source` and put a knowledge base in the place of `out`.

    It is made in a hidden folder beside `out`, which a build that was interrupted leaves there and the next one goes on
    from. Until it is whole, `out` is what it was. A base that is there keeps its old versions for the citations that
    name them, and those who search it go on without a break; what cannot be used as a base any more is replaced.

    Args:
        source: folder of documents; see `read_documents`.
        out: a knowledge base to replace, or a path where nothing is.
        encoder: the one that questions will be encoded with.
        words: in a passage, at most.
        limits: of one file; the usual ones by default.
        strict: build nothing if any file must be left out.
        progress: is told how many files were looked at.

    Raises:
        QuarantineError: every file must be left out, or one in strict mode.
        KnowledgeError: the documents cannot be used, or `out` is something else than a knowledge base.
    """
    out = Path(os.path.abspath(out))
    _check_replaceable(out)
    staged = out.parent / f".{out.name}.building"
    _discard_other(staged, encoder, words)
    with Writer(staged, encoder, words=words) as writer:
        events = list(sync(writer, source, limits=limits, progress=progress))
        writer.prune(float("inf"))
    files = tuple(Quarantined(event.name, event.reason) for event in events if event.happened is Happened.QUARANTINED)
    told = [event for event in events if event.warning or event.happened is Happened.PASSED_OVER]
    if strict and files:
        shutil.rmtree(staged)
        raise QuarantineError(_message(files, source, "in strict mode none may be"), files)
    manifest = _finish(staged)
    if not manifest.passages:
        shutil.rmtree(staged)
        if not manifest.documents and files:
            raise QuarantineError(_message(files, source, "no other is there"), files)
        raise QuarantineError(f"no document below {source} has a sentence to quote; add paragraphs or lists", files)
    if out.is_dir() and not any(out.iterdir()):  # perhaps a volume, which cannot be swapped
        create(out, encoder, words, WAIT_S)
    if _usable(out):
        told += [Event(Happened.REMOVED, name, _BY_HAND) for name in _replace_documents(out, staged)]
        shutil.rmtree(staged)
    else:
        _swap(staged, out)
    reindex(out)
    return Built(manifest_of(out), files, tuple(told))


def _message(files: tuple[Quarantined, ...], source: Path, kept: str) -> str:
    return f"{len(files)} files below {source} are quarantined and {kept}; correct or remove them"


def _check_replaceable(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir() or {path.name for path in out.iterdir() if not is_leftover(path)} - _OWN:
        raise KnowledgeError(f"{out} exists and is not a knowledge base; name another folder, or remove it")


def _discard_other(staged: Path, encoder: Encoder, words: int) -> None:
    """Remove what an interrupted build left, unless this one can go on from it."""
    if not staged.exists():
        return
    try:
        manifest = manifest_of(staged)
        if (manifest.encoder, manifest.dimension, manifest.words) == (encoder.fingerprint, encoder.dimension, words):
            return
    except Unusable:
        pass
    shutil.rmtree(staged)


def _finish(folder: Path) -> Manifest:
    """Make one compact file of the database, which can also be read where nothing can be written.

    Raises:
        KnowledgeError: another build uses it.
    """
    with contextlib.closing(open_writer(folder, WAIT_S)) as connection, explained(folder, WAIT_S):
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
        return read_manifest(connection, folder)


def _usable(folder: Path) -> bool:
    """Whether a folder holds a sound database of this format.

    Raises:
        KnowledgeError: that cannot be told for now, or its format is a newer one.
    """
    try:
        with contextlib.closing(open_reader(folder)) as connection, explained(folder):
            read_manifest(connection, folder)
            return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    except Unusable:
        return False


def _replace_documents(out: Path, staged: Path) -> list[str]:
    """Put the documents of one base in the place of all of another, in one commit.

    Old versions stay. A document that is the same in both is stored once, under a new row. The ids of those that came
    from no folder and are gone are given.
    """
    with contextlib.closing(open_writer(out, WAIT_S)) as connection, explained(out, WAIT_S):
        connection.execute("ATTACH ? AS staged", (f"file:{quote(os.fspath((staged / DATABASE).absolute()))}?mode=ro",))
        connection.execute("BEGIN IMMEDIATE")
        try:
            generation = read_manifest(connection, out).generation + 1
            documents, passages = (
                connection.execute(
                    f"SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '{table}'"
                ).fetchone()[0]
                for table in ("documents", "passages")
            )
            by_hand = [name for (name,) in connection.execute(_GONE)]
            values = {"generation": generation, "now": time.time(), "documents": documents, "passages": passages}
            for statement in filter(str.strip, _REPLACE.split(";")):
                connection.execute(statement, values)
            connection.execute("COMMIT")
            return by_hand
        finally:
            if connection.in_transaction:
                connection.rollback()


_GONE = """
SELECT id FROM documents WHERE died IS NULL AND file IS NULL AND id NOT IN (SELECT id FROM staged.documents) ORDER BY id
"""
_REPLACE = """
DELETE FROM words;
DELETE FROM passages;
DELETE FROM asks;
DELETE FROM entries;
DELETE FROM files;
UPDATE documents SET died = :generation, removed = :now, file = NULL WHERE died IS NULL;
DELETE FROM documents WHERE died = :generation
    AND EXISTS (SELECT 1 FROM staged.documents AS s WHERE s.id = documents.id AND s.version = documents.version);
INSERT INTO documents (row, id, version, born, expires, file, seal, asks_seal, title, metadata, text)
    SELECT row + :documents, id, version, :generation, expires, file, seal, asks_seal, title, metadata, text
    FROM staged.documents;
INSERT INTO passages SELECT row + :passages, document + :documents, number, start, stop, vector FROM staged.passages;
INSERT INTO asks SELECT document + :documents, vectors FROM staged.asks;
INSERT INTO entries SELECT key, value, document + :documents FROM staged.entries;
INSERT INTO words (rowid, text) SELECT rowid + :passages, text FROM staged.words;
INSERT INTO files SELECT * FROM staged.files;
UPDATE manifest SET (encoder, dimension, words, corpus, documents, passages) =
    (SELECT encoder, dimension, words, corpus, documents, passages FROM staged.manifest),
    generation = :generation, pruned = :generation;
"""


def _swap(new: Path, out: Path) -> None:
    """Put one folder in the place of another; if that fails, `out` is what it was."""
    if not out.exists():
        new.rename(out)
        fsync_folder(out.parent)
        return
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    old = work / "old"
    try:
        out.rename(old)
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)  # if that fails too, it stays where it is
        work.rmdir()
        raise
    fsync_folder(out.parent)
    shutil.rmtree(work)


def fsync_folder(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
