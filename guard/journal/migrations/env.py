"""Alembic's entry: migrate on the connection that `upgrade` was given."""

from __future__ import annotations

from alembic import context

from guard.journal.database import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
