"""Exports: records as JSON lines, whole, or as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from guard.errors import BadRequest
from guard.journal.records import Record

Format = Literal["jsonl", "csv"]
_COLUMNS = ("seq", "time", "kind", "decision", "previous", "hash")
_OF_PAYLOAD = (
    *("route", "rule", "tier", "category", "coverage", "language", "judged", "cause", "tenant", "model_asked"),
    *("endpoint", "model", "prompt", "outcome", "status", "detail", "milliseconds", "state", "by", "note"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def export(records: Iterable[Record], form: Format) -> Iterator[str]:
    """Lines of text, each with its end."""
    if form == "csv":
        yield from _table(records)
        return
    for record in records:
        yield json.dumps(record.as_dict(), ensure_ascii=False) + "\n"


def moment(text: str, option: str, now: datetime | None = None) -> float:
    """Unix time of a date or time (ISO 8601; without a zone, UTC), or of so long ago: ``7d``, ``12h``, ``30m``, ``2w``.

    Raises:
        BadRequest: the text is neither; the message names the option.
    """
    ago = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    try:
        if ago:
            return ((now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).timestamp()
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise BadRequest(f"{option} {text}: need a date such as 2026-01-31, a time, or how long ago: 7d, 12h") from exc


def _table(records: Iterable[Record]) -> Iterator[str]:
    page = io.StringIO()
    writer = csv.writer(page)  # lines end in CR LF: then a cell with either is quoted, and begins no row of its own
    writer.writerow([*_COLUMNS, *_OF_PAYLOAD])
    for record in records:
        content = record.content
        yield page.getvalue()
        page.seek(0)
        page.truncate()
        row = [*(getattr(record, name) for name in _COLUMNS), *(content.get(name) for name in _OF_PAYLOAD)]
        writer.writerow(map(_cell, row))
    yield page.getvalue()


def _cell(value: object) -> object:
    """A text that a spreadsheet does not take for a formula: prompts are written by anybody."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
