"""Verification: whether records were changed, removed, added or put in another order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from guard.errors import BadRequest, JournalError
from guard.journal.chain import GENESIS, KEYED, Head, Keys, is_sealed, is_sound
from guard.journal.records import Kind, Record

_SHOWN = 20  # problems that a report names


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that was kept elsewhere: the chain must still have that record."""

    seq: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """From ``NUMBER:HASH``, as verification prints it.

        Raises:
            BadRequest: the text is something else.
        """
        number, _, found = text.partition(":")
        if not number.isdecimal() or not found:
            raise BadRequest(f"--head {text}: need NUMBER:HASH, as `airlock journal verify` prints it")
        return cls(int(number), found)


@dataclass(slots=True)
class Report:
    """What verification found.

    Attributes:
        records: how many were read.
        first: number of the first; 0 without any.
        keyed: how many have a keyed hash.
        pruned: retention deleted the records up to this number.
        head: the end of the chain, to be kept elsewhere.
        problems: how many there are.
        shown: the first of them, in words.
    """

    records: int = 0
    first: int = 0
    keyed: int = 0
    pruned: int = 0
    head: str = ""
    problems: int = 0
    shown: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(self, problem: str) -> None:
        """Note a problem."""
        self.problems += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(problem)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {"sound": self.sound, **asdict(self)}


def verify(records: Iterable[Record], head: Head | None, keys: Keys, anchor: Anchor | None = None) -> Report:
    """Read the chain from its first record to its last.

    A missing tail shows by the head, which is kept beside the records. Who can write both can put an older state of
    both back, so only an `anchor` that was kept elsewhere finds that.
    """
    check = _Check(keys, anchor)
    for record in records:
        check.read(record)
    return check.end(head)


class _Check:
    """One pass over a chain."""

    def __init__(self, keys: Keys, anchor: Anchor | None) -> None:
        self._keys = keys
        self._anchor = anchor
        self._anchored = False
        self._last: Record | None = None
        self._before_first = GENESIS  # what the first record says of the one before
        self._cut: tuple[int, str] | None = None  # what the last checkpoint signs off
        self._misfits = 0  # keyed records whose hash is not what the key makes of them
        self.report = Report()

    def read(self, record: Record) -> None:
        """The next record."""
        report, last = self.report, self._last
        report.records += 1
        if record.seq < 1:
            report.add(f"record {record.seq} was added: the first one is 1")
            return
        if last is None:
            report.first, self._before_first = record.seq, record.previous
        elif record.seq != last.seq + 1:
            report.add(f"records {last.seq + 1} to {record.seq - 1} are missing")
        elif record.previous != last.hash:
            report.add(f"record {record.seq} does not follow record {last.seq}")
        self._check_hash(record, last)
        if self._anchor and record.seq == self._anchor.seq:
            self._anchored = True
            if record.hash != self._anchor.hash:
                report.add(f"record {record.seq} is not the one of --head")
        if record.kind == Kind.CHECKPOINT:
            self._read_checkpoint(record)
        self._last = record

    def end(self, head: Head | None) -> Report:
        """What is known once all records were read."""
        self._check_beginning(head)
        if head is None:
            self.report.add("the head is missing")
        else:
            self._check_head(head)
        fits = head is not None and head.seal.startswith(KEYED) and is_sealed(head, self._keys)
        if 1 < self._misfits == self.report.keyed and not fits:
            self._blame_key()
        return self.report

    def _check_head(self, head: Head) -> None:
        report, last = self.report, self._last
        report.head, report.pruned = str(head), head.pruned
        if not is_sealed(head, self._keys):
            report.add(f"the head was changed{self._hint(head.seal)}")
        seq, found = (last.seq, last.hash) if last else (0, GENESIS)
        if (head.seq, head.hash) != (seq, found):
            report.add(f"the head names record {head.seq}, the last one is {seq}: the end is missing or was added to")
        if self._keys.sign and not head.seal.startswith(KEYED):
            report.add("the head is not keyed")
        if self._keys.sign and last and not last.hash.startswith(KEYED):
            report.add(f"record {last.seq}, the last one, is not keyed")
        if self._anchor and not self._anchored:
            self._check_absent_anchor(self._anchor, seq)

    def _check_hash(self, record: Record, last: Record | None) -> None:
        keyed = record.hash.startswith(KEYED)
        self.report.keyed += keyed
        if not is_sound(record, self._keys):
            self._misfits += keyed
            self.report.add(f"record {record.seq} was changed{self._hint(record.hash)}")
        elif last and last.hash.startswith(KEYED) and not keyed:
            self.report.add(f"record {record.seq} is not keyed, though the one before is")

    def _hint(self, found: str) -> str:
        if not found.startswith(KEYED):
            return ""
        return ", or the key is another one" if self._keys.sign else ", or not: its key is needed (journal.key_env)"

    def _blame_key(self) -> None:
        """Say once, in place of each record, that nothing which is keyed fits the key."""
        report, hint = self.report, self._hint(KEYED)
        if self._keys.sign:
            said = "was written with the key of journal.key_env: that is another one, or all of it was written anew"
        else:
            said = "can be checked: its key is needed (journal.key_env)"
        others = [problem for problem in report.shown if not problem.endswith(hint)]
        report.shown = [f"none of the {report.keyed} keyed records {said}", *others]

    def _read_checkpoint(self, record: Record) -> None:
        try:
            content = record.content
            self._cut = (int(content["through"]), str(content["hash"]))
        except (JournalError, KeyError, TypeError, ValueError):
            self.report.add(f"record {record.seq} is no checkpoint")

    def _check_beginning(self, head: Head | None) -> None:
        report = self.report
        if self._last is None:
            return
        if self._cut is None:
            if report.first != 1:
                report.add(f"records 1 to {report.first - 1} are missing")
            elif self._before_first != GENESIS:
                report.add("record 1 is not the beginning")
            return
        through, found = self._cut
        if report.first > through + 1:
            report.add(f"records {through + 1} to {report.first - 1} are missing")
        elif report.first == through + 1 and self._before_first != found:
            report.add(f"record {report.first} does not follow the record {through} that was deleted")
        elif report.first == 1 and self._before_first != GENESIS:
            report.add("record 1 is not the beginning")
        if head and head.pruned != through:
            report.add(f"the head says that records up to {head.pruned} were deleted, the last checkpoint {through}")

    def _check_absent_anchor(self, anchor: Anchor, last: int) -> None:
        through = self._cut[0] if self._cut else 0
        known = dict([(0, GENESIS), *([self._cut] if self._cut else [])])  # hashes that are known without their records
        if anchor.seq > last:
            self.report.add(f"--head names record {anchor.seq}, the last one is {last}: the end is missing")
        elif known.get(anchor.seq, anchor.hash) != anchor.hash:
            what = "which was deleted, was" if anchor.seq else "the beginning, is"
            self.report.add(f"record {anchor.seq}, {what} not the one of --head")
        elif anchor.seq not in known and anchor.seq < through:
            self.report.add(
                f"record {anchor.seq}, the one of --head, was deleted with those up to {through}: nothing can be "
                "compared with it; keep a head that is younger than what is deleted"
            )
