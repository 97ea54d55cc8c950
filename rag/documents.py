"""Read a folder of documents: every file that can be used, and why the others cannot."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rag.chunking import headings
from rag.formats import SUFFIXES, Content
from rag.metadata import SIDECAR
from rag.place import open_inside
from rag.reading import ReadingProcess
from rag.types import Corpus, Document, KnowledgeError, Limits, Quarantined, Unreadable

_LISTS = (".csv", ".jsonl")
_NAMED = 8  # endings of files that are passed over, the most frequent ones


def read_documents(folder: Path, *, limits: Limits | None = None) -> Corpus:
    """Every document below a folder, and the files that are left out: broken, hostile, or beyond the limits.

    A file that is a link out of the folder is left out, and so are all files that give one id to several documents. The
    files are read in a process of their own, which is ended if it takes too long.

    Raises:
        KnowledgeError: the folder is missing or holds no file of a known format, or no process can be started.
    """
    documents: list[Document] = []
    with ReadingProcess(limits or Limits()) as process:
        groups, reasons, _ = file_groups(folder)
        for group in groups:
            found, refused = read_files(group, folder, process)
            twice = clashes(found, folder)
            reasons |= {path: str(exc) for path, exc in refused.items()} | twice
            documents += [document for path in found.keys() - twice.keys() for document in found[path]]
    return Corpus(
        tuple(sorted(documents, key=lambda document: document.id)),
        tuple(quarantined(path, folder, reasons[path]) for path in sorted(reasons)),
    )


def file_groups(folder: Path) -> tuple[list[list[Path]], dict[Path, str], str]:
    """The files below a folder that may hold documents, and for each folder that cannot be looked into the reason.

    Those of one group may give the same ids, others not. Last comes how many other files there are, in words.

    Raises:
        KnowledgeError: the folder is missing or holds no file of a known format.
    """
    if not folder.is_dir():
        raise KnowledgeError(f"knowledge source {folder} is not a folder; give one with {', '.join(SUFFIXES)} files")
    paths, reasons, others = _walk(folder)
    if folder in reasons:
        raise KnowledgeError(f"knowledge source {folder} {reasons[folder]}; make it readable")
    if not any(path.suffix.lower() in SUFFIXES for path in paths):
        raise KnowledgeError(f"knowledge source {folder} holds no {', '.join(SUFFIXES)} file; add one")
    lists = {path.with_suffix("") for path in paths if path.suffix.lower() in _LISTS}

    def root(path: Path) -> Path:
        name = path.with_suffix("")
        return next((outer for outer in reversed(name.parents) if outer in lists), name)

    return [list(group) for _, group in itertools.groupby(sorted(paths, key=root), key=root)], reasons, _counted(others)


def read_files(
    paths: Iterable[Path], folder: Path, process: ReadingProcess
) -> tuple[dict[Path, list[Document]], dict[Path, Unreadable]]:
    """The documents of a group's files, and for each file that is left out the reason."""
    reasons: dict[Path, Unreadable] = {}
    documents: dict[Path, list[Document]] = {}
    for path in paths:
        try:
            documents[path] = _read(path, folder, process)
        except Unreadable as exc:
            reasons[path] = exc
    return documents, reasons


def read_file(path: Path, name: str, process: ReadingProcess, *, within: Path) -> list[Document]:
    """The documents of one file, with the sidecar beside it if there is one.

    Args:
        path: the file.
        name: id of its document; for a list, what comes before ``/`` and the row's id.
        process: reads it.
        within: folder that neither may lead out of.

    Raises:
        Unreadable: the file cannot be used; the message is the reason.
    """
    if not name.isprintable():
        raise Unreadable("has a name that cannot be printed; rename it")
    sidecar = path.with_name(path.name + SIDECAR)
    beside = sidecar if os.path.lexists(sidecar) else None
    contents = process.read(path, within, beside)
    _check_positions(contents)
    return [_document(name, content) for content in contents]


def quarantined(path: Path, folder: Path, reason: str) -> Quarantined:
    """A file that is left out, fit to be printed."""
    return Quarantined(_printable(below(path, folder)), _printable(reason))


