"""Retention: records older than the operator keeps them are deleted, and a checkpoint signs that off."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from guard.errors import JournalError
from guard.journal.chain import Head
from guard.journal.database import Database, journal, read_head
from guard.journal.records import Kind, draft
from guard.journal.review import waiting

log = logging.getLogger("airlock")

_DAY = 86_400.0
_FIRST = sa.select(journal.c.seq, journal.c.time).order_by(journal.c.seq).limit(1)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted.

    Attributes:
        records: how many.
        through: number of the last one; 0 without any.
        unresolved: requests among them that were handed over and that nobody resolved.
    """

    records: int
    through: int
    unresolved: int

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def prune(database: Database, before: float) -> Pruned:
    """Delete the records before a moment (Unix time), as far as no younger one stands before them in the chain.

    The checkpoint names the last record and its hash, so that verification finds nothing missing. It is committed
    first: a process that dies while it deletes leaves records that the next one deletes.

    A first record of tomorrow or later, written while a clock was wrong, so holds all behind it; a warning says so.

    Raises:
        JournalError: the database failed.
    """
    with database.reading() as connection:  # looked up before, so that writers need not wait for it
        head = read_head(connection)
        found = _old(connection, before, head) if head else None
    done = Pruned(0, 0, 0)
    if found and head:
        last = found.pop("hash")
        with database.changing() as ledger:
            if ledger.head.pruned == head.pruned:  # else another gateway was first
                done = Pruned(**found)
                ledger.append([draft(Kind.CHECKPOINT, {**done.as_dict(), "hash": last, "before": before})])
                ledger.prune(done.through)
    database.delete_pruned()
    with database.reading() as connection:
        first = connection.execute(_FIRST).first()
    days_ahead = (first.time - time.time()) / _DAY if first else 0.0
    if first and days_ahead > 1:
        log.warning(
            "retention: record %d is dated %.0f days from now, and what stands behind it is kept until then, and "
            "journal.retention_days longer; a new journal.path begins without it, the old journal stays readable until "
            "you delete it",
            first.seq,
            days_ahead,
        )
    return done


def _old(connection: sa.Connection, before: float, head: Head) -> dict[str, Any] | None:
    """What a checkpoint says of the records before a moment; None where there are none but checkpoints."""
    young = (journal.c.time >= before, journal.c.seq > head.pruned)  # not what somebody added before the first record
    first_kept = connection.execute(sa.select(sa.func.min(journal.c.seq)).where(*young)).scalar()
    through = head.seq if first_kept is None else first_kept - 1
    old = (journal.c.seq <= through, journal.c.seq > head.pruned)
    by_kind = sa.select(journal.c.kind, sa.func.count()).where(*old).group_by(journal.c.kind)
    counts: dict[str, int] = {kind: count for kind, count in connection.execute(by_kind)}
    if not set(counts) - {Kind.CHECKPOINT.value}:  # else a journal at rest would get a new one every day
        return None
    last = connection.execute(sa.select(journal.c.hash).where(journal.c.seq == through)).scalar_one()
    unresolved = len(waiting(connection, through=through))
    return {"records": sum(counts.values()), "through": through, "unresolved": unresolved, "hash": last}


class Retention:
    """Prunes a journal now and once a day, in a thread.

    Args:
        days: how long records are kept.
        every_s: seconds between two times.
    """

    def __init__(self, days: float, every_s: float = _DAY) -> None:
        self._days = days
        self._every_s = every_s
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, database: Database) -> None:
        """Begin, also once more after `stop`."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, args=(database,), name="airlock-retention", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; waits for what is being deleted."""
        self._ending.set()
        if self._thread:
            self._thread.join()

    def _run(self, database: Database) -> None:
        while True:
            try:
                done = prune(database, time.time() - self._days * _DAY)
            except JournalError as exc:
                log.error("retention: %s; tried again in %g s", exc, self._every_s)
            else:
                if done.records:
                    log.info("retention: %d records deleted, up to %d", done.records, done.through)
                if done.unresolved:
                    log.warning("retention: %d requests that waited for a person were deleted", done.unresolved)
            if self._ending.wait(self._every_s):
                return
