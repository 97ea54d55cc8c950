"""What was decided on a request, and what the engine needs of its parts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from classifier.types import Exchange, Tier, Verdict
from rag.types import Citation, GroundedAnswer, GroundingReport


class Route(StrEnum):
    """What becomes of a request."""

    FORWARD = "forward"  # the application's own model answers
    GROUND = "ground"  # answered from the knowledge base
    REFUSE = "refuse"  # refused; the model is not called
    HAND_OVER = "hand_over"  # a holding answer; a person takes over


class TextKind(StrEnum):
    """Which text of a request was judged."""

    LAST_TURN = "last_turn"  # what the user wrote last; several messages in a row are one turn
    CONTEXT = "context"  # the last turns, taken together
    EARLIER_TURN = "earlier_turn"
    SYSTEM_MESSAGE = "system_message"  # where system messages are not trusted
    TOOL_RESULT = "tool_result"
    REQUEST_FIELD = "request_field"  # a field beside the conversation that is judged, or that nobody knows


class AnswerGrounding(StrEnum):
    """Whether a forwarded answer is held against the knowledge base, and what follows."""

    OFF = "off"
    ANNOTATE = "annotate"  # it leaves whole, with what the knowledge base says of each sentence
    REQUIRE = "require"  # only what the knowledge base supports leaves


Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
"""The roles of all wires."""
SYSTEM_ROLES: tuple[Role, ...] = ("system", "developer")
FIELD = "field"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, as the engine sees it; with the role `FIELD`, a text from beside it.

    Attributes:
        role: whose it is.
        text: what it says.
        name: of the field that it stands in, beside the conversation.
    """

    role: str
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, as far as it is known.

    Attributes:
        tenant: who sends it; None where nobody logs in.
        model: the model asked for.
        endpoint: the wire that it speaks: ``chat``, ``completions``, ``responses``, ``messages``, ``embeddings``, or
            Airlock's own.
    """

    tenant: str | None = None
    model: str = ""
    endpoint: str = "chat"


UNKNOWN = Origin()


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule in shadow mode that would have decided, and the route that it names."""

    rule: str
    route: Route


@dataclass(frozen=True, slots=True)
class Judgement:
    """One text of a request, and what the classifier says of it."""

    where: TextKind
    verdict: Verdict