def version(title: str, metadata: Mapping[str, str | list[str]], text: str) -> str:
    """SHA-256 over everything that makes a document what it is, in hex."""
    canonical = json.dumps({"title": title, "metadata": dict(metadata), "text": text}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _walk(folder: Path) -> tuple[list[Path], dict[Path, str], Counter[str]]:
    """The files with a known ending, sorted, the folders that cannot be looked into, and the endings of other files.

    Links are not followed. What is hidden, and where an editor notes that it has a document open, is not told of.
    """
    paths: list[Path] = []
    others: Counter[str] = Counter()
    reasons: dict[Path, str] = {}

    def note(exc: OSError) -> None:
        if not isinstance(exc, FileNotFoundError | NotADirectoryError):  # gone meanwhile
            reasons[Path(exc.filename)] = f"cannot be looked into ({exc.strerror})"

    for where, folders, files in os.walk(folder, onerror=note):
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        paths += [Path(where, name) for name in (*files, *links) if _is_source(name)]
        if not any(part.startswith(".") for part in Path(where).relative_to(folder).parts):
            seen = (name for name in files if not name.startswith((".", "~$")) and not _is_source(name))
            others.update(Path(name).suffix.lower() for name in seen)
    return sorted(paths), reasons, others


def _counted(endings: Counter[str]) -> str:
    """So many files with endings that are none of a known format, in words; empty without any."""
    if not endings:
        return ""
    total = endings.total()
    first = sorted(endings, key=lambda ending: (-endings[ending], ending))[:_NAMED]
    named = ", ".join(f"{endings[ending]} {ending or 'without ending'}" for ending in first)
    rest = total - sum(endings[ending] for ending in first)
    more = f", {rest} with other endings" if rest else ""
    return _printable(f"{total} {'files' if total > 1 else 'file'} of unknown formats ({named}{more})")


def _is_source(name: str) -> bool:
    if name.startswith(("~$", ".#")):  # where an editor notes that it has a document open
        return False
    return name.endswith(SIDECAR) or Path(name).suffix.lower() in SUFFIXES


def _read(path: Path, folder: Path, process: ReadingProcess) -> list[Document]:
    if path.name.endswith(SIDECAR):
        open_inside(path, folder).close()
        described = path.with_name(path.name.removesuffix(SIDECAR))
        if described.suffix.lower() in SUFFIXES and described.exists():
            return []  # read with the file it describes
        raise Unreadable(f"describes no document; name it as the document's file is named, then {SIDECAR}")
    name = below(path.with_suffix(""), folder)
    return read_file(path, name, process, within=folder)


def _document(name: str, content: Content) -> Document:
    name = f"{name}/{content.row}" if content.row else name
    title = content.title or name
    return Document(name, version(title, content.metadata, content.text), title, content.text, content.metadata)


def _check_positions(contents: Sequence[Content]) -> None:
    """Refuse positions that no section of a file sets out: no sentence would be quoted as one of theirs.

    Raises:
        Unreadable: `positions` names a heading that none of the file's texts has.
    """
    named = [content.metadata.get("positions", []) for content in contents]
    texts = [content.text for content, names in zip(contents, named, strict=True) if names]
    known = list(dict.fromkeys(heading for text in texts for heading in headings(text) if heading))
    for names in named:
        for heading in [names] if isinstance(names, str) else names:
            if heading not in known:
                there = ", ".join(map(repr, known)) or "none"
                reason = f"metadata `positions` names {heading!r}; give headings of the text, which are: {there}"
                raise Unreadable(reason)


def clashes(documents: Mapping[Path, Iterable[Document]], folder: Path) -> dict[Path, str]:
    """The files that share an id: all of them, since nothing says which is meant."""
    givers: dict[str, list[Path]] = {}
    for path, found in documents.items():
        for document in found:
            givers.setdefault(document.id, []).append(path)
    return {
        path: f"gives the document id {name!r}, and so does {', '.join(others)}; rename one of them"
        for name, paths in givers.items()
        for path in paths
        if (others := [below(other, folder) for other in paths if other != path])
    }


def below(path: Path, folder: Path) -> str:
    """A file's path below the folder, ``/`` between parts."""
    return path.relative_to(folder).as_posix()


def _printable(text: str) -> str:
    """One line without control characters, which a hostile name or file could send to a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
