"""The two doors for callers that hold messages and answers rather than HTTP bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.engine import Guard
from guard.errors import AirlockError, PartFailure
from guard.forwarded import Said, Summary, ground_answers
from guard.types import UNKNOWN, AnswerGrounding, Decision, Origin, Reply, Route, Turn
from guard.wires import CHAT, Reading
from guard.wires.json import dump


@dataclass(frozen=True, slots=True)
class Entered:
    """What the input door says of a conversation.

    Attributes:
        decision: what was decided.
        reply: Airlock's own answer; None where the model answers.
        kept: indices of the messages that the model may read: all but turns that were refused earlier.
    """

    decision: Decision
    reply: Reply | None
    kept: tuple[int, ...]


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
    data = json.loads(dump({"messages": list(messages)}))
    request = CHAT.parse(dump(data), Reading.by(guard.config.conversation, guard.refusals))
    guard.only_text(request.non_text, "messages")
    decision, reply = await enter_turns(guard, request.turns, origin)
    return Entered(decision, reply, tuple(_places(json.loads(request.body)["messages"], data["messages"])))


async def enter_turns(guard: Guard, turns: Sequence[Turn], origin: Origin = UNKNOWN) -> tuple[Decision, Reply | None]:
    """The same for turns that were read already.

    Raises:
        BadRequest: there is no text to judge, or it is too long.
        PartFailure: a part failed, and `policy.on_error` does not let the request pass.
    """
    decision, reply = await guard.admit(turns, origin)
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
    try:
        texts = [text for text in (*(said.text for said in answers), *beside) if text.strip()]
        finding = await guard.find(texts, decision)
        if finding is not None:
            await guard.ended(decision, "stopped", status=None, detail=finding.rule)
            return Left((guard.refusal(decision, "stopped").text,) * max(1, len(answers)), blocked=True)
        if decision.ground_answer is AnswerGrounding.OFF:
            await guard.ended(decision, "answered", status=None)
            return Left(tuple(said.text for said in answers))
        summary = await ground_answers(guard, decision, answers)
    except AirlockError as exc:
        await guard.ended(decision, "failed", status=None, detail=str(exc))
        raise
    await guard.ended(decision, summary.outcome, status=None, detail=summary.detail)
    return Left(tuple(answer.text for answer in summary.answers), summary=summary)


def _places(kept: Sequence[Any], messages: Sequence[Any]) -> Iterator[int]:
    """Where each message that was kept, in order, stands among all."""
    at = 0
    for message in kept:
        while messages[at] != message:
            at += 1
        yield at
        at += 1
