"""Bring a knowledge base up to date with files: those of a whole folder, or single ones."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from rag.documents import below, clashes, file_groups, quarantined, read_file, read_files
from rag.metadata import SIDECAR
from rag.place import open_inside
from rag.reading import ReadingProcess
from rag.rows import Prepared
from rag.types import Document, KnowledgeError, Limits, Unfinished, Unreadable
from rag.write import Change, Origin, Writer

BATCH = 64  # documents, as soon as so many are read, are embedded together

READING = "4"  # changes when files are read or cut in another way, so that they are read again
_SO = f"{READING} "  # before the hash of a file that was read so
_UNFINISHED = "unfinished "  # before the hash of a file that is read again when all files are looked at
_EACH_TIME = "each time"  # in place of the hash of a file that is left out for more than its content
_UNQUOTABLE = "has no sentence to quote, so that nothing finds it; add paragraphs or lists"

Progress = Callable[[int, int], None]  # files looked at, files in all


class Happened(StrEnum):
    """What became of a document or a file."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    UNCHANGED = "unchanged"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    READ_AGAIN = "read again"
    PASSED_OVER = "passed over"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done, and has reached the disk; what is told of a folder comes before.

    Attributes:
        happened: what.
        name: the document's id, the path of a quarantined file, or the folder of a run that failed, reads known files
            again or passes files over.
        reason: why the file is quarantined, what failed, or which files; empty otherwise.
        warning: what is wrong with a document that was stored.
    """

    happened: Happened
    name: str
    reason: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """Documents of a file that was read, and what is to be done once they are stored.

    Attributes:
        origin: the file, with its hash if these are its last documents; None for one of no folder.
        documents: at most `BATCH`.
        gone: ids of what the file gave before and gives no more.
        recut: whether what is stored of it may have been cut otherwise.
    """

    origin: Origin | None
    documents: Sequence[Document]
    gone: Sequence[str] = ()
    recut: bool = True


def sync(
    writer: Writer,
    folder: Path,
    *,
    limits: Limits | None = None,
    touched: Collection[Path] | None = None,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Make a knowledge base hold what a folder holds: add what is new, replace what changed, remove what is gone.

    A file whose content is known is not read again, unless it was read by a version that reads files otherwise. A file
    that is quarantined keeps the documents that it gave before, until it is gone or can be used again. Documents that
    came from no folder stay. Files of unknown formats are passed over, and counted in one event. Each document is
    committed by itself, and an event comes after its commit, so that a run that is interrupted goes on where it
    stopped.

    Args:
        writer: of the knowledge base.
        folder: of documents; see `read_documents`.
        limits: of one file; the usual ones by default.
        touched: known files and folders are looked at only if they are among these, or links; all by default.
        progress: is told after each batch.

    Raises:
        KnowledgeError: the folder is missing or holds no file of a known format, or the base cannot be written.
    """
    limits = limits or Limits()
    groups, refused, others = file_groups(folder)
    for path, why in refused.items():
        yield _quarantine(path, folder, why)
    if others:
        yield Event(Happened.PASSED_OVER, folder.resolve().name, others)
    total, seen = sum(len(group) for group in groups), 0
    present = {below(path, folder) for group in groups for path in group}
    known = writer.files()
    cut = {name for name, (digest, reason) in known.items() if digest.startswith(_SO) and reason is None}
    if touched is None:
        yield from _read_again(folder, (known[name][0] for name in known.keys() & present))
    waiting: list[_Read] = []
    with ReadingProcess(limits) as process:
        for group in groups:
            digests: dict[Path, str | None] = {}
            for path in group:
                name = below(path, folder)
                settled = name in known and known[name][0] != _EACH_TIME
                unread = touched is not None and settled and not _among(path, touched)
                digest = known[name][0] if unread else _digest(path, folder, limits)
                if digest is None or name not in known or known[name][0] != digest:
                    digests[path] = digest
                elif reason := known[name][1]:
                    yield _quarantine(path, folder, reason)
            if digests:
                reads, left_out = _read_group(writer, folder, digests, process, present, cut)
                for path, (digest, reason) in left_out.items():
                    event = _quarantine(path, folder, reason)
                    if known.get(name := below(path, folder)) != (digest, event.reason):
                        writer.quarantine(name, digest, event.reason)
                    yield event
                for read in reads:
                    waiting.append(read)
                    if sum(len(part.documents) for part in waiting) >= BATCH:
                        yield from _store(writer, waiting)
                        waiting.clear()
            seen += len(group)
            if progress and not waiting:
                progress(seen, total)
    yield from _store(writer, waiting)
    yield from _remove_missing(writer, folder, present)
    if progress:
        progress(total, total)


