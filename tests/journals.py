"""Journals for tests, and what is in them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from guard.journal.database import Database, read_head, select_records
from guard.journal.prompts import Prompts
from guard.journal.records import Record
from guard.journal.retention import Retention
from guard.journal.settings import JournalSection
from guard.journal.verify import Anchor, Report, verify
from guard.journal.writer import DatabaseJournal
from guard.types import Decision


def section(place: Path | str, **settings: Any) -> JournalSection:
    """The settings of a journal in a file, or at an address."""
    where = {"path": place} if isinstance(place, Path) else {"path": None, "url": place}
    return JournalSection(**where, **settings)


def open_journal(place: Path | str, *, timeout_s: float = 5.0, retention: Retention | None = None, **settings: Any):
    """A journal that writes."""
    found = section(place, **settings)
    return DatabaseJournal(Database(found, timeout_s=timeout_s), Prompts.of(found), retention)


def records(place: Path | str, kind: str | None = None, **settings: Any) -> list[Record]:
    """All records, or those of a kind."""
    database = Database(section(place, **settings), read_only=True)
    with database.reading() as connection:
        found = [record for record in select_records(connection) if kind in (None, record.kind)]
    database.close()
    return found


def verified(place: Path | str, anchor: str | None = None, **settings: Any) -> Report:
    """What verification says."""
    database = Database(section(place, **settings), read_only=True)
    with database.reading() as connection:
        parsed = Anchor.parse(anchor) if anchor else None
        report = verify(select_records(connection), read_head(connection), database.keys, parsed)
    database.close()
    return report


def write(journal, *decisions: Decision, prompt: str = "") -> None:
    """Write decisions, one after the other."""

    async def run() -> None:
        for decision in decisions:
            await journal.decided(decision, prompt)

    asyncio.run(run())
