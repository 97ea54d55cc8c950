"""LiteLLM's generic guardrail API: its proxy asks before it calls a model, and again with what the model said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from guard.doors import enter_request, leave
from guard.engine import Guard
from guard.errors import BadRequest
from guard.forwarded import Said
from guard.types import AnswerGrounding, Decision, Origin, Route, Turn
from guard.wires import CHAT, WireRequest
from guard.wires.json import content_texts


class Parameters(BaseModel):
    """What an operator sets in LiteLLM's `additional_provider_specific_params`; other names are not read."""

    ground_answer: Literal["off", "require"] = "off"


class GuardrailRequest(BaseModel):
    """LiteLLM's body; keys and headers of its client, which it has too, are not read."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    images: list[str] | None = None
    tool_calls: list[Any] | None = None
    model: str | None = None
    additional_provider_specific_params: Parameters | None = None


async def apply(guard: Guard, asked: GuardrailRequest, origin: Origin) -> tuple[Decision, dict[str, Any]]:
    """The decision and the answer: `NONE`, `BLOCKED` with a reason, or `GUARDRAIL_INTERVENED` with other texts.

    Raises:
        BadRequest: there is nothing to judge, or something that cannot be judged.
        PartFailure: a part failed.
        JournalError: the decision could not be written.
    """
    if asked.input_type == "request":
        return await _request(guard, asked, origin)
    return await _response(guard, asked, origin)


async def _request(guard: Guard, asked: GuardrailRequest, origin: Origin) -> tuple[Decision, dict[str, Any]]:
    turns: list[Turn] = []
    non_text = ["image_url"] if asked.images else []
    param = "images" if asked.images else "structured_messages"
    if asked.structured_messages:
        conversation = CHAT.read({"messages": asked.structured_messages})
        turns = list(conversation.turns)
        non_text += conversation.non_text
    kinds = tuple(dict.fromkeys(non_text))
    guard.only_text(kinds, param, removable=False)
    # A text that is no message's was found elsewhere in the request: it is judged as an earlier turn of the user.
    loose = Counter(asked.texts) - Counter(_listed(asked.structured_messages or []))
    turns = [*(Turn("user", text) for text in loose if text.strip()), *turns]
    request = WireRequest(tuple(turns), "", non_text=kinds)
    decision, reply = await enter_request(guard, request, param, origin)
    if reply is None:
        return decision, {"action": "NONE"}
    return decision, {"action": "BLOCKED", "blocked_reason": reply.text}


async def _response(guard: Guard, asked: GuardrailRequest, origin: Origin) -> tuple[Decision, dict[str, Any]]:
    texts = asked.texts or []
    calls = list(content_texts(asked.tool_calls or []).values())
    if not any(text.strip() for text in [*texts, *calls]):
        raise BadRequest("texts: there is no text to check", param="texts")
    wanted = (asked.additional_provider_specific_params or Parameters()).ground_answer
    decision = Decision(Route.FORWARD, "response", ground_answer=AnswerGrounding(wanted), origin=origin)
    await guard.record(decision, "")
    said = [Said(number, text, calls=bool(calls)) for number, text in enumerate(texts)]
    left = await leave(guard, decision, said, calls)
    if left.blocked:
        return decision, {"action": "BLOCKED", "blocked_reason": left.texts[0]}
    # Where LiteLLM streams by `incremental_diff`, the end of each text waits as in Airlock's own streams.
    held = {"stream_holdback_chars": [guard.hold_back] * len(texts)}
    if list(left.texts) != texts:
        return decision, {"action": "GUARDRAIL_INTERVENED", "texts": list(left.texts), **held}
    return decision, {"action": "NONE", **held}


def _listed(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What LiteLLM lists of messages among the `texts`: each content, or the text of each of its parts."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"text": content}]:
            if isinstance(text := part.get("text"), str):
                yield text