def add_files(writer: Writer, files: Sequence[Path], *, name: str | None = None) -> Iterator[Event]:
    """Add single files, or put them in the place of what has their ids; each document is committed by itself.

    Documents below the id of a list that are no rows of it stay, and are told of.

    Args:
        writer: of the knowledge base.
        files: each with its sidecar beside it; a link stands for the file that it leads to.
        name: id of the one file's document; its name without suffix by default.

    Raises:
        KnowledgeError: a file is missing, two give one id, `name` is none that a file of a folder could have, or the
            base cannot be written.
    """
    if name is not None and not _is_id(name):
        raise KnowledgeError(
            f"document id {name!r} is none that a file of a folder could give; write it like health/library, a path "
            "without `..`, `.` and empty parts"
        )
    names = {path: name or path.with_suffix("").name for path in files}
    for path in names:
        if path.is_dir():
            raise KnowledgeError(f"{path} is a folder; name a document's file, or take `airlock kb sync {path}`")
        if not path.is_file():
            raise KnowledgeError(f"file {path} does not exist; name a document's file")
    if len(set(names.values())) < len(names) or (name and len(files) > 1):
        raise KnowledgeError(f"{len(files)} files would give one document id; add them one by one, each with an id")
    with ReadingProcess(Limits()) as process:
        for path, given in names.items():
            try:
                place = path.resolve()
                documents = read_file(place, given, process, within=place.parent)
            except Unreadable as exc:
                yield _quarantine(path, path.parent, str(exc))
                continue
            for part in _parts(documents):
                yield from _store(writer, [_Read(None, part)])
            ids = {document.id for document in documents}
            for left in [] if given in ids else sorted(writer.rows_by_hand(given) - ids):
                warning = f"is no row of {path.name} and stays; `airlock kb remove {left}` takes it out"
                yield Event(Happened.UNCHANGED, left, warning=warning)


def remove_documents(writer: Writer, ids: Sequence[str]) -> Iterator[Event]:
    """Remove documents, all in one commit; `sync` brings back those whose files are still there.

    Raises:
        KnowledgeError: one of them is not there, or the base cannot be written; nothing has changed then.
    """
    yield from _events(writer.change(remove=list(dict.fromkeys(ids))))


