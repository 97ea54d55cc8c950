"""Replay: what another policy would have decided on requests of the past; no model is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from classifier.types import ClassifierError
from guard.config import Config
from guard.edition import Edition
from guard.engine import ON_ERROR
from guard.errors import JournalError
from guard.journal.content import judgements
from guard.journal.records import Record
from guard.output import AllChecks
from guard.types import AnswerGrounding, Origin
from guard.wires import BY_ENDPOINT

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a policy says of a request."""

    route: str
    rule: str
    ground_answer: str

    def as_dict(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


@dataclass(slots=True)
class Change:
    """Decisions that one ruling was given to, and that would get another."""

    before: Ruling
    after: Ruling
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "from": self.before.as_dict(),
            "to": self.after.as_dict(),
            "count": self.count,
            "examples": self.examples,
        }


@dataclass(slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        decisions: records of decisions that were read.
        replayed: how many the policy was asked about.
        left_out: of those not, how many for which reason.
        partial: of those replayed, how many with some texts left out of their record.
        changes: by old and new ruling, the most frequent first.
    """

    decisions: int = 0
    replayed: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    partial: int = 0
    changes: list[Change] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many would get another route, rule or `ground_answer`."""
        return sum(change.count for change in self.changes)

    @property
    def rerouted(self) -> int:
        """How many would get another route."""
        return sum(change.count for change in self.changes if change.before.route != change.after.route)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "decisions": self.decisions,
            "replayed": self.replayed,
            "partial": self.partial,
            "left_out": dict(self.left_out),
            "changed": self.changed,
            "rerouted": self.rerouted,
            "changes": [change.as_dict() for change in self.changes],
        }


def replay(records: Iterable[Record], config: Config) -> Replayed:
    """Ask a policy about the verdicts that records of decisions keep.

    Compared is what the policies say. What followed (an abstention, a failed part, a finding in an assistant's turn) is
    not known of the other policy.

    Raises:
        JournalError: a record is damaged.
    """
    edition = Edition.of(config, AllChecks([]))
    result = Replayed()
    changes: dict[tuple[Ruling, Ruling], Change] = {}
    for record in records:
        result.decisions += 1
        content = record.content
        reason = _not_replayed(content)
        if reason:
            result.left_out[reason] += 1
            continue
        result.replayed += 1
        result.partial += bool(content.get("texts_left_out"))
        before, after = _before(content), _after(edition, record, content)
        if before != after:
            change = changes.setdefault((before, after), Change(before, after))
            change.count += 1
            if len(change.examples) < _EXAMPLES:
                change.examples.append(record.decision or "")
    result.changes = sorted(changes.values(), key=lambda change: -change.count)
    return result


def _not_replayed(content: Mapping[str, Any]) -> str | None:
    if content.get("rule") == ON_ERROR:
        return "a part failed"
    if content.get("judged") == "assistant_turn":
        return "an assistant's turn was refused"
    if not content.get("tier"):
        return "no text was judged"
    if not content.get("texts") or not content.get("ruled"):
        return "written before verdicts were kept"
    return None


def _before(content: Mapping[str, Any]) -> Ruling:
    """What the policy said then; `ground_answer` counts only where the request was to be forwarded."""
    return Ruling(content["ruled"], content["rule"], content.get("ground_answer", "off"))


def _after(edition: Edition, record: Record, content: Mapping[str, Any]) -> Ruling:
    try:
        judged = judgements(content)
        texts = [(each.where, "") for each in judged]  # the texts are not kept, and the policy does not read them
        origin = Origin(content["tenant"], content["model_asked"], content["endpoint"])
        rule = edition.weigh(texts, [each.verdict for each in judged], origin).strictest.match.rule
    except (ClassifierError, KeyError, TypeError, ValueError) as exc:
        raise JournalError(f"record {record.seq} cannot be replayed ({exc}); see `airlock journal verify`") from exc
    wire = BY_ENDPOINT.get(origin.endpoint)
    grounding = rule.ground_answer if wire is None or wire.answers else AnswerGrounding.OFF
    return Ruling(rule.route.value, rule.name, grounding.value)
