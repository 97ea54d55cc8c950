"""The review queue: requests that were handed over, until a person has claimed and resolved them.

The queue is read from the records; each step is a record of its own. So nobody can take a step back unseen.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from guard.errors import BadRequest
from guard.journal.database import Database, Ledger, journal, select_records
from guard.journal.records import Kind, Record, draft
from guard.types import Route

_NOTE = 10_000  # characters


class State(StrEnum):
    """How far a review is."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Review:
    """A request that was handed over.

    Attributes:
        decision: the record of the decision.
        steps: the records of its review, in order.
    """

    decision: Record
    steps: tuple[Record, ...] = ()

    @property
    def state(self) -> State:
        """How far it is."""
        return State(self.steps[-1].content["state"]) if self.steps else State.WAITING

    @property
    def by(self) -> str | None:
        """Who took the last step."""
        return str(self.steps[-1].content["by"]) if self.steps else None

    def as_dict(self) -> dict[str, Any]:
        """For programs: the decision as it was written, and each step."""
        said = self.decision.content
        return {
            "decision": self.decision.decision,
            "state": self.state.value,
            "by": self.by,
            "time": self.decision.time,
            "waited_s": round(max(0.0, time.time() - self.decision.time), 1),
            "record": said,
            "steps": [{"time": step.time, **step.content} for step in self.steps],
        }


def waiting(connection: sa.Connection, *, through: int | None = None) -> list[Review]:
    """The reviews that nobody resolved, oldest first; `through` leaves out the decisions after that record."""
    return [each for each in reviews(connection, through=through) if each.state is not State.RESOLVED]


def reviews(connection: sa.Connection, *, through: int | None = None) -> list[Review]:
    """Every request that was handed over, oldest first."""
    chosen = [journal.c.kind == Kind.DECISION.value, journal.c.payload.contains(f'"route":"{Route.HAND_OVER.value}"')]
    if through is not None:
        chosen.append(journal.c.seq.between(1, through))
    steps: dict[str | None, list[Record]] = {}
    for record in select_records(connection, journal.c.kind == Kind.REVIEW.value):
        steps.setdefault(record.decision, []).append(record)
    return [
        Review(record, tuple(steps.get(record.decision, ())))
        for record in select_records(connection, *chosen)
        if record.content.get("route") == Route.HAND_OVER.value
    ]


def find(connection: sa.Connection, decision: str) -> Review:
    """The review of a decision.

    Raises:
        BadRequest: there is none.
    """
    found = list(select_records(connection, journal.c.decision == decision))
    decisions = [record for record in found if record.kind == Kind.DECISION]
    if not decisions:
        raise BadRequest(
            f"decision {decision} is not in the journal; `airlock journal review list` names those that are"
        )
    if decisions[0].content.get("route") != Route.HAND_OVER.value:
        raise BadRequest(f"decision {decision} was not handed over; its route is {decisions[0].content.get('route')}")
    return Review(decisions[0], tuple(record for record in found if record.kind == Kind.REVIEW))


def claim(database: Database, decision: str, by: str, *, take_over: bool = False) -> Review:
    """Say who looks at a request.

    Raises:
        BadRequest: there is no such request, it is resolved, or somebody else has it and `take_over` is not set.
        JournalError: it could not be written.
    """
    with database.changing() as ledger:
        review = find(ledger.connection, decision)
        _check_open(review)
        if review.state is State.CLAIMED and (review.by == by or not take_over):
            hint = "" if review.by == by else "; --take-over takes it over"
            raise BadRequest(f"decision {decision} is claimed by {review.by}{hint}")
        return _appended(ledger, review, State.CLAIMED, by, None)


def resolve(database: Database, decision: str, by: str, note: str) -> Review:
    """Say what became of a request; who resolves it has claimed it.

    Raises:
        BadRequest: there is no such request, it is resolved, somebody else has it, nobody has, or there is no note.
        JournalError: it could not be written.
    """
    if not note.strip() or len(note) > _NOTE:
        raise BadRequest(f"a note has 1 to {_NOTE} characters that say what was done")
    with database.changing() as ledger:
        review = find(ledger.connection, decision)
        _check_open(review)
        if review.state is State.WAITING or review.by != by:
            how = f"airlock journal review claim {decision} --by {shlex.quote(by)}"
            if review.by:
                how += " --take-over"
            raise BadRequest(f"decision {decision} is claimed by {review.by or 'nobody'}; claim it first: `{how}`")
        return _appended(ledger, review, State.RESOLVED, by, note)


def _check_open(review: Review) -> None:
    if review.state is State.RESOLVED:
        raise BadRequest(f"decision {review.decision.decision} was resolved by {review.by}")


def _appended(ledger: Ledger, review: Review, state: State, by: str, note: str | None) -> Review:
    content = {"state": state.value, "by": by, "note": note}
    records: Sequence[Record] = ledger.append([draft(Kind.REVIEW, content, review.decision.decision)])
    return Review(review.decision, (*review.steps, *records))
