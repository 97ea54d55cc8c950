"""The two doors for callers that hold messages and answers rather than HTTP bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.engine import Guard
from guard.errors import AirlockError, BadRequest, PartFailure
from guard.forwarded import Said, Summary, ground_answers
from guard.types import UNKNOWN, AnswerGrounding, Decision, Origin, Reply, Route
from guard.wires import CHAT, WireRequest
from guard.wires.json import dump_request, parse_json


@dataclass(frozen=True, slots=True)
class Entered:
    """What the input door says of a conversation.

    Attributes:
        decision: what was decided.
        reply: Airlock's own answer; None where the model answers.
        kept: indices of the messages that the model may read: all but turns that were refused earlier.
        trimmed: those of them, by index, of which parts without text were taken out, as the model may read them.
    """

    decision: Decision
    reply: Reply | None
    kept: tuple[int, ...]
    trimmed: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Left:
    """What the output door says of the answers to one request.

    Attributes:
        texts: what leaves of each answer, or in its place; where it was blocked, the refusal.
        blocked: whether none of them may leave.
        summary: what the knowledge base says of them, where the decision asks for it.
    """

    texts: tuple[str, ...]
    blocked: bool = False
    summary: Summary | None = None


async def enter(guard: Guard, messages: Sequence[Mapping[str, Any]], origin: Origin = UNKNOWN) -> Entered:
    """Judge the messages of a chat request, write the decision down, and answer what the model must not.

    Raises:
        BadRequest: they are no messages, or hold what cannot be judged.
        PartFailure: a part failed, and `policy.on_error` does not let the request pass.
        JournalError: the decision could not be written.
    """
    guard = guard.held()
    body = dump_request({"messages": list(messages)})
    request = CHAT.parse(body, guard.reading)
    decision, reply = await enter_request(guard, request, "messages", origin)
    trimmed: dict[int, Any] = {}
    if request.removed:
        came, left = parse_json(body)["messages"], parse_json(request.body)["messages"]
        trimmed = {at: message for at, message in zip(request.kept, left, strict=True) if message != came[at]}
    return Entered(decision, reply, request.kept, trimmed)


async def enter_request(
    guard: Guard, request: WireRequest, param: str, origin: Origin = UNKNOWN, *, answers: bool = True
) -> tuple[Decision, Reply | None]:
    """The same for a request that was read already.

    Args:
        guard: the engine.
        request: of any wire.
        param: its field that holds what the user writes, for errors.
        origin: where it comes from.
        answers: whether it can be answered in words; else only a refusal keeps it from the model.

    Raises:
        BadRequest: there is no text to judge, it is too long, or something else cannot be judged.
        PartFailure: a part failed, and `policy.on_error` does not let the request pass.
    """
    passing = unjudged(guard, request, param)
    decision, reply = await guard.admit(
        request.turns, origin, unjudged=passing, removed=request.removed, answers=answers
    )
    if reply is not None:
        await guard.ended(decision, "refused" if reply.refused else "answered", status=None)
    elif decision.route is not Route.FORWARD:
        await guard.ended(decision, "failed", status=None, detail=decision.cause or "")
        raise PartFailure(f"decision {decision.id}", decision.cause or "no reply")
    return decision, reply


async def leave(guard: Guard, decision: Decision, answers: Sequence[Said], beside: Sequence[str] = ()) -> Left:
    """Check what the model answered to a request that was forwarded, and write how it ended.

    Args:
        guard: the engine.
        decision: why it was forwarded.
        answers: of the model, one for each choice.
        beside: whatever else the model wrote, such as the arguments of tool calls.

    Raises:
        PartFailure: a part failed, and `policy.on_error` does not let the answer pass.
    """
    summary: Summary | None = None
    try:
        texts = [text for text in (*(said.text for said in answers), *beside) if text.strip()]
        finding = await guard.find(texts, decision)
        if finding is None and decision.ground_answer is not AnswerGrounding.OFF:
            summary = await ground_answers(guard, decision, answers)
    except BaseException as exc:
        await broke_off(guard, decision, exc)
        raise
    if finding is not None:
        await guard.ended(decision, "stopped", status=None, detail=finding.rule)
        return Left((guard.refusal(decision, "stopped").text,) * max(1, len(answers)), blocked=True)
    if summary is None:
        await guard.ended(decision, "answered", status=None)
        return Left(tuple(said.text for said in answers))
    await guard.ended(decision, summary.outcome, status=None, detail=summary.detail)
    return Left(tuple(answer.text for answer in summary.answers), summary=summary)


async def broke_off(guard: Guard, decision: Decision, exc: BaseException) -> None:
    """Write that a request that was forwarded ended by an error, or since its caller waits no more."""
    if isinstance(exc, AirlockError):
        await guard.ended(decision, "failed", status=None, detail=str(exc))
    elif isinstance(exc, Exception):
        await guard.ended(decision, "failed", status=None, detail=type(exc).__name__)
    else:  # cancelled, closed or interrupted
        await guard.ended(decision, "disconnected", status=None)


def unjudged(guard: Guard, request: WireRequest, param: str) -> tuple[str, ...]:
    """What of a request goes on without having been judged, because the operator says so.

    Raises:
        BadRequest: the operator does not.
    """
    guard.only_text(request.non_text, param)
    if request.stored and guard.config.conversation.stored_text == "refuse":
        raise BadRequest(
            f"{', '.join(request.stored)}: names text that the model's server keeps, which cannot be judged; send "
            "the whole conversation, or let the operator set `conversation.stored_text: pass`",
            param=request.stored[0],
            code="unsupported_content",
        )
    return (*request.non_text, *request.stored)
