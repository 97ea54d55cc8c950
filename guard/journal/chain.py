"""The chain: each record's hash covers the record before, keyed when the operator has a key."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass

from guard.errors import JournalError
from guard.journal.records import Draft, Record, canonical

GENESIS = "0" * 64  # what the first record says of the one before
PLAIN, KEYED = "sha256:", "hmac-sha256:"
_KEY_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain, kept beside it, so that a missing tail is noticed.

    Attributes:
        seq: number of the last record; 0 when there is none.
        hash: of the last record.
        pruned: retention deleted the records up to this number.
        seal: hash of the three, with the same key as the records.
    """

    seq: int
    hash: str
    pruned: int
    seal: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Keys:
    """What hashes are keyed with.

    Attributes:
        sign: key of new records; None for plain SHA-256, which who can write the database can forge.
        older: keys that records may have been written with before.
    """

    sign: bytes | None = None
    older: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, setting: str, variable: str | None) -> Keys:
        """The keys in an environment variable: the first signs, those after white space only verify.

        Raises:
            JournalError: the variable is empty, or a key is short.
        """
        if variable is None:
            return cls()
        words = [word.encode() for word in os.environ.get(variable, "").split()]
        if not words or min(map(len, words)) < _KEY_CHARACTERS:
            raise JournalError(
                f"{setting} = {variable}: the environment variable must hold a key of at least {_KEY_CHARACTERS} "
                "characters; make one with `openssl rand -hex 32`"
            )
        return cls(words[0], tuple(words[1:]))

    def digest(self, value: object) -> str:
        """Hash of a value that JSON can hold, with the key that signs."""
        return _digest(value, self.sign)

    def match(self, value: object, found: str) -> bool:
        """Whether a hash is that of a value, with any of the keys, or plain."""
        keys: tuple[bytes | None, ...] = (None,)
        if found.startswith(KEYED):
            keys = (self.sign, *self.older) if self.sign else ()
        wanted = found.encode("utf-8", "replace")
        return any(hmac.compare_digest(_digest(value, key).encode(), wanted) for key in keys)


def hashed(data: bytes, key: bytes | None) -> str:
    """A hash, with what it was made by."""
    if key is None:
        return PLAIN + hashlib.sha256(data).hexdigest()
    return KEYED + hmac.new(key, data, hashlib.sha256).hexdigest()


def link(drafts: Iterable[Draft], head: Head, keys: Keys, now: float) -> tuple[list[Record], Head]:
    """The records that follow a head, and the head that they lead to."""
    records = []
    seq, previous = head.seq, head.hash
    for each in drafts:
        seq += 1
        time = now if each.time is None else each.time
        found = keys.digest(_covered(seq, time, each.kind.value, each.decision, each.payload, previous))
        records.append(Record(seq, time, each.kind.value, each.decision, each.payload, previous, found))
        previous = found
    return records, sealed(seq, previous, head.pruned, keys)


def sealed(seq: int, last: str, pruned: int, keys: Keys) -> Head:
    """A head with its seal."""
    return Head(seq, last, pruned, keys.digest(["head", seq, last, pruned]))


def is_sound(record: Record, keys: Keys) -> bool:
    """Whether a record's hash is that of its content."""
    covered = _covered(record.seq, record.time, record.kind, record.decision, record.payload, record.previous)
    try:
        return keys.match(covered, record.hash)
    except (TypeError, ValueError):  # a value that no record has, such as bytes
        return False


def is_sealed(head: Head, keys: Keys) -> bool:
    """Whether a head's seal is that of its content."""
    try:
        return keys.match(["head", head.seq, head.hash, head.pruned], head.seal)
    except (TypeError, ValueError):
        return False


def _covered(seq: int, time: float, kind: str, decision: str | None, payload: str, previous: str) -> list[object]:
    return ["record", seq, time, kind, decision, payload, previous]


def _digest(value: object, key: bytes | None) -> str:
    return hashed(canonical(value).encode("utf-8", "surrogatepass"), key)
