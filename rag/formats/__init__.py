"""The formats of documents: from one file to texts with metadata, checked and screened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.chunking import headings, sentences
from rag.instructions import find_instruction
from rag.metadata import Metadata, merge, parse_yaml
from rag.place import open_inside
from rag.types import Limits, Unfinished, Unreadable

SUFFIXES = (".csv", ".docx", ".htm", ".html", ".jsonl", ".markdown", ".md", ".pdf", ".txt")
_SIDECAR_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a reader found: a file's text, or one row of a list.

    Attributes:
        text: what is stored; Markdown, so far as the format has structure.
        metadata: what the file itself says of it.
        row: the row's id in its list; empty for a file that is one document.
        unseen: what a reader of the file is not shown, such as comments: screened for instructions, never stored.
    """

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A document before it has its id: the text and what is said about it, checked.

    Attributes:
        row: the row's id in its list; empty for a file that is one document.
        title: from the metadata, else the first heading, else empty.
        text: what is stored.
        metadata: without the title.
    """

    row: str
    title: str
    text: str
    metadata: Metadata


Reader = Callable[[bytes, Limits], list[Extracted]]


def read_file(path: Path, limits: Limits, sidecar: Path | None = None, within: Path | None = None) -> list[Content]:
    """The documents of one file: one, or one for each row of a list.

    Works in this process and without a deadline; `rag.reading` gives it both.

    Args:
        path: the file.
        limits: of it.
        sidecar: the file with its metadata, if there is one.
        within: folder that neither may lead out of; the file's own by default.

    Raises:
        Unreadable: the file cannot be used; the message is the reason.
    """
    within = within or path.parent
    found = _reader(path.suffix.lower())(_bytes(path, limits.bytes, within), limits)
    beside = _read_sidecar(sidecar, within) if sidecar else {}
    return [_content(item, beside, limits) for item in found]


def _reader(suffix: str) -> Reader:
    """Imported when needed: who reads Markdown waits for no PDF library."""
    match suffix:
        case ".md" | ".markdown":
            from rag.formats.text import read_text as reader
        case ".txt":
            from rag.formats.text import read_plain as reader
        case ".html" | ".htm":
            from rag.formats.html import read_html as reader
        case ".pdf":
            from rag.formats.pdf import read_pdf as reader
        case ".docx":
            from rag.formats.docx import read_docx as reader
        case ".csv":
            from rag.formats.lists import read_csv as reader
        case ".jsonl":
            from rag.formats.lists import read_jsonl as reader
        case _:
            raise Unreadable(f"has no known format; the known ones are {', '.join(SUFFIXES)}")
    return reader


def _bytes(path: Path, most: int, within: Path) -> bytes:
    try:
        with open_inside(path, within) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise Unreadable(f"has {size} bytes, more than the {most} allowed; split it")
            data = file.read(most + 1)
    except OSError as exc:
        raise Unfinished(f"cannot be read ({exc.strerror})") from exc
    if len(data) > most:
        raise Unreadable(f"has more than the {most} bytes allowed; split it")
    if not data.strip():
        raise Unreadable("is empty; write some text, or remove the file")
    return data


def _read_sidecar(path: Path, within: Path) -> dict[str, Any]:
    from rag.formats.text import decode

    where = f"sidecar {path.name}"
    try:
        return parse_yaml(decode(_bytes(path, _SIDECAR_BYTES, within)), where)
    except Unreadable as exc:
        reason = str(exc)
        raise type(exc)(reason if reason.startswith(where) else f"{where} {reason}") from exc


def _content(found: Extracted, beside: Mapping[str, Any], limits: Limits) -> Content:
    try:
        if found.row:  # each row has a title of its own
            beside = {key: value for key, value in beside.items() if key != "title"}
        metadata = merge(found.metadata, beside)
        if not found.text.strip():
            raise Unreadable("has no text; write some, or remove the file")
        if len(found.text) > limits.characters:
            raise Unreadable(f"has {len(found.text)} characters of text, more than {limits.characters}; split it")
        content = Content(found.row, _title(metadata, found.text), found.text, metadata)
        _screen(content, found.unseen)
        sentences(found.text)  # cut once here, where time is bounded, as it will be when passages are made
    except Unreadable as exc:
        raise Unreadable(f"row {found.row}: {exc}" if found.row else str(exc)) from exc
    return content


def _title(metadata: Metadata, text: str) -> str:
    return str(metadata.pop("title", "")) or next(filter(None, headings(text)), "")


def _screen(content: Content, unseen: str) -> None:
    values = [value if isinstance(value, str) else "\n".join(value) for value in content.metadata.values()]
    everything = "\n\n".join([content.title, content.text, *content.metadata, *values, unseen])
    if not everything.isascii():
        try:
            everything.encode()
        except UnicodeEncodeError as exc:
            raise Unreadable("holds half of a surrogate pair, which is no character; correct its text") from exc
    if found := find_instruction(everything):
        raise Unreadable(
            f"carries an instruction to a model: “{found.quote}” (rule {found.rule}); take it out or remove the file"
        )
