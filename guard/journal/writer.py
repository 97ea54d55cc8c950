"""The journal that the gateway writes: one thread; what waits is committed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from guard.errors import JournalError
from guard.journal.content import decision_content
from guard.journal.database import Database, is_of_all, reason
from guard.journal.prompts import Prompts
from guard.journal.records import Draft, Kind, draft
from guard.journal.retention import Retention
from guard.types import Decision

log = logging.getLogger("airlock")

_WAITING = 10_000  # records; with more, the database is too slow for the requests
_TOGETHER = 500  # in one commit
_NAMED = 100  # lost decisions that a gap names


class DatabaseJournal:
    """Writes decisions and outcomes at the end of the chain.

    Args:
        database: is closed with the journal, and opens by itself with the next record.
        prompts: what is kept of the judged text.
        retention: deletes old records once a day; None keeps them.
    """

    def __init__(self, database: Database, prompts: Prompts | None = None, retention: Retention | None = None) -> None:
        self._database = database
        self._prompts = prompts or Prompts()
        self._gap: _Gap | None = None
        self._gap_lock = threading.Lock()  # the writer's thread and requests that are turned away add to it
        self._closed = True
        self._door = threading.Lock()  # so that nothing is put behind the end, where nobody would settle it
        self._retention = retention
        self.open()

    def open(self) -> None:
        """Write again, after `close`."""
        with self._door:
            if not self._closed:
                return
            self._waiting: queue.Queue[_Write | None] = queue.Queue(_WAITING)
            self._thread = threading.Thread(target=self._write_all, name="airlock-journal", daemon=True)
            self._thread.start()
            self._closed = False
        if self._retention:
            self._retention.start(self._database)

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Write a decision; returns once it is committed."""
        kept = {"prompts": self._prompts.mode, "prompt": self._prompts.kept(prompt)}
        await self._put(draft(Kind.DECISION, decision_content(decision) | kept, decision.id))

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Write how the request ended."""
        content = {"outcome": outcome, "status": status, "detail": detail, "milliseconds": ms}
        await self._put(draft(Kind.OUTCOME, content, decision.id))

    def close(self) -> None:
        """Write what is waiting, and what could not be written; then let go of the database."""
        with self._door:
            self._closed = True
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
            if self._retention:
                self._retention.stop()
            self._database.close()

    async def _put(self, record: Draft) -> None:
        write = _Write(record)
        try:
            with self._door:
                if self._closed or not self._thread.is_alive():
                    raise JournalError(f"{self._database.place}: is closed")
                self._waiting.put_nowait(write)
        except queue.Full:
            said = f"{_WAITING} records wait already; it is too slow"
            self._lose([record], said)
            raise JournalError(f"{self._database.place}: {said}") from None
        await write.done

    def _write_all(self) -> None:
        self._write_waiting()
        self._write_last_gap()

    def _write_waiting(self) -> None:
        while (first := self._waiting.get()) is not None:
            writes = [first]
            ending = False
            while len(writes) < _TOGETHER and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    ending = True
                    break
                writes.append(following)
            self._commit(writes)
            if ending:
                return

    def _commit(self, writes: Sequence[_Write]) -> None:
        """All together; if that fails for what is in a record, one by one, so that it fails alone."""
        try:
            self._append(writes)
        except _NotBegun as exc:
            self._fail(writes, exc.error)
        except (SQLAlchemyError, JournalError, OSError, UnicodeError) as exc:
            if len(writes) == 1 or is_of_all(exc):  # where the connection broke, it may have been committed
                self._fail(writes, exc)
            else:
                for write in writes:
                    self._commit([write])
        else:
            for write in writes:
                write.settle(None)

    def _append(self, writes: Sequence[_Write]) -> None:
        with self._gap_lock:
            gap, self._gap = self._gap, None
        try:
            self._append_after(gap, writes)
        except BaseException:
            with self._gap_lock:
                self._gap = gap.joined(self._gap) if gap else self._gap
            raise

    def _append_after(self, gap: _Gap | None, writes: Sequence[_Write]) -> None:
        with contextlib.ExitStack() as stack:
            try:
                ledger = stack.enter_context(self._database.appending())
            except (SQLAlchemyError, JournalError, OSError) as exc:  # locked, out of reach, without its head
                raise _NotBegun(exc) from exc
            ledger.append([*([gap.as_draft()] if gap else []), *(write.record for write in writes)])

    def _write_last_gap(self) -> None:
        """No record will follow that says what is missing."""
        gap = self._gap
        if gap is None:
            return
        try:
            self._append([])
        except (_NotBegun, SQLAlchemyError, JournalError, OSError) as exc:
            said = _said(exc.error if isinstance(exc, _NotBegun) else exc)
            log.error("%s: %s could not be written, and no gap says so (%s)", self._database.place, gap, said)

    def _fail(self, writes: Sequence[_Write], exc: Exception) -> None:
        said = _said(exc)
        error = JournalError(f"{self._database.place}: cannot be written ({said})")
        self._lose((write.record for write in writes), said)
        for write in writes:
            write.settle(error)

    def _lose(self, records: Iterable[Draft], cause: str) -> None:
        with self._gap_lock:
            self._gap = self._gap or _Gap(cause)
            for record in records:
                self._gap.add(record)


def _said(exc: Exception) -> str:
    return reason(exc) if isinstance(exc, SQLAlchemyError) else str(exc)


class _NotBegun(Exception):
    """The transaction could not begin, so there is nothing that one record did to the others."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Gap:
    """What could not be written; the next commit says so in the chain, or the last one of an orderly stop."""

    def __init__(self, cause: str) -> None:
        self._cause = cause
        self._since = time.time()
        self._counts = {Kind.DECISION: 0, Kind.OUTCOME: 0}
        self._ids: list[str] = []

    def add(self, record: Draft) -> None:
        """A record that is lost."""
        self._counts[record.kind] += 1
        if record.kind is Kind.DECISION and record.decision and len(self._ids) < _NAMED:
            self._ids.append(record.decision)

    def joined(self, later: _Gap | None) -> _Gap:
        """This one, with what was lost since."""
        if later:
            for kind, count in later._counts.items():
                self._counts[kind] += count
            self._ids = [*self._ids, *later._ids][:_NAMED]
        return self

    def __str__(self) -> str:
        return " and ".join(f"{count} {kind}s" for kind, count in self._counts.items())

    def as_draft(self) -> Draft:
        """The record of the gap."""
        counts = {f"{kind}s": count for kind, count in self._counts.items()}
        content = {**counts, "first": self._ids, "since": self._since, "until": time.time(), "cause": self._cause}
        return draft(Kind.GAP, content)


class _Write:
    """One record on its way into the database."""

    def __init__(self, record: Draft) -> None:
        self.record = record
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
