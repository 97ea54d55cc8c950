"""LiteLLM: a custom guardrail that runs the guard inside LiteLLM's own proxy process.

Without code in that process, LiteLLM's generic guardrail API does the same over HTTP (`guard.generic_guardrail`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import ModelResponse, ModelResponseStream, TextChoices, TextCompletionResponse

from guard.anew.chat import AROUND, calls_of, said_of
from guard.assemble import load_guard
from guard.config import Config
from guard.doors import Left, broke_off, enter_request, leave
from guard.engine import Guard
from guard.errors import BadRequest, BlockedError, UpstreamError
from guard.forwarded import Said
from guard.integrations.background import background
from guard.streaming import StreamGate
from guard.types import AnswerGrounding, Decision, Finding, Origin, Reply, Turn
from guard.wires import BY_ENDPOINT, CHAT, Reading, Wire, WireRequest
from guard.wires.json import NAMES, content_texts, dump_request, event, parse_json
from guard.wires.openai import extras_of
from guard.wires.requests import FALLBACKS, field_turns, no_other_conversation, stored_prompt, texts_of

_DECISION = "airlock_decision"
_ANSWERED = "airlock_answered"  # whether one of the hooks below has begun to write how the request ends
_CONVERSATIONS = ("messages", "input", "prompt", "query", "contents")  # what some call takes for the conversation
_FIELDS = {  # what each wire reads of a request, its conversation first
    "chat": ("messages",),
    "messages": ("messages", "system"),
    "completions": ("prompt", "suffix", "prompt_embeds"),
    "responses": ("input", "instructions", "prompt", "previous_response_id", "conversation", "background"),
    "embeddings": ("input",),
}
_FILES = ("file", "image", "input_reference", "mask")  # what calls for images, videos and transcripts send beside text
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
        beside = list(content_texts(_plain(response), NAMES).values())
        choices = response.choices if isinstance(response, ModelResponse | TextCompletionResponse) else []
        said = [_said(choice) for choice in choices]
        unread = [] if said or not beside else [Said(0, "", readable=False)]  # in no one text that can be replaced
        left = await self._leave(decision, said or unread, beside, data, response)
        if unread and left.texts[0]:
            self.raise_passthrough_exception(left.texts[0], data, extras_of(decision), original_response=response)
        if choices and decision.ground_answer is AnswerGrounding.REQUIRE:
            _strip(response, (*AROUND, "choices"))
            for choice, text in zip(choices, left.texts, strict=True):
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
        no_other_conversation(data, *others, own=fields)
        no_other_conversation(extra, *others, *fields)
        beside = [
            turn
            for source in (data, extra)
            for turn in field_turns(
                _plain({name: source.get(name) for name in (*settings.judged_fields, *FALLBACKS)}),
                settings.judged_fields,
            )
        ]
        given = {name: _plain(data[name]) for name in fields if data.get(name) is not None}
        files = tuple(name for name in _FILES if data.get(name) or extra.get(name))
        self._guard.only_text(files, ", ".join(files), removable=False)
        if wire is None:
            texts = (Turn("user", text) for text in texts_of(given, "query"))
            return WireRequest((*beside, *texts), "", non_text=files, stored=stored_prompt(data)), "query"
        reading = replace(Reading.by(settings, self._guard.refusals), judged_fields=())
        body = dump_request(given)
        request = wire.parse(body, reading)
        if request.body != body:
            left = parse_json(request.body)
            for name in given:
                del data[name]
            data |= left
        request = replace(
            request,
            turns=(*beside, *request.turns),
            non_text=(*request.non_text, *files),
            stored=(*stored_prompt(data), *request.stored),
        )
        return request, wire.param

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
        deltas = {choice: _delta(said) if said else {} for choice in sorted(choices) or [0]}
        return _chunk(chunk, deltas, dict.fromkeys(deltas, "content_filter"))

    async def _grounded(self, decision: Decision, chunks: list[Any], data: dict[str, Any]) -> AsyncIterator[Any]:
        """A stream that was held whole: itself, or in its place what may leave of it, text first and then calls."""
        answers = _spoken(choice for chunk in chunks for choice in chunk.choices)
        left = await self._leave(decision, answers, [], data, None)
        if not answers or decision.ground_answer is not AnswerGrounding.REQUIRE:
            for chunk in chunks:
                yield chunk
            return
        texts = {answer.choice: text for answer, text in zip(answers, left.texts, strict=True)}
        yield _chunk(chunks[0], {index: _delta(text) for index, text in texts.items()}, {})
        reasons: dict[int, Any] = dict.fromkeys(texts, "stop")
        usage = None
        for chunk in chunks:
            calls = {choice.index: called for choice in chunk.choices if (called := _called(choice))}
            if calls:
                yield _chunk(chunk, calls, {})
            reasons |= {
                choice.index: why for choice in chunk.choices if (why := getattr(choice, "finish_reason", None))
            }
            usage = getattr(chunk, "usage", None) or usage
        last = _chunk(chunks[0], {index: {} for index in texts}, reasons)
        if usage is not None:
            last.usage = usage
        yield last


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
    """What was decided on the request, now that its answer is here; a client cannot make one up: it sends JSON."""
    metadata = data.get("metadata") or {}
    decision = metadata.get(_DECISION)
    if not isinstance(decision, Decision):
        raise UpstreamError("an answer to a request that Airlock has not judged; set `mode: [pre_call, post_call]`")
    metadata[_ANSWERED] = True
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
    return said_of(_plain(_message(choice)), choice.index)


def _spoken(choices: Iterable[Any]) -> list[Said]:
    """What the choices of a stream say, each from its parts."""
    said: dict[int, Said] = {}
    for part in map(_said, choices):
        before = said.get(part.choice, Said(part.choice, ""))
        said[part.choice] = Said(
            part.choice,
            before.text + part.text,
            readable=before.readable and part.readable,
            refused=before.refused or part.refused,
            calls=before.calls or part.calls,
        )
    return [each for _, each in sorted(said.items())]


def _called(choice: Any) -> dict[str, Any]:  # noqa: ANN401
    """The calls of tools in a choice, or in a part of it."""
    return {} if isinstance(choice, TextChoices) else calls_of(_plain(_message(choice)))


def _message(choice: Any) -> Any:  # noqa: ANN401
    return getattr(choice, "delta", None) or choice.message


def _say(choice: Any, text: str) -> None:  # noqa: ANN401
    """Write a choice anew, of a text and of the calls in it: all else may repeat what the model said."""
    if isinstance(choice, TextChoices):
        choice.text = text
    else:
        calls = _called(choice)
        choice.message = type(choice.message)(role="assistant", content=text or (None if calls else ""), **calls)
    _strip(choice, ("index", "message", "text", "finish_reason", "logprobs"))
    for name in ("logprobs", "provider_specific_fields"):
        if getattr(choice, name, None) is not None:
            setattr(choice, name, None)


def _strip(value: Any, names: tuple[str, ...]) -> None:  # noqa: ANN401
    """Take out of an answer what its class does not know and is not among these names."""
    for name in set(value.model_extra or ()).difference(names):
        delattr(value, name)


def _delta(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _chunk(like: Any, deltas: Mapping[int, Mapping[str, Any]], reasons: Mapping[int, Any]) -> Any:  # noqa: ANN401
    """A chunk of a stream, of the same kind as another, with why its choices end."""
    around = {"id": like.id, "model": like.model, "created": like.created}
    ends = {index: {"index": index, "finish_reason": reasons.get(index)} for index in deltas}
    if isinstance(like, TextCompletionResponse):
        whole = [{**ends[index], "text": delta.get("content", "")} for index, delta in deltas.items()]
        return TextCompletionResponse(**around, choices=whole)
    return ModelResponseStream(**around, choices=[{**ends[index], "delta": delta} for index, delta in deltas.items()])


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value of LiteLLM as JSON has it, without what is not set."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    dump = getattr(value, "model_dump", None)
    return json.loads(json.dumps(dump(exclude_none=True) if dump else value, default=str))
