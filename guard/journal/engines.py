"""How a journal is connected to: SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from guard.errors import ConfigError, JournalError
from guard.journal.settings import JournalSection

READS = "airlock_reads"  # option of a connection that only reads
_STATEMENT_S = 30.0  # of PostgreSQL; a lock is given up sooner, and to read may take any time
_SILENCE = {  # 15 s without an answer of PostgreSQL's machine, whether something was sent or not; an address may differ
    "tcp_user_timeout": 15_000,  # ms
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


def engine_of(settings: JournalSection, *, read_only: bool, make: bool, timeout_s: float) -> sa.Engine:
    """What opens connections to a journal; each transaction of SQLite has the lock from its beginning, unless it reads.

    Raises:
        JournalError: its file cannot be opened or made.
        ConfigError: the driver for PostgreSQL is missing, or the address is none.
    """
    if settings.url is not None:
        return _postgres(settings.url, timeout_s)
    assert settings.path is not None
    return _sqlite(settings.path, settings.sync, read_only=read_only, make=make, timeout_s=timeout_s)


def _sqlite(path: Path, sync: bool, *, read_only: bool, make: bool, timeout_s: float) -> sa.Engine:
    try:
        if not make:
            path.stat()
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # made for the owner only; SQLite gives its other files the same mode
    except FileNotFoundError as exc:
        raise JournalError(f"journal.path = {path}: there is none yet; `airlock serve` makes it") from exc
    except OSError as exc:
        raise _unusable(path, exc) from exc
    mode = "ro" if read_only else "rw"
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=path.absolute().as_uri(), query={"mode": mode, "uri": "true"}),
        connect_args={"timeout": timeout_s, "isolation_level": None},
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's
        if read_only:
            return
        try:
            connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            connection.execute("PRAGMA secure_delete=ON")  # what retention deletes is overwritten
        except sqlite3.Error as exc:
            raise _unusable(path, exc) from exc

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reads = read_only or connection.get_execution_options().get(READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _unusable(path: Path, exc: Exception) -> JournalError:
    return JournalError(f"journal.path = {path}: cannot be opened as a journal ({exc}); name another file")


def _postgres(url: str, timeout_s: float) -> sa.Engine:
    try:
        import psycopg
    except ModuleNotFoundError as exc:
        raise ConfigError(f"journal.url = {url}: needs psycopg; pip install 'llm-airlock[postgres]'") from exc
    try:
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
    except (SQLAlchemyError, ValueError) as exc:
        raise ConfigError(f"journal.url = {url}: is no address such as postgresql://user@host/database") from exc
    silence = {name: value for name, value in _SILENCE.items() if name not in address.query}
    engine = sa.create_engine(
        address,
        connect_args={"connect_timeout": max(2, round(timeout_s)), **silence},
        pool_pre_ping=True,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's
        try:
            connection.execute(f"SET lock_timeout = {round(timeout_s * 1000)}")
            connection.execute(f"SET statement_timeout = {round(_STATEMENT_S * 1000)}")
            connection.commit()
        except psycopg.Error as exc:
            raise JournalError(f"journal.url = {url}: {type(exc).__name__}") from exc

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get(READS):
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    return engine
