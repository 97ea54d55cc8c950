"""LiteLLM: a custom guardrail that runs the guard inside LiteLLM's own proxy process.

Without code in that process, LiteLLM's generic guardrail API does the same over HTTP (`guard.generic_guardrail`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import ModelResponse, ModelResponseStream

from guard.assemble import load_guard
from guard.config import Config
from guard.doors import Left, enter, enter_turns, leave
from guard.engine import Guard
from guard.errors import BadRequest, BlockedError, UpstreamError
from guard.forwarded import Said
from guard.integrations.background import background
from guard.streaming import StreamGate
from guard.types import AnswerGrounding, Decision, Origin, Reply, Turn
from guard.wires import CHAT, WireRequest
from guard.wires.json import content_texts, event
from guard.wires.openai import extras_of

_DECISION = "airlock_decision"
_TEXTS = ("prompt", "input", "query")  # of requests that are no chat


class AirlockGuardrail(CustomGuardrail):  # type: ignore[misc]
    """Both doors as hooks: `mode: [pre_call, post_call]` in the configuration of LiteLLM's proxy.

    What the model must not answer is answered by LiteLLM with Airlock's text, HTTP 200 and `finish_reason:
    content_filter`. The doors belong together: an answer is only checked for a request that came in by the first.

    Args:
        airlock: the engine, or the configuration to build it from.
        raise_on_block: raise `BlockedError`, with the decision, in place of a refusal.
        settings: LiteLLM's own.
    """

    def __init__(
        self,
        airlock: Guard | Config | Path | str | None = None,
        raise_on_block: bool = False,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        self._guard = airlock if isinstance(airlock, Guard) else load_guard(airlock)
        self._raise_on_block = raise_on_block
        settings.setdefault("supported_event_hooks", [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call])
        super().__init__(**settings)

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,  # noqa: ANN401
        cache: Any,  # noqa: ANN401
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any]:
        """Judge a request before a model is called; turns that were refused earlier are taken out of it."""
        origin = Origin(model=str(data.get("model") or ""), endpoint="litellm")
        if isinstance(data.get("messages"), list):
            messages = [_plain(message) for message in data["messages"]]
            entered = await background.wait(enter(self._guard, messages, origin))
            decision, reply = entered.decision, entered.reply
            data["messages"] = [data["messages"][at] for at in entered.kept]
        else:
            decision, reply = await background.wait(enter_turns(self._guard, _turns(data, call_type), origin))
        if reply is not None:
            self._answer(reply, decision, data)
        data["metadata"] = {**(data.get("metadata") or {}), _DECISION: decision}
        return data

    async def async_post_call_success_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,  # noqa: ANN401
        response: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Check an answer that came in one piece."""
        decision = _decision(data)
        if not isinstance(response, ModelResponse):
            texts = list(content_texts(_plain(response)).values())
            await self._leave(decision, [], texts, data, response)
            return response
        said = [_said(choice) for choice in response.choices]
        left = await self._leave(decision, said, list(content_texts(_plain(response)).values()), data, response)
        for choice, text in zip(response.choices, left.texts, strict=True):
            if text != (choice.message.content or ""):
                choice.message.content = text
        return response

    async def async_post_call_streaming_iterator_hook(
        self,
        user_api_key_dict: Any,  # noqa: ANN401
        response: Any,  # noqa: ANN401
        request_data: dict[str, Any],
    ) -> AsyncIterator[Any]:
        """Hold a stream back until it is checked; whole, where the policy holds it against the knowledge base."""
        decision = _decision(request_data)
        grounded = decision.ground_answer is not AnswerGrounding.OFF
        gate = StreamGate(
            CHAT.reader(WireRequest((), "")),
            hold_back=self._guard.hold_back,
            stride=self._guard.config.output.stride,
            context=self._guard.context,
        )
        held: deque[Any] = deque()
        choices: set[int] = set()
        begun = False
        async for chunk in response:
            held.append(chunk)
            choices |= {choice.index for choice in chunk.choices}
            gate.feed(event(_plain(chunk)))
            if not await self._clear(gate, decision):
                yield self._stopped(decision, held[0], choices, begun=begun)
                return
            for _ in range(0 if grounded else gate.release().count(b"\n\n")):
                begun = True
                yield held.popleft()
        gate.finish()
        if not await self._clear(gate, decision):
            yield self._stopped(decision, held[0], choices, begun=begun)
        elif grounded:
            async for chunk in self._grounded(decision, list(held), request_data):
                yield chunk
        else:
            await background.wait(self._guard.ended(decision, "answered", status=None))
            for chunk in held:
                yield chunk

    def _answer(self, reply: Reply, decision: Decision, data: dict[str, Any]) -> None:
        if reply.refused and self._raise_on_block:
            raise BlockedError(reply.text, decision)
        self.raise_passthrough_exception(reply.text, data, detection_info=extras_of(decision, reply))

    async def _leave(
        self,
        decision: Decision,
        said: list[Said],
        beside: list[str],
        data: dict[str, Any],
        response: Any,  # noqa: ANN401
    ) -> Left:
        left = await background.wait(leave(self._guard, decision, said, beside))
        if left.blocked and self._raise_on_block:
            raise BlockedError(left.texts[0], decision)
        if left.blocked:
            self.raise_passthrough_exception(left.texts[0], data, extras_of(decision), original_response=response)
        return left

    async def _clear(self, gate: StreamGate, decision: Decision) -> bool:
        """Check what must be checked now; whether nothing was found."""
        probes = list(gate.probes())
        texts, before = [probe.text for probe in probes], [probe.before for probe in probes]
        finding = await background.wait(self._guard.find(texts, decision, before)) if probes else None
        if finding is not None:
            await background.wait(self._guard.ended(decision, "stopped", status=None, detail=finding.rule))
            return False
        for probe in probes:
            gate.clear(probe)
        return True

    def _stopped(self, decision: Decision, chunk: Any, choices: set[int], *, begun: bool) -> Any:  # noqa: ANN401
        """The end of a stream that was stopped: a whole refusal, where nothing of it has left."""
        text = self._guard.refusal(decision, "stopped").text
        if self._raise_on_block:
            raise BlockedError(text, decision)
        said = {} if begun else {"role": "assistant", "content": text}
        return _chunk(chunk, {choice: said for choice in sorted(choices) or [0]}, "content_filter")

    async def _grounded(self, decision: Decision, chunks: list[Any], data: dict[str, Any]) -> AsyncIterator[Any]:
        """A stream that was held whole: itself, or in its place one chunk with what may leave of it."""
        said: dict[int, str] = {}
        calls: set[int] = set()
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
            calls |= {choice.index} if choice.delta.tool_calls else set()
        answers = [Said(index, text, calls=index in calls) for index, text in sorted(said.items())]
        left = await self._leave(decision, answers, [], data, None)
        if list(left.texts) == [answer.text for answer in answers]:
            for chunk in chunks:
                yield chunk
        else:
            texts = {answer.choice: {"content": text} for answer, text in zip(answers, left.texts, strict=True)}
            yield _chunk(chunks[0], texts, "stop")


def _turns(data: Mapping[str, Any], call_type: str) -> list[Turn]:
    """The texts of a request that is no chat, as turns of the user."""
    given = [data[name] for name in _TEXTS if data.get(name)]
    texts = [text for value in given for text in content_texts(_plain(value)).values()]
    if not texts:
        raise BadRequest(
            f"Airlock finds no text to judge in a LiteLLM call of type {call_type!r}; leave the guardrail out of it"
        )
    return [Turn("user", text) for text in texts]


def _decision(data: Mapping[str, Any]) -> Decision:
    """What was decided on the request; a client cannot make one up, since it sends JSON."""
    decision = (data.get("metadata") or {}).get(_DECISION)
    if not isinstance(decision, Decision):
        raise UpstreamError("an answer to a request that Airlock has not judged; set `mode: [pre_call, post_call]`")
    return decision


def _said(choice: Any) -> Said:  # noqa: ANN401
    return Said(choice.index, choice.message.content or "", calls=bool(choice.message.tool_calls))


def _chunk(like: Any, deltas: Mapping[int, Mapping[str, Any]], reason: str) -> ModelResponseStream:  # noqa: ANN401
    choices = [{"index": index, "delta": dict(delta), "finish_reason": reason} for index, delta in deltas.items()]
    return ModelResponseStream(id=like.id, model=like.model, created=like.created, choices=choices)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value of LiteLLM as JSON has it, without what is not set."""
    dump = getattr(value, "model_dump", None)
    return json.loads(json.dumps(dump(exclude_none=True) if dump else value, default=str))
