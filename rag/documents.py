"""Read a folder of Markdown and text files, each with YAML front matter if it has any."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rag.chunking import headings
from rag.types import Document, KnowledgeError

SUFFIXES = (".md", ".markdown", ".txt")
MAX_BYTES = 2 * 1024 * 1024
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)

Metadata = dict[str, str | list[str]]


def read_documents(folder: Path, *, max_bytes: int = MAX_BYTES) -> list[Document]:
    """Every document below a folder, in the order of their ids.

    Raises:
        KnowledgeError: the folder is missing or holds no document; a file is a link out of the folder, too large, not
            UTF-8, empty, has broken front matter, or shares its id with another.
    """
    if not folder.is_dir():
        raise KnowledgeError(f"knowledge source {folder} is not a folder; give one with {', '.join(SUFFIXES)} files")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise KnowledgeError(f"{path} is a link out of {folder}; copy the file into the folder, or remove the link")
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise KnowledgeError(f"{found[name]} and {path} both give the document id {name!r}; rename one of them")
        found[name] = path
    if not found:
        raise KnowledgeError(f"knowledge source {folder} holds no {', '.join(SUFFIXES)} file; add one")
    return [_read(path, name, max_bytes) for name, path in sorted(found.items())]


def version(title: str, metadata: Mapping[str, str | list[str]], text: str) -> str:
    """SHA-256 over everything that makes a document what it is, in hex."""
    canonical = json.dumps({"title": title, "metadata": dict(metadata), "text": text}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path, name: str, max_bytes: int) -> Document:
    size = path.stat().st_size
    if size > max_bytes:
        raise KnowledgeError(f"{path} has {size} bytes, more than the {max_bytes} allowed; split it")
    try:
        whole = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        raise KnowledgeError(f"{path} is not UTF-8 ({exc.reason} at byte {exc.start}); save it as UTF-8") from exc
    metadata, text = _front_matter(whole, path)
    if not text.strip():
        raise KnowledgeError(f"{path} has no text; write some, or remove the file")
    title = metadata.pop("title", "") or next(filter(None, headings(text)), name)
    if not isinstance(title, str):
        raise KnowledgeError(f"{path}: front matter `title` is a list; give one text")
    return Document(id=name, version=version(title, metadata, text), title=title, text=text, metadata=metadata)


def _front_matter(whole: str, path: Path) -> tuple[Metadata, str]:
    """The front matter's entries and the text behind it."""
    if not re.match(r"---[ \t]*\n", whole):
        return {}, whole.strip("\n")
    match = _FRONT_MATTER.match(whole)
    if match is None:
        raise KnowledgeError(f"{path}: front matter opens with `---` and is never closed; add a second `---` line")
    try:
        data = yaml.safe_load(match["yaml"])
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date that does not exist
        raise KnowledgeError(f"{path}: front matter is not YAML: {exc}") from exc
    if not isinstance(data, dict | None):
        raise KnowledgeError(f"{path}: front matter is {type(data).__name__}, not `key: value` lines")
    return dict(_entries(data or {}, path)), whole[match.end() :].strip("\n")


def _entries(data: dict[Any, Any], path: Path) -> Iterator[tuple[str, str | list[str]]]:
    for key, value in data.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) for item in values):
            raise KnowledgeError(f"{path}: front matter `{key}` is nested; give a text or a flat list of texts")
        texts = [str(item) for item in values if item is not None]
        if isinstance(value, list):
            yield str(key), texts
        elif texts:
            yield str(key), texts[0]
