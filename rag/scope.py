"""Which documents a search looks at: current, not expired, of one id or with some metadata."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Where = Mapping[str, Sequence[str]]  # metadata entry to the values of which it must have one


@dataclass(frozen=True, slots=True)
class Scope:
    """A condition in SQL on a document `d`, with the values of its placeholders.

    Attributes:
        condition: true for the documents that are looked at.
        values: of its placeholders.
        narrow: whether it asks for more than that a document is current and not expired.
        now: seconds since 1970; what expired before is out of scope.
    """

    condition: str
    values: tuple[str | float, ...]
    narrow: bool
    now: float

    @classmethod
    def make(cls, now: float, *, document: str | None = None, where: Where | None = None) -> Scope:
        """The documents that are current at a time; of one id and with each of the metadata entries, if given."""
        conditions = ["d.died IS NULL AND (d.expires IS NULL OR d.expires > ?)"]
        values: list[str | float] = [now]
        if document is not None:
            conditions.append("d.id = ?")
            values.append(document)
        for key, wanted in (where or {}).items():
            places = ", ".join("?" * len(wanted))
            conditions.append(f"d.row IN (SELECT document FROM entries WHERE key = ? AND value IN ({places}))")
            values += [key, *wanted]
        return cls(" AND ".join(conditions), tuple(values), len(conditions) > 1, now)

    def allowed(self, connection: sqlite3.Connection) -> NDArray[np.int64] | None:
        """The rows of the documents in scope; None if it is not narrow, when all are but the expired ones."""
        if not self.narrow:
            return None
        return _rows(connection, f"SELECT d.row FROM documents AS d WHERE {self.condition}", self.values)

    def count(self, connection: sqlite3.Connection) -> int:
        """How many documents with a passage are in scope."""
        has_passage = "EXISTS (SELECT 1 FROM passages WHERE document = d.row)"
        query = f"SELECT count(*) FROM documents AS d WHERE {self.condition} AND {has_passage}"
        (found,) = connection.execute(query, self.values).fetchone()
        return int(found)

    def expired(self, connection: sqlite3.Connection) -> NDArray[np.int64]:
        """The rows of the current documents that have expired."""
        return _rows(connection, "SELECT row FROM documents WHERE died IS NULL AND expires <= ?", (self.now,))


def _rows(connection: sqlite3.Connection, query: str, values: Sequence[str | float]) -> NDArray[np.int64]:
    return np.fromiter((row for (row,) in connection.execute(query, values)), dtype=np.int64)
