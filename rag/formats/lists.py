"""Lists of questions and answers, as CSV with a header or as JSONL: each row is a document of its own."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rag.formats import Extracted
from rag.formats.text import decode
from rag.types import Limits, Unreadable

_NEEDED = ("question", "answer")
_DELIMITERS = (",", ";", "\t")
_ROW_ID = re.compile(r"[\w.-]+")


def read_csv(data: bytes, limits: Limits) -> list[Extracted]:
    """Rows of CSV; the header says by its columns which of comma, semicolon and tab lies between them."""
    text = decode(data)
    csv.field_size_limit(limits.characters)
    wrong: csv.Error | None = None
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
        except csv.Error as exc:  # another one may lie between quoted columns
            wrong = wrong or exc
            continue
        if set(_NEEDED) <= set(header):
            try:
                return _documents(_records(header, rows))
            except csv.Error as exc:
                raise Unreadable(f"is not CSV: {exc}") from exc
    if wrong:
        raise Unreadable(f"is not CSV: {wrong}") from wrong
    raise Unreadable("has no columns `question` and `answer` in its first line; name them")


def read_jsonl(data: bytes, limits: Limits) -> list[Extracted]:
    """Rows of JSONL: one object on a line."""
    return _documents(_objects(decode(data)))


def _records(header: list[str], rows: Iterable[list[str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    if len(set(header)) < len(header):
        raise Unreadable("names a column twice in its first line; give each a name of its own")
    said = (row for row in rows if any(map(str.strip, row)))  # a spreadsheet writes rows of nothing but commas
    for number, row in enumerate(said, 1):
        if len(row) != len(header):
            raise Unreadable(f"row {number} has {len(row)} cells and the first line {len(header)}; correct the row")
        yield number, {name: cell or None for name, cell in zip(header, row, strict=True)}


def _objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
        try:
            row = json.loads(line, object_pairs_hook=_named)
        except ValueError as exc:
            raise Unreadable(f"row {number} is not JSON ({exc}); write one object on a line") from exc
        except Unreadable as exc:
            raise Unreadable(f"row {number} {exc}") from exc
        if not isinstance(row, dict):
            raise Unreadable(f"row {number} is not a JSON object; write one object on a line")
        yield number, row


def _named(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    named = {key.strip().lower(): value for key, value in entries}
    if len(named) < len(entries):
        raise Unreadable("names an entry twice; give each a name of its own")
    return named


def _documents(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Extracted]:
    found: dict[str, Extracted] = {}
    for number, row in rows:
        said = dict(row)
        question, answer = (_text(said.pop(name, None), name, number) for name in _NEEDED)
        given = said.pop("id", None)
        name = str(number if given is None else given).strip()
        if not _ROW_ID.fullmatch(name):
            raise Unreadable(f"row {number} has the id {name!r}; use letters, digits, dot, hyphen and underscore")
        if name in found:
            raise Unreadable(f"row {number} has the id {name!r}, which another row has; give it one of its own")
        asked = " ".join(question.split())
        said["title"] = said.get("title") or asked
        found[name] = Extracted(f"# {asked}\n\n{answer.strip()}", said, row=name)
    if not found:
        raise Unreadable("has no rows; add some, or remove the file")
    return list(found.values())


def _text(value: Any, name: str, number: int) -> str:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, str) or not value.strip():
        raise Unreadable(f"row {number} has no text as `{name}`; write some, or remove the row")
    return value.replace("\r\n", "\n").replace("\r", "\n")
