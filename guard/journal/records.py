"""What a record of the journal is, and its canonical form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from guard.errors import JournalError


class Kind(StrEnum):
    """What a record says."""

    DECISION = "decision"
    OUTCOME = "outcome"  # how the request ended
    REVIEW = "review"  # a person claimed or resolved a request that was handed over
    CHECKPOINT = "checkpoint"  # older records were deleted by retention
    GAP = "gap"  # records could not be written
    KEY = "key"  # from here on, hashes are keyed by another key
    IMPORT = "import"  # the records before were taken over from a journal without hashes


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it has a place in the chain.

    Attributes:
        kind: what it says.
        payload: the rest of it, as canonical JSON.
        decision: id of the decision that it is about.
        time: Unix time; None for the moment of writing.
    """

    kind: Kind
    payload: str
    decision: str | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the journal.

    Attributes:
        seq: its number, from 1 on, without a gap.
        time: when it was written, Unix time.
        kind: a `Kind`, unless somebody changed it.
        decision: id of the decision that it is about.
        payload: canonical JSON.
        previous: hash of the record before.
        hash: of all that, as ``sha256:`` or ``hmac-sha256:`` and 64 digits.
    """

    seq: int
    time: float
    kind: str
    decision: str | None
    payload: str
    previous: str
    hash: str

    @property
    def content(self) -> dict[str, Any]:
        """The payload as an object.

        Raises:
            JournalError: it is damaged.
        """
        try:
            content = json.loads(self.payload)
        except (TypeError, ValueError, RecursionError) as exc:
            raise JournalError(f"record {self.seq} is damaged; see `airlock journal verify`") from exc
        if not isinstance(content, dict):
            raise JournalError(f"record {self.seq} is damaged; see `airlock journal verify`")
        return content

    def as_dict(self) -> dict[str, Any]:
        """The form of exports."""
        return {**asdict(self), "payload": self.content}


def draft(kind: Kind, content: Mapping[str, Any], decision: str | None = None, time: float | None = None) -> Draft:
    """A record to be written.

    Raises:
        JournalError: the content cannot be written as JSON in UTF-8.
    """
    try:
        payload = canonical(content)
        payload.encode()
    except (TypeError, ValueError) as exc:
        raise JournalError(f"a record of kind {kind} cannot be written ({type(exc).__name__})") from exc
    return Draft(kind, payload, decision, time)


def canonical(value: object) -> str:
    """JSON with sorted keys and without white space: one text for one value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
