"""The journal's database: its tables, and the transactions on them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guard.errors import ConfigError, JournalError
from guard.journal.chain import KEYED, Head, Keys, is_sealed, link, sealed
from guard.journal.engines import READS, engine_of
from guard.journal.records import Draft, Kind, Record, draft
from guard.journal.settings import JournalSection

SCHEMA = "0001"  # the last of `guard.journal.migrations`
VERSION_TABLE = "journal_schema"
_CHUNK = 1000
_IN_VAIN = ("55P03", "57014")  # SQLSTATE: a lock was not to be had, a statement took too long

metadata = sa.MetaData()
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double(), nullable=False, index=True),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("decision", sa.Text(), index=True),
    sa.Column("payload", sa.Text(), nullable=False),
    sa.Column("previous", sa.Text(), nullable=False),
    sa.Column("hash", sa.Text(), nullable=False),
    sa.Index(
        "journal_one_decision",
        "decision",
        unique=True,
        sqlite_where=sa.text("kind = 'decision'"),
        postgresql_where=sa.text("kind = 'decision'"),
    ),
)
heads = sa.Table(
    "journal_head",
    metadata,
    sa.Column("one", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger(), nullable=False),
    sa.Column("hash", sa.Text(), nullable=False),
    sa.Column("pruned", sa.BigInteger(), nullable=False),
    sa.Column("seal", sa.Text(), nullable=False),
)

_READ_HEAD = sa.select(heads.c.seq, heads.c.hash, heads.c.pruned, heads.c.seal)  # made once: to make them takes time
_LOCK_HEAD = sa.select(heads.c.one).with_for_update()
_MOVE_HEAD = sa.update(heads).values({name: sa.bindparam(f"new_{name}") for name in ("seq", "hash", "pruned", "seal")})
_INSERT = sa.insert(journal)


@dataclass(slots=True)
class Ledger:
    """A transaction that may append; nobody else appends until it ends."""

    connection: sa.Connection
    keys: Keys
    head: Head

    def append(self, drafts: Iterable[Draft]) -> list[Record]:
        """Write records at the end of the chain."""
        records, head = link(drafts, self.head, self.keys, time.time())
        if records:
            self.connection.execute(_INSERT, [_row(record) for record in records])
            self.move(head)
        return records

    def move(self, head: Head) -> None:
        """Write the head anew."""
        values = {"new_seq": head.seq, "new_hash": head.hash, "new_pruned": head.pruned, "new_seal": head.seal}
        self.connection.execute(_MOVE_HEAD, values)
        self.head = head

    def prune(self, through: int) -> None:
        """Let the records up to a number be deleted."""
        self.move(sealed(self.head.seq, self.head.hash, through, self.keys))


class Database:
    """An open journal.

    Args:
        settings: where it is, and its key.
        read_only: whether nothing may change.
        make: whether one is made where there is none, and an older form migrated; never where it is only read.
        timeout_s: seconds to wait for a lock.

    Raises:
        JournalError: it cannot be opened, is no journal, or is of a newer form; or the key is missing or another one.
        ConfigError: there is no journal, or the driver for PostgreSQL is missing.
    """

    def __init__(
        self, settings: JournalSection, *, read_only: bool = False, make: bool = True, timeout_s: float = 5.0
    ) -> None:
        make = make and not read_only
        self.place = place(settings)
        self.keys = Keys.of("journal.key_env", settings.key_env)
        self._engine = engine_of(settings, read_only=read_only, make=make, timeout_s=timeout_s)
        try:
            with self._explained():
                self._prepare(read_only=read_only, make=make)
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self._engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def appending(self) -> Iterator[Ledger]:
        """A transaction at the end of the chain; undone when the block raises.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: as the database raised it.
        """
        with self._engine.begin() as connection:
            yield Ledger(connection, self.keys, _locked_head(connection))

    @contextlib.contextmanager
    def changing(self) -> Iterator[Ledger]:
        """The same for who can do nothing about what the database raises.

        Raises:
            JournalError: the database failed.
        """
        try:
            with self.appending() as ledger:
                yield ledger
        except SQLAlchemyError as exc:
            raise JournalError(f"{self.place}: {reason(exc)}") from exc

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the journal.

        Raises:
            JournalError: the database failed.
        """
        options: dict[str, Any] = {READS: True}
        if not self.is_sqlite:
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._explained(), self._engine.connect().execution_options(**options) as connection:
            yield connection

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as exc:
            raise JournalError(
                f"{self.place}: cannot be used as a journal ({reason(exc)}); name another file or database"
            ) from exc

    def delete_pruned(self) -> None:
        """Delete what retention signed off, a thousand records at a time, so that writers need not wait.

        Raises:
            JournalError: the database failed.
        """
        signed_off = sa.select(heads.c.pruned).scalar_subquery()
        ours = journal.c.seq.between(1, signed_off)  # what somebody added before the first record is evidence
        some = sa.select(journal.c.seq).where(ours).order_by(journal.c.seq).limit(_CHUNK)
        with self._explained():
            while True:
                with self._engine.begin() as connection:
                    if not connection.execute(sa.delete(journal).where(journal.c.seq.in_(some))).rowcount:
                        break
            if self.is_sqlite:  # else what was deleted stays in the log for a while
                self._pragma("wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _pragma(self, words: str) -> None:
        """Outside of any transaction."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute(f"PRAGMA {words}")
        except sqlite3.Error as exc:
            raise JournalError(f"{self.place}: {exc}") from exc
        finally:
            connection.close()

    def _prepare(self, *, read_only: bool, make: bool) -> None:
        with self.reading() as connection:
            found = _version(connection)
            if found is None and self.is_sqlite and make:
                _check_unused(connection, self.place)
        if found != SCHEMA and not make:
            what = "is no journal" if found is None else f"is of form {found}, this Airlock reads {SCHEMA}"
            raise JournalError(f"{self.place}: {what}; `airlock serve` makes and migrates journals")
        if self.is_sqlite and not read_only:
            self._pragma("journal_mode=WAL")
        if found != SCHEMA:
            self._migrate(found)
        if not read_only:
            self._check_key()

    def _migrate(self, found: str | None) -> None:
        from guard.journal.migrations import upgrade

        with self._engine.begin() as connection:
            upgrade(connection, self.keys, found, self.place)

    def _check_key(self) -> None:
        """Go on with the key that the chain has, or write down that it is another one from here on."""
        with self.appending() as ledger:
            head = ledger.head
            keyed = head.seal.startswith(KEYED)
            if keyed and not self.keys.sign:
                raise JournalError(
                    f"{self.place}: its records are keyed; name the variable of the key: journal.key_env"
                )
            if not is_sealed(head, self.keys):
                raise JournalError(
                    f"{self.place}: the end of its chain was changed, or its key is not in the variable of "
                    "journal.key_env (older keys stand behind the new one); see `airlock journal verify`"
                )
            if head.seal != sealed(head.seq, head.hash, head.pruned, self.keys).seal:
                ledger.append([draft(Kind.KEY, {"keyed_before": keyed})])


def place(settings: JournalSection) -> str:
    """The journal's setting and value, as errors name it.

    Raises:
        ConfigError: there is no journal.
    """
    if settings.url is not None:
        return f"journal.url = {settings.url}"
    if settings.path is None:
        raise ConfigError("journal.path = null: there is no journal; name a file, or a database in journal.url")
    return f"journal.path = {settings.path}"


def read_head(connection: sa.Connection) -> Head | None:
    """The end of the chain; None where somebody removed it."""
    row = connection.execute(_READ_HEAD).first()
    return Head(*row) if row else None


def reason(exc: SQLAlchemyError) -> str:
    """What the database said, in one line and without the values of the statement, which may quote a prompt."""
    if isinstance(exc, DBAPIError) and exc.orig is not None:
        lines = str(exc.orig).splitlines() or [""]
        return f"{type(exc.orig).__name__}: {lines[0][:200]}"
    return type(exc).__name__


def is_of_all(exc: Exception) -> bool:
    """Whether it happened to all records of a transaction alike: the connection broke, or it took too long."""
    if not isinstance(exc, DBAPIError):
        return False
    return exc.connection_invalidated or getattr(exc.orig, "sqlstate", None) in _IN_VAIN


def _locked_head(connection: sa.Connection) -> Head:
    if connection.dialect.name != "sqlite":  # SQLite's transaction has the lock already
        connection.execute(_LOCK_HEAD)
    head = read_head(connection)
    if head is None:
        raise JournalError("the head of the journal is missing; see `airlock journal verify`")
    return head


def _row(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("seq", "time", "kind", "decision", "payload", "previous", "hash")}


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _check_unused(connection: sa.Connection, named: str) -> None:
    """Refuse a file of something else."""
    tables = set(sa.inspect(connection).get_table_names()) - {"decisions", "outcomes"}  # of the first journals
    if tables:
        raise JournalError(f"{named}: is a database of something else (table {min(tables)}); name another file")


def select_records(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[Record]:
    """Records in order, a thousand at a time, so that a journal of any size can be read.

    They begin with those that somebody added before the first, so that whoever reads them all sees these too.
    """
    chosen = sa.select(journal).where(*conditions).order_by(journal.c.seq).limit(_CHUNK)
    following = chosen
    while True:
        rows: Sequence[sa.Row[Any]] = connection.execute(following).all()
        for row in rows:
            yield Record(row.seq, row.time, row.kind, row.decision, row.payload, row.previous, row.hash)
        if len(rows) < _CHUNK:
            return
        following = chosen.where(journal.c.seq > rows[-1].seq)


def between(since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    """Conditions of the records from one moment on and before another (Unix time)."""
    begins = [] if since is None else [journal.c.time >= since]
    ends = [] if until is None else [journal.c.time < until]
    return [*begins, *ends]