def _is_id(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and str(path) == name and not path.is_absolute() and ".." not in path.parts


def _read_group(
    writer: Writer,
    folder: Path,
    digests: dict[Path, str | None],
    process: ReadingProcess,
    present: Collection[str],
    cut: Collection[str],
) -> tuple[list[_Read], dict[Path, tuple[str, str]]]:
    """The new and changed files of a group; for those that are left out, what is kept as their hash, and the reason."""
    found, reasons = read_files(digests, folder, process)
    left_out: dict[Path, tuple[str, str]] = {}
    for path, exc in reasons.items():
        digest = digests[path]
        if digest is None:
            left_out[path] = _EACH_TIME, str(exc)
        else:
            left_out[path] = _UNFINISHED + digest if isinstance(exc, Unfinished) else digest, str(exc)
    twice = clashes(found, folder)
    given = {document.id for documents in found.values() for document in documents}
    names = {below(path, folder) for path in found}
    reads: list[_Read] = []
    for path, documents in found.items():
        name = below(path, folder)
        owners = writer.owners(document.id for document in documents)
        other = next((document for document, owner in owners.items() if owner in present and owner not in names), None)
        if other is not None:
            twice[path] = f"gives the document id {other!r}, and so does {owners[other]}; rename one of them"
        elif path not in twice and documents:  # a sidecar has none
            gone = [document for document in writer.documents_of(name) if document not in given]
            *first, last = _parts(documents)
            recut = name not in cut
            reads += [_Read(Origin(name), part, recut=recut) for part in first]
            reads.append(_Read(Origin(name, digests[path]), last, gone, recut))
    return reads, left_out | {path: (_EACH_TIME, reason) for path, reason in twice.items()}


def _parts(documents: Sequence[Document]) -> list[Sequence[Document]]:
    return [documents[start : start + BATCH] for start in range(0, len(documents), BATCH)]


def _store(writer: Writer, reads: Sequence[_Read]) -> Iterator[Event]:
    """Embed together, commit one by one; a file counts as read with its last document."""
    documents = [document for read in reads for document in read.documents]
    recut = {document.id for read in reads if read.recut for document in read.documents}
    prepared = {item.document.id: item for item in writer.prepare(documents, recut=recut)}
    for read in reads:
        items = [prepared[document.id] for document in read.documents]
        kept = [item for item in items if item.passages is None]
        new = [item for item in items if item.passages is not None]
        parts = [[item] for item in new[:-1]] + [[*new[-1:], *kept]]
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            origin = read.origin if last or read.origin is None else Origin(read.origin.path)
            unquotable = {item.document.id for item in part if item.passages == ()}
            yield from _events(_commit(writer, part, read.gone if last else [], origin), unquotable)


def _commit(writer: Writer, prepared: Sequence[Prepared], remove: Sequence[str], origin: Origin | None) -> Change:
    while (change := writer.commit(prepared, remove, origin=origin)) is None:
        recut = {item.document.id for item in prepared if item.passages is not None}
        prepared = writer.prepare([item.document for item in prepared], recut=recut)
    return change


def _remove_missing(writer: Writer, folder: Path, present: Collection[str]) -> Iterator[Event]:
    for path in writer.origins():
        if path not in present and _is_gone(folder, path):
            for name in writer.documents_of(path):
                yield from _events(_commit(writer, [], [name], None))
            writer.forget_file(path)


def _is_gone(folder: Path, name: str) -> bool:
    """Whether a file is not there, and not only beyond reach for now; behind a link to a folder nothing is."""
    path = folder / name
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) or path.parent.resolve() != (folder.resolve() / name).parent


def _events(change: Change, unquotable: Collection[str] = ()) -> Iterator[Event]:
    for happened in (Happened.ADDED, Happened.CHANGED, Happened.REMOVED, Happened.UNCHANGED):
        for name in getattr(change, happened.value):
            yield Event(happened, name, warning=_UNQUOTABLE if name in unquotable else "")


def _read_again(folder: Path, digests: Iterable[str]) -> Iterator[Event]:
    if number := sum(not digest.startswith((_SO, _UNFINISHED, _EACH_TIME)) for digest in digests):
        reason = f"{number} known {'files' if number > 1 else 'file'}, since this version reads files otherwise"
        yield Event(Happened.READ_AGAIN, folder.resolve().name, reason)


def _quarantine(path: Path, folder: Path, reason: str) -> Event:
    file = quarantined(path, folder, reason)
    return Event(Happened.QUARANTINED, file.path, file.reason)


def _digest(path: Path, folder: Path, limits: Limits) -> str | None:
    """Names all that decides how a file with its sidecar is read; None if they cannot be read whole."""
    digest = hashlib.sha256(str(limits).encode())
    if path.name.endswith(SIDECAR):
        digest.update(b"of a file" if os.path.exists(str(path).removesuffix(SIDECAR)) else b"of none")
    try:
        for part in (path, path.with_name(path.name + SIDECAR)):
            if part == path or os.path.lexists(part):
                with open_inside(part, folder) as file:
                    data = file.read(limits.bytes + 1)
                if len(data) > limits.bytes:
                    return None
                digest.update(data + b"\0")
    except (OSError, Unreadable):
        return None
    return _SO + digest.hexdigest()


def _among(path: Path, touched: Collection[Path]) -> bool:
    files = (path, path.with_name(path.name + SIDECAR))
    if any(file.is_symlink() for file in files):  # what it leads to may be led to by way of others
        return True
    return any(part in touched for part in (*files, *path.parents))
