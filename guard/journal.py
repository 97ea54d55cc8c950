"""The journal: every decision in SQLite, written before the answer leaves; prompts only when the operator asks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from guard.errors import JournalError
from guard.types import Decision

Prompts = Literal["off", "hashed", "full"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    route TEXT NOT NULL,
    rule TEXT NOT NULL,
    tier TEXT,
    category TEXT,
    cause TEXT,
    prompt TEXT,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS decisions_created ON decisions (created);
CREATE TABLE IF NOT EXISTS outcomes (
    decision TEXT NOT NULL REFERENCES decisions (id),
    status INTEGER,
    outcome TEXT NOT NULL,
    detail TEXT,
    milliseconds REAL
) STRICT;
CREATE INDEX IF NOT EXISTS outcomes_decision ON outcomes (decision);
"""
_DECISION = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OUTCOME = "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)"


class Journal(Protocol):
    """Where decisions are written down."""

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Write a decision; returns once it is safe against a crash of the process.

        Raises:
            JournalError: it could not be written.
        """
        ...

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Write how the request ended.

        Outcomes: `answered`, `refused`, `stopped`, `upstream_error`, `failed`, `disconnected`; of a forwarded answer
        that was held against the knowledge base, `grounded`, `ungrounded` or `abstained`.
        """
        ...

    def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        ...


class NoJournal:
    """Keeps nothing."""

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Nothing."""

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class SqliteJournal:
    """A SQLite file in WAL mode, written by one thread; what waits is committed together.

    Args:
        path: the file; made if missing.
        prompts: `off` keeps no text; `hashed` its SHA-256, which anyone who guesses the text can confirm; `full` the
            text.
        timeout_s: seconds to wait for a locked database.

    Raises:
        JournalError: the file cannot be opened or is no journal.
    """

    def __init__(self, path: Path, *, prompts: Prompts = "off", timeout_s: float = 5.0) -> None:
        self._path = path
        self._prompts = prompts
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # made for the owner only; SQLite gives its other files the same mode
            self._database = sqlite3.connect(path, timeout=timeout_s, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as exc:
            raise JournalError(
                f"journal.path = {path}: cannot be opened as a journal ({exc}); name another file"
            ) from exc
        self._thread = threading.Thread(target=self._write_all, name="airlock-journal", daemon=True)
        self._thread.start()

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Write a decision; returns once it is committed."""
        said = decision.as_dict()
        record = json.dumps(said, ensure_ascii=False)
        row = (decision.id, decision.created, said["route"], said["rule"], said["tier"], said["category"])
        await self._put(_DECISION, (*row, said["cause"], self._kept(prompt), record))

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Write how the request ended."""
        await self._put(_OUTCOME, (decision.id, status, outcome, detail, ms))

    def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
            self._database.close()

    def _kept(self, prompt: str) -> str | None:
        if self._prompts == "off":
            return None
        safe = prompt.encode("utf-8", "replace")
        return hashlib.sha256(safe).hexdigest() if self._prompts == "hashed" else safe.decode()

    async def _put(self, statement: str, values: Sequence[Any]) -> None:
        if not self._thread.is_alive():
            raise JournalError(f"journal.path = {self._path}: is closed")
        write = _Write(statement, values)
        self._waiting.put(write)
        await write.done

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            writes = [first]
            ending = False
            while not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    ending = True
                    break
                writes.append(following)
            self._commit(writes)
            if ending:
                return

    def _commit(self, writes: Sequence[_Write]) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for write in writes:
                self._database.execute(write.statement, write.values)
            self._database.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as exc:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            error = JournalError(f"journal.path = {self._path}: cannot be written ({exc})")
            for write in writes:
                write.settle(error)
        else:
            for write in writes:
                write.settle(None)


class _Write:
    """One row on its way into the database."""

    def __init__(self, statement: str, values: Sequence[Any]) -> None:
        self.statement = statement
        self.values = values
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()

    def settle(self, error: JournalError | None) -> None:
        """Tell the waiting request; from the writer's thread."""

        def tell() -> None:
            if self.done.done():
                return
            if error:
                self.done.set_exception(error)
            else:
                self.done.set_result(None)

        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            self._loop.call_soon_threadsafe(tell)
