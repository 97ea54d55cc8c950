"""LiteLLM: a custom guardrail that runs the guard inside LiteLLM's own proxy process.

Without code in that process, LiteLLM's generic guardrail API does the same over HTTP (`guard.generic_guardrail`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import ModelResponse, TextCompletionResponse

from guard.anew.chat import joined
from guard.assemble import load_guard
from guard.config import Config
from guard.doors import Left, broke_off, enter_request, leave
from guard.engine import Guard
from guard.errors import BlockedError, UpstreamError
from guard.forwarded import Said
from guard.integrations.background import background
from guard.integrations.litellm_messages import (
    answer_anew,
    choices_of,
    named_by_client,
    plain,
    read_request,
    said_by,
    stopped_chunk,
    stream_anew,
)
from guard.named_models import check_models
from guard.streaming import StreamGate
from guard.types import AnswerGrounding, Decision, Finding, Origin, Reply
from guard.wires import CHAT, WireRequest
from guard.wires.json import content_texts, event
from guard.wires.openai import extras_of

_DECISION = "airlock_decision"
_ANSWERED = "airlock_answered"  # whether one of the hooks below has begun to write how the request ends
_WORDLESS = ("embedding", "aembedding")  # calls whose answers nobody reads


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
        request, param = read_request(self._guard, data, call_type)
        check_models(self._guard.config, origin.model, named_by_client(data))
        decision, reply = await background.wait(
            enter_request(self._guard, request, param, origin, answers=call_type not in _WORDLESS)
        )
        if reply is not None:
            self._answer(reply, decision, data)
        data["metadata"] = {**(data.get("metadata") or {}), _DECISION: decision, _ANSWERED: False}
        return data

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,  # noqa: ANN401
        traceback_str: str | None = None,
    ) -> None:
        """Write that a request that was let pass got no answer, unless it is written how its answer ended."""
        metadata = request_data.get("metadata") or {}
        decision = metadata.get(_DECISION)
        if isinstance(decision, Decision) and not metadata.get(_ANSWERED):
            metadata[_ANSWERED] = True
            await background.finish(broke_off(self._guard, decision, original_exception))

    async def async_post_call_success_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,  # noqa: ANN401
        response: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Check an answer that came in one piece."""
        decision = _decision(data)
        beside = list(content_texts(plain(response)).values())
        choices = response.choices if isinstance(response, ModelResponse | TextCompletionResponse) else []
        said = [said_by(choice) for choice in choices]
        unread = [] if said or not beside else [Said(0, "", readable=False)]  # in no one text that can be replaced
        left = await self._leave(decision, said or unread, beside, data, response)
        if unread and left.texts[0]:
            self.raise_passthrough_exception(left.texts[0], data, extras_of(decision), original_response=response)
        if choices and decision.ground_answer is AnswerGrounding.REQUIRE:
            answer_anew(response, left.texts)
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
        try:
            async for chunk in response:
                held.append(chunk)
                choices |= {choice.index for choice in choices_of(chunk)}
                gate.feed(event(plain(chunk)))
                if (finding := await self._clear(gate, decision)) is not None:
                    break
                for _ in range(0 if grounded else gate.release().count(b"\n\n")):
                    begun = True
                    yield held.popleft()
            else:
                gate.finish()
                finding = await self._clear(gate, decision)
        except BaseException as exc:
            await background.finish(broke_off(self._guard, decision, exc))
            raise
        if finding is not None:
            await background.wait(self._guard.ended(decision, "stopped", status=None, detail=finding.rule))
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

    async def _clear(self, gate: StreamGate, decision: Decision) -> Finding | None:
        """Check what must be checked now, and clear it unless something is found."""
        probes = list(gate.probes())
        texts, before = [probe.text for probe in probes], [probe.before for probe in probes]
        finding = await background.wait(self._guard.find(texts, decision, before)) if probes else None
        for probe in probes if finding is None else ():
            gate.clear(probe)
        return finding

    def _stopped(self, decision: Decision, chunk: Any, choices: set[int], *, begun: bool) -> Any:  # noqa: ANN401
        """The end of a stream that was stopped: a whole refusal, where nothing of it has left."""
        text = self._guard.refusal(decision, "stopped").text
        if self._raise_on_block:
            raise BlockedError(text, decision)
        return stopped_chunk(chunk, choices, "" if begun else text)

    async def _grounded(self, decision: Decision, chunks: list[Any], data: dict[str, Any]) -> AsyncIterator[Any]:
        """A stream that was held whole: itself, or in its place what may leave of it, text first and then calls."""
        answers = joined(said_by(choice) for chunk in chunks for choice in chunk.choices)
        left = await self._leave(decision, answers, [], data, None)
        if not answers or decision.ground_answer is not AnswerGrounding.REQUIRE:
            for chunk in chunks:
                yield chunk
            return
        for chunk in stream_anew(chunks, {said.choice: text for said, text in zip(answers, left.texts, strict=True)}):
            yield chunk


def _decision(data: Mapping[str, Any]) -> Decision:
    """What was decided on the request, now that its answer is here; a client cannot make one up: it sends JSON."""
    metadata = data.get("metadata") or {}
    decision = metadata.get(_DECISION)
    if not isinstance(decision, Decision):
        raise UpstreamError("an answer to a request that Airlock has not judged; set `mode: [pre_call, post_call]`")
    metadata[_ANSWERED] = True
    return decision