def _unspoken() -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the answer to a request is held against; it stays in memory and is written nowhere.

    Attributes:
        prompt: the last turn.
        system: the system messages, in order.
        noticed: rules in shadow mode that would have stopped the answer, filled in as it comes.
    """

    prompt: str = ""
    system: str = ""
    noticed: dict[str, None] = field(default_factory=dict)
    _words: list[list[str]] = field(default_factory=list)

    def words(self, split: Callable[[str], list[str]]) -> list[str]:
        """The words of the system messages, split when they are first asked for."""
        if not self._words:
            self._words.append(split(self.system))
        return self._words[0]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on one request, why, and by which rule.

    Attributes:
        route: what becomes of the request.
        rule: name of the policy rule, or of the guard's own: ``on_error``, ``invalid_request``, ``open_path``.
        verdict: of the text that decided; None when nothing could be judged.
        judged: which text that was: a `TextKind`, or ``assistant_turn``.
        cause: why a part failed; None when none did.
        ground_answer: what becomes of the model's answer, when the request is forwarded.
        timings_ms: milliseconds by stage; the engine fills it in until the decision is written down.
        spoken: says what the user writes in; asked only where somebody wants to know.
        distress: category of a text that shows a person in distress, whatever decided; None where none does.
        protect: whether protective documents may be quoted beside the refusal.
        unjudged: what of the request goes on without having been judged: kinds of parts such as ``image_url``, and
            fields that name what the model's server keeps, such as ``previous_response_id``.
        removed: kinds of parts that could not be judged and were taken out.
        origin: where the request comes from.
        policy: version of the configuration that it was decided by; empty where it plays no part.
        shadow: the rules in shadow mode that would have decided.
        judgements: every text that was judged, whether it had a say or not; for replay.
        grounded: what the knowledge base gave, where it was asked: ``answered``, ``related`` (on the topic, and no sure
            answer) or ``abstained``.
        cited: addresses of the versions of documents that Airlock's answer quotes (`rag.types.address`).
        ruled: the policy's route, also where an abstention, a finding or a failure led to another.
        asked: what the answer is held against; None where answers are not.
        field_name: of the field beside the conversation in which the text that decided stands, or that was refused.
        id: written into the journal and the ``x-airlock-decision`` header.
        created: Unix time.
        since: the same moment on a clock that never jumps, for durations.
    """

    route: Route
    rule: str
    verdict: Verdict | None = None
    judged: str | None = None
    cause: str | None = None
    ground_answer: AnswerGrounding = AnswerGrounding.OFF
    timings_ms: dict[str, float] = field(default_factory=dict)
    spoken: Callable[[], str | None] = field(default=_unspoken, repr=False, compare=False)
    distress: str | None = None
    protect: bool = False
    unjudged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    origin: Origin = UNKNOWN
    policy: str = ""
    shadow: tuple[Shadow, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    grounded: str | None = None
    cited: tuple[str, ...] = ()
    ruled: Route | None = None
    asked: Asked | None = field(default=None, repr=False, compare=False)
    field_name: str | None = None
    id: str = field(default_factory=lambda: f"dec_{secrets.token_hex(12)}")
    created: float = field(default_factory=time.time)
    since: float = field(default_factory=time.perf_counter, repr=False, compare=False)

    @property
    def tier(self) -> Tier | None:
        """Of the verdict; None without one."""
        return self.verdict.tier if self.verdict else None

    @property
    def category(self) -> str | None:
        """Of the verdict; None without one."""
        return self.verdict.category if self.verdict else None

    @property
    def language(self) -> str | None:
        """What the user writes in (ISO 639-1); None where it is not known."""
        return self.spoken()

    def as_dict(self) -> dict[str, Any]:
        """The form of the command line, the API and the journal."""
        verdict = self.verdict
        return {
            "decision": self.id,
            "tier": verdict.tier.label if verdict else None,
            "category": self.category,
            "tiers": {tier.label: round(p, 6) for tier, p in verdict.tiers.items()} if verdict else None,
            "sure": verdict.sure if verdict else None,
            "route": self.route.value,
            "rule": self.rule,
            "policy": self.policy or None,
            "shadow": [{"rule": each.rule, "route": each.route.value} for each in self.shadow],
            "judged": self.judged,
            "field": self.field_name,
            "language": self.language,
            "distress": self.distress,
            "coverage": round(verdict.coverage.read, 4) if verdict else None,
            "tokens": verdict.coverage.tokens if verdict else None,
            "windows": verdict.coverage.windows if verdict else None,
            "model": verdict.model if verdict else None,
            "cause": self.cause,
            "ground_answer": self.ground_answer.value,
            "grounded": self.grounded,
            "unjudged": list(self.unjudged),
            "removed": list(self.removed),
            "tenant": self.origin.tenant,
            "model_asked": self.origin.model,
            "endpoint": self.origin.endpoint,
            "timings_ms": dict(self.timings_ms),
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a text of the model must not leave."""

    rule: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Airlock's own words around quotes, which no source stands behind.

    Attributes:
        kind: ``comfort``, ``premise``, ``related``, ``opening``, ``condition``, ``refuse`` or ``protective``.
        start: first character in the reply's text.
        end: character after the last.
    """

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What Airlock itself answers with.

    Attributes:
        text: the answer.
        refused: whether it is a refusal (``finish_reason: content_filter``) rather than an answer.
        citations: one for each sentence that comes from the knowledge base.
        notes: where there are citations, the rest of the text.
    """

    text: str
    refused: bool = False
    citations: tuple[Citation, ...] = ()
    notes: tuple[Note, ...] = ()


class Classifier(Protocol):
    """Texts in, one verdict for each out; synchronous, called in a worker thread."""

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order."""
        ...


class Explanation(Protocol):
    """Why a text has its verdict."""

    def as_dict(self) -> dict[str, Any]:
        """The form of the command line and the API."""
        ...


class Explainer(Protocol):
    """A text in, why it has its verdict out; synchronous, called in a worker thread."""

    def explain(self, text: str) -> Explanation:
        """Why."""
        ...


class Answerer(Protocol):
    """A question in, a grounded answer or an abstention out; synchronous, called in a worker thread."""

    def answer(self, question: str) -> GroundedAnswer:
        """An answer whose every sentence is cited, or an abstention."""
        ...

    def check(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """What passages, or without any the knowledge base, say of each sentence of an answer."""
        ...


class Protector(Protocol):
    """What was refused in, quotes that may stand beside the refusal out; synchronous, called in a worker thread."""

    def protect(self, asked: str, category: str) -> GroundedAnswer:
        """Quotes of documents that were written for refusals of the category, and nothing else; or an abstention."""
        ...


class ResponseCheck(Protocol):
    """Looks at what the model wrote; synchronous, called in a worker thread."""

    @property
    def reach(self) -> int:
        """Longest run of characters that a finding can rest on; text is held back by as much."""
        ...

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        """A finding, or None, for each text, in order."""
        ...


class ExchangeJudge(Protocol):
    """Answers with what was asked in, one verdict for each out; synchronous, called in a worker thread."""

    @property
    def labels(self) -> Mapping[str, bool]:
        """What it tells apart, each with whether such an answer harms."""
        ...

    def classify(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for each exchange, in order."""
        ...


def ms_since(started: float) -> float:
    """Milliseconds since a moment of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 2)


def is_instant(part: object) -> bool:
    """Whether a part says, by an attribute `instant` that is true, that a short text costs it less than a thread."""
    return getattr(part, "instant", False) is True
