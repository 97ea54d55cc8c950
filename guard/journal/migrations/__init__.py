"""The schema of the journal, step by step (Alembic)."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError

from guard.errors import JournalError
from guard.journal.chain import Keys

_LOCK = 0x41697262  # any number, the same in every Airlock


def upgrade(connection: sa.Connection, keys: Keys, found: str | None, place: str) -> None:
    """Bring a database to the newest form, within the connection's transaction; two at once take turns.

    Args:
        connection: its transaction is the migration's: all of it, or nothing.
        keys: for records that are taken over from older journals.
        found: the form that it has.
        place: the setting and its value, for errors.

    Raises:
        JournalError: it is of a newer form.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    config = configuration()
    config.attributes.update(connection=connection, keys=keys)
    try:
        if found is not None:
            ScriptDirectory.from_config(config).get_revision(found)
        command.upgrade(config, "head")
    except (CommandError, ResolutionError) as exc:
        raise JournalError(
            f"{place}: is of form {found}, of a newer Airlock; install that one, or name another"
        ) from exc


def configuration() -> Config:
    """Alembic's configuration."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
