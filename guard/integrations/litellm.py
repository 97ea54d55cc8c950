"""LiteLLM: a custom guardrail that runs the guard inside LiteLLM's own proxy process.

Without code in that process, LiteLLM's generic guardrail API does the same over HTTP (`guard.generic_guardrail`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import ModelResponse, ModelResponseStream, TextChoices, TextCompletionResponse

from guard.assemble import load_guard
from guard.config import Config
from guard.doors import SPOKEN, Left, broke_off, enter_request, leave
from guard.engine import Guard
from guard.errors import BadRequest, BlockedError, UpstreamError
from guard.forwarded import Said
from guard.integrations.background import background
from guard.streaming import StreamGate
from guard.types import AnswerGrounding, Decision, Finding, Origin, Reply, Turn
from guard.wires import BY_ENDPOINT, CHAT, Reading, Wire, WireRequest
from guard.wires.json import content_texts, dump_request, event, parse_json
from guard.wires.openai import extras_of
from guard.wires.requests import field_turns, no_other_conversation, texts_of

_DECISION = "airlock_decision"
_CONVERSATIONS = ("messages", "input", "prompt", "query", "contents")  # what some call takes for the conversation
_FIELDS = {  # what each wire reads of a request, its conversation first
    "chat": ("messages",),
    "messages": ("messages", "system"),
    "completions": ("prompt", "suffix", "prompt_embeds"),
    "responses": ("input", "instructions", "prompt", "previous_response_id", "conversation", "background"),
    "embeddings": ("input",),
}
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
        request, param = self._read(data, call_type)
        decision, reply = await background.wait(
            enter_request(self._guard, request, param, origin, answers=call_type not in _WORDLESS)
        )
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
        beside = list(content_texts(_plain(response), SPOKEN).values())
        choices = response.choices if isinstance(response, ModelResponse | TextCompletionResponse) else []
        said = [_said(choice) for choice in choices]
        unread = [] if said or not beside else [Said(0, "", readable=False)]  # in no one text that can be replaced
        left = await self._leave(decision, said or unread, beside, data, response)
        if unread and left.texts[0]:
            self.raise_passthrough_exception(left.texts[0], data, extras_of(decision), original_response=response)
        for choice, answer, text in zip(choices, said, left.texts, strict=False):
            if text != answer.text:
                _say(choice, text)
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
                choices |= {choice.index for choice in _choices(chunk)}
                gate.feed(event(_plain(chunk)))
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

    def _read(self, data: dict[str, Any], call_type: str) -> tuple[WireRequest, str]:
        """A request as its wire reads it, and the field of its conversation; what is taken out is taken out of `data`.

        Raises:
            BadRequest: it has no text to judge, two conversations, or something else that cannot be judged.
        """
        settings = self._guard.config.conversation
        extra = data.get("extra_body") or {}  # LiteLLM puts what it holds over the rest
        if not isinstance(extra, dict):
            raise BadRequest("extra_body: need an object", param="extra_body")
        wire = _wire(data, call_type)
        fields = ("query",) if wire is None else _FIELDS[wire.endpoint]
        others = [name for name in _CONVERSATIONS if name not in fields]
        if "input" in fields and not isinstance(data.get("prompt"), dict):
            others.append("prompt")
        no_other_conversation(data, *others)
        no_other_conversation(extra, *others, *fields)
        beside = [
            turn
            for source in (data, extra)
            for turn in field_turns(
                _plain({name: source.get(name) for name in settings.judged_fields}), settings.judged_fields
            )
        ]
        given = {name: _plain(data[name]) for name in fields if data.get(name) is not None}
        if wire is None:
            return WireRequest((*beside, *(Turn("user", text) for text in texts_of(given, "query"))), ""), "query"
        reading = replace(Reading.by(settings, self._guard.refusals), judged_fields=())
        body = dump_request(given)
        request = wire.parse(body, reading)
        if request.body != body:
            left = parse_json(request.body)
            for name in given:
                del data[name]
            data |= left
        return replace(request, turns=(*beside, *request.turns)), wire.param

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
        said = "" if begun else text
        return _chunk(chunk, {choice: said for choice in sorted(choices) or [0]}, "content_filter")

    async def _grounded(self, decision: Decision, chunks: list[Any], data: dict[str, Any]) -> AsyncIterator[Any]:
        """A stream that was held whole: itself, or in its place one chunk with what may leave of it."""
        said: dict[int, str] = {}
        calls: set[int] = set()
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            spoken = _said(choice)
            said[choice.index] = said.get(choice.index, "") + spoken.text
            calls |= {choice.index} if spoken.calls else set()
        answers = [Said(index, text, calls=index in calls) for index, text in sorted(said.items())]
        left = await self._leave(decision, answers, [], data, None)
        if list(left.texts) == [answer.text for answer in answers]:
            for chunk in chunks:
                yield chunk
        else:
            texts = {answer.choice: text for answer, text in zip(answers, left.texts, strict=True)}
            yield _chunk(chunks[0], texts, "stop")


def _wire(data: Mapping[str, Any], call_type: str) -> Wire | None:
    """The wire on which a request is read; None for one whose texts are its `query`.

    Raises:
        BadRequest: it holds no conversation.
    """
    given = data.get("input")
    if data.get("messages") is not None:
        return BY_ENDPOINT["messages"] if call_type.endswith("anthropic_messages") else CHAT
    if isinstance(given, list) and not any(isinstance(item, dict) for item in given):
        return BY_ENDPOINT["embeddings"]
    if given is not None or isinstance(data.get("prompt"), dict):  # a stored prompt with its variables
        return BY_ENDPOINT["responses"]
    if data.get("prompt") is not None:
        return BY_ENDPOINT["completions"]
    if data.get("query") is None:
        raise BadRequest(
            f"Airlock finds no text to judge in a LiteLLM call of type {call_type!r}; leave the guardrail out of it"
        )
    return None


def _decision(data: Mapping[str, Any]) -> Decision:
    """What was decided on the request; a client cannot make one up, since it sends JSON."""
    decision = (data.get("metadata") or {}).get(_DECISION)
    if not isinstance(decision, Decision):
        raise UpstreamError("an answer to a request that Airlock has not judged; set `mode: [pre_call, post_call]`")
    return decision


def _choices(chunk: Any) -> list[Any]:  # noqa: ANN401
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        raise UpstreamError(
            f"LiteLLM streams {type(chunk).__name__}, which this guardrail cannot check; ask for the answer in one "
            "piece, or for a stream of completions",
            code="bad_upstream",
        )
    return choices


def _said(choice: Any) -> Said:  # noqa: ANN401
    """What a choice says, or a part of it in a stream."""
    if isinstance(choice, TextChoices):
        return Said(choice.index, choice.text or "")
    message = getattr(choice, "delta", None) or choice.message
    return Said(choice.index, message.content or "", calls=bool(message.tool_calls))


def _say(choice: Any, text: str) -> None:  # noqa: ANN401
    """Put a text in the place of what a choice says, also token by token."""
    if isinstance(choice, TextChoices):
        choice.text = text
    else:
        choice.message.content = text
    if getattr(choice, "logprobs", None) is not None:
        choice.logprobs = None


def _chunk(like: Any, texts: Mapping[int, str], reason: str) -> Any:  # noqa: ANN401
    """The last chunk of a stream, of the same kind as another."""
    around = {"id": like.id, "model": like.model, "created": like.created}
    if isinstance(like, TextCompletionResponse):
        whole = [{"index": index, "text": text, "finish_reason": reason} for index, text in texts.items()]
        return TextCompletionResponse(**around, choices=whole)
    said = {index: {"role": "assistant", "content": text} if text else {} for index, text in texts.items()}
    deltas = [{"index": index, "delta": delta, "finish_reason": reason} for index, delta in said.items()]
    return ModelResponseStream(**around, choices=deltas)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value of LiteLLM as JSON has it, without what is not set."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    dump = getattr(value, "model_dump", None)
    return json.loads(json.dumps(dump(exclude_none=True) if dump else value, default=str))
