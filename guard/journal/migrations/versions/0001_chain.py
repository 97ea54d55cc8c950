"""One table of chained records that refuses changes; the records of the first journals are taken over.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from guard.errors import JournalError
from guard.journal.chain import GENESIS, Keys, link, sealed
from guard.journal.records import Draft, Kind, Record, draft

revision = "0001"
down_revision = None

_BATCH = 500
_REFUSED = "the journal is append-only"
_SQLITE = (
    f"CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
    "CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal "
    "WHEN OLD.seq > (SELECT pruned FROM journal_head) "
    f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
    f"CREATE TRIGGER journal_head_stays BEFORE DELETE ON journal_head BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
)
_POSTGRES = (
    "CREATE FUNCTION journal_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$",
    "CREATE FUNCTION journal_refuse_unpruned() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"IF OLD.seq > (SELECT pruned FROM journal_head) THEN RAISE EXCEPTION '{_REFUSED}'; END IF; RETURN OLD; END $$",
    "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal FOR EACH ROW EXECUTE FUNCTION journal_refuse()",
    "CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal FOR EACH ROW EXECUTE FUNCTION journal_refuse_unpruned()",
    "CREATE TRIGGER journal_no_truncate BEFORE TRUNCATE ON journal EXECUTE FUNCTION journal_refuse()",
    "CREATE TRIGGER journal_head_stays BEFORE DELETE ON journal_head FOR EACH ROW EXECUTE FUNCTION journal_refuse()",
    "CREATE TRIGGER journal_head_no_truncate BEFORE TRUNCATE ON journal_head EXECUTE FUNCTION journal_refuse()",
)
_OLD = """
SELECT at, 'decision', id, record, prompt FROM (SELECT created AS at, id, record, prompt FROM decisions)
UNION ALL
SELECT COALESCE(d.created + COALESCE(o.milliseconds, 0) / 1000.0, 0.0), 'outcome', o.decision,
       json_object('outcome', o.outcome, 'status', o.status, 'detail', o.detail, 'milliseconds', o.milliseconds), NULL
FROM outcomes o LEFT JOIN decisions d ON d.id = o.decision
ORDER BY 1, 2
"""


def upgrade() -> None:
    """Make the tables, fill them, then lock them."""
    connection = op.get_bind()
    keys: Keys = context.config.attributes["keys"]
    sqlite = connection.dialect.name == "sqlite"
    _make_tables(sqlite)
    head = sealed(0, GENESIS, 0, keys)
    if sqlite and {"decisions", "outcomes"} <= set(sa.inspect(connection).get_table_names()):
        batch: list[Draft] = []
        count = 0
        for each in _taken_over(connection):
            batch.append(each)
            count += 1
            if len(batch) == _BATCH:
                records, head = link(batch, head, keys, 0.0)
                _insert(connection, records)
                batch = []
        records, head = link([*batch, draft(Kind.IMPORT, {"records": count})], head, keys, _now())
        _insert(connection, records)
        op.drop_table("outcomes")
        op.drop_table("decisions")
    row = {"one": 1, "seq": head.seq, "hash": head.hash, "pruned": head.pruned, "seal": head.seal}
    connection.execute(
        sa.text("INSERT INTO journal_head (one, seq, hash, pruned, seal) VALUES (:one, :seq, :hash, :pruned, :seal)"),
        row,
    )
    for statement in _SQLITE if sqlite else _POSTGRES:
        op.execute(statement)


def _make_tables(sqlite: bool) -> None:
    op.create_table(
        "journal",
        sa.Column("seq", sa.Integer() if sqlite else sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text()),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
    )
    op.create_index("ix_journal_time", "journal", ["time"])
    op.create_index("ix_journal_decision", "journal", ["decision"])
    only = sa.text("kind = 'decision'")
    op.create_index(
        "journal_one_decision", "journal", ["decision"], unique=True, sqlite_where=only, postgresql_where=only
    )
    op.create_table(
        "journal_head",
        sa.Column("one", sa.Integer(), sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("pruned", sa.BigInteger(), nullable=False),
        sa.Column("seal", sa.Text(), nullable=False),
    )


def _taken_over(connection: sa.Connection) -> Iterator[Draft]:
    for at, kind, decision, text, prompt in connection.exec_driver_sql(_OLD).yield_per(_BATCH):
        try:
            content: dict[str, Any] = json.loads(text)
        except ValueError as exc:
            raise JournalError(
                f"decision {decision} cannot be taken over from the older journal: it is damaged"
            ) from exc
        if kind == "decision":
            content |= {"prompt": prompt, "prompts": "imported", "created": at}
        yield draft(Kind(kind), content, decision, at)


def _insert(connection: sa.Connection, records: list[Record]) -> None:
    statement = sa.text(
        "INSERT INTO journal (seq, time, kind, decision, payload, previous, hash) "
        "VALUES (:seq, :time, :kind, :decision, :payload, :previous, :hash)"
    )
    names = ("seq", "time", "kind", "decision", "payload", "previous", "hash")
    connection.execute(statement, [{name: getattr(record, name) for name in names} for record in records])


def _now() -> float:
    import time

    return time.time()
