"""What a wire is: one API's way to write requests, answers, streams and errors, as the guarded path needs it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guard.conversation import Conversation
from guard.errors import AirlockError, BadRequest, UpstreamError
from guard.types import Decision, Reply, Turn

Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How requests are read.

    Attributes:
        refusals: texts by which a refused turn is known, to be taken out.
        text_only: whether parts that hold no text are taken out.
        judged_fields: fields beside the conversation whose texts are judged too.
        trusted_fields: those whose texts are not, beside the ones that are known to be harmless.
        unknown_fields: what becomes of texts in all others: ``judge``, ``refuse`` or ``pass``.
    """

    refusals: Collection[str] = frozenset()
    text_only: bool = False
    judged_fields: Collection[str] = ()
    trusted_fields: Collection[str] = ()
    unknown_fields: str = "pass"

    @classmethod
    def by(cls, settings: Conversation, refusals: Collection[str]) -> Reading:
        """As the operator says."""
        return cls(
            refusals,
            settings.non_text_parts == "text_only",
            settings.judged_fields,
            settings.trusted_fields,
            settings.unknown_fields,
        )


@dataclass(frozen=True, slots=True)
class WireRequest:
    """What Airlock needs to know of a request.

    Attributes:
        turns: the conversation, in order; a turn of the role ``field`` is a text from beside it.
        model: the model asked for.
        stream: whether the client wants server-sent events.
        include_usage: whether it wants a last event with the usage.
        non_text: kinds of parts that hold no text, such as ``image_url``.
        removed: those that were taken out.
        stored: fields that name text which the model's server keeps, so that it cannot be judged.
        body: what is sent on: the client's own bytes, unless something was taken out.
        kept: where the messages that go on stood among all that came; empty where none can be taken out.
        prompts: how many prompts it holds, each of which gets an answer of its own.
        given: the strings of the fields beside the conversation, which some servers repeat in their answers.
    """

    turns: tuple[Turn, ...]
    model: str
    stream: bool = False
    include_usage: bool = False
    non_text: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()
    body: bytes = b""
    kept: tuple[int, ...] = ()
    prompts: int = 1
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Heard:
    """What one event of a stream says, or one part of it.

    Attributes:
        added: text that goes on, by the text that it is part of.
        whole: texts that stand whole in the event; those that repeat what was heard before need no check.
        ended: texts to which nothing is added any more.
        resting: texts that stand still while the answer goes on, each with the characters that the answer grew by.
        over: whether it is the last event.
    """

    added: Mapping[Key, str] = field(default_factory=dict)
    whole: Sequence[str] = ()
    ended: Collection[Key] = ()
    resting: Mapping[Key, int] = field(default_factory=dict)
    over: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """An error to be written in a wire's own shape.

    Attributes:
        status: of HTTP.
        message: for the client.
        kind: OpenAI's error type, such as ``invalid_request_error``.
        code: machine-readable name.
        param: the field that is wrong.
        inner: details of a filter.
    """

    status: int
    message: str
    kind: str
    code: str
    param: str | None = None
    inner: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, exc: BadRequest | UpstreamError) -> Fault:
        """A request that is refused as it is, or an answer that did not come."""
        if isinstance(exc, BadRequest):
            return cls(exc.status, str(exc), "invalid_request_error", exc.code, exc.param)
        return cls(exc.status, f"{exc}.", "upstream_error", exc.code)

    @classmethod
    def unavailable(cls, decision: Decision, comfort: str = "") -> Fault:
        """A request that could not be checked: never an answer, never passed on; `comfort` comes first."""
        message = comfort + ("\n\n" if comfort else "")
        message += (
            "Airlock could not check this, so it was held back. Try again; if it goes on, tell the operator the "
            f"decision {decision.id}."
        )
        return cls(503, message, "server_error", "guard_unavailable")

    @classmethod
    def blocked(cls, decision: Decision, text: str, param: str) -> Fault:
        """A refused request, for ``policy.on_block: error``."""
        verdict = decision.verdict
        result = {verdict.category: {"filtered": True, "severity": verdict.tier.label}} if verdict else {}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": result}
        return cls(400, text, "invalid_request_error", "content_filter", param, inner)


class StreamReader(Protocol):
    """Understands the events of one stream, and can end it."""

    def read(self, data: Any) -> Iterable[Heard]:  # noqa: ANN401 - any JSON value
        """What an event says, in order.

        Raises:
            UpstreamError: it is none of this wire.
            ValueError: it is nested too deep.
        """
        ...

    def sent(self, data: Any) -> None:  # noqa: ANN401
        """An event has been sent to the client."""
        ...

    def stopped(self, decision: Decision) -> bytes:
        """The end of a stream that was stopped after some of it left: what is out stands, no more follows."""
        ...

    def broken(self, fault: Fault) -> bytes:
        """The end of a stream that failed after some of it left."""
        ...


class Wire(Protocol):
    """One API."""

    @property
    def endpoint(self) -> str:
        """Its name in decisions and settings."""
        ...

    @property
    def path(self) -> str:
        """Its path."""
        ...

    @property
    def param(self) -> str:
        """The field that holds what the user writes."""
        ...

    @property
    def beside(self) -> tuple[str, ...]:
        """The fields that it reads beside that one."""
        ...

    @property
    def answers(self) -> bool:
        """Whether its answers can hold a text of Airlock's own."""
        ...

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request strictly.

        Raises:
            BadRequest: it is none of this wire, or two JSON readers may read it differently; the message names the
                field.
        """
        ...

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """An answer that Airlock writes itself, whole; with an `airlock` object if `extras`."""
        ...

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same as server-sent events."""
        ...

    def error(self, fault: Fault) -> bytes:
        """The body of an error."""
        ...

    def texts(self, data: Mapping[str, Any], request: WireRequest) -> list[str]:
        """Every text of an answer that came whole, which a model may have written.

        Raises:
            ValueError: it is nested too deep.
        """
        ...

    def reader(self, request: WireRequest) -> StreamReader:
        """For one stream."""
        ...


def failed(failure: AirlockError, decision: Decision, comfort: str) -> Fault:
    """The error that a part or the upstream is to blame for."""
    return Fault.of(failure) if isinstance(failure, UpstreamError) else Fault.unavailable(decision, comfort)
