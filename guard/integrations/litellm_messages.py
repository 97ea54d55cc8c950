"""How what LiteLLM's proxy hands over is read and written: requests of each call, answers, chunks of streams."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from litellm.types.utils import ModelResponseStream, TextChoices, TextCompletionResponse

from guard.anew.chat import AROUND, calls_of, said_of
from guard.engine import Guard
from guard.errors import BadRequest, UpstreamError
from guard.forwarded import Said
from guard.types import Turn
from guard.wires import BY_ENDPOINT, CHAT, Wire, WireRequest
from guard.wires.json import dump_request, parse_json
from guard.wires.requests import (
    KNOWN,
    ROUTING,
    field_turns,
    models_of,
    no_other_conversation,
    stored_prompt,
    texts_of,
)

_CONVERSATIONS = ("messages", "input", "prompt", "query", "contents")  # what some call takes for the conversation
# What LiteLLM writes into a request itself.
_OF_LITELLM = ("model_info", "provider_specific_header", "proxy_server_request", "secret_fields")
_JSON = (str, list, dict)
_FILES = ("file", "image", "input_reference", "mask")  # what calls for images, videos and transcripts send beside text


def read_request(guard: Guard, data: dict[str, Any], call_type: str) -> tuple[WireRequest, str]:
    """A request as its wire reads it, and the field of its conversation; what is taken out is taken out of `data`.

    Raises:
        BadRequest: it has no text to judge, two conversations, or something else that cannot be judged.
    """
    reading = guard.reading
    extra = data.get("extra_body") or {}  # LiteLLM puts what it holds over the rest
    if not isinstance(extra, dict):
        raise BadRequest("extra_body: need an object", param="extra_body")
    wire = _wire(data, call_type)
    fields = ("query",) if wire is None else (wire.param, *wire.beside)
    _check_conversations(data, extra, fields)
    own = {*fields, *_FILES, *_OF_LITELLM, *(("text",) if "instructions" in fields else ())}
    unread = own | KNOWN.difference(reading.judged_fields)
    others = {name: plain(value) for name, value in data.items() if name not in unread and isinstance(value, _JSON)}
    beside = field_turns(others, reading, own)
    given = {name: plain(data[name]) for name in fields if data.get(name) is not None}
    files = tuple(name for name in _FILES if data.get(name) or extra.get(name))
    guard.only_text(files, ", ".join(files), removable=False)
    if wire is None:
        texts = (Turn("user", text) for text in texts_of(given, "query"))
        return WireRequest((*beside, *texts), "", non_text=files, stored=stored_prompt(data)), "query"
    body = dump_request(given)
    request = wire.parse(body, replace(reading, judged_fields=(), unknown_fields="pass"))
    if request.body != body:
        for name in given:
            del data[name]
        data |= parse_json(request.body)
    request = replace(
        request,
        turns=(*beside, *request.turns),
        non_text=(*request.non_text, *files),
        stored=(*stored_prompt(data), *request.stored),
    )
    return request, wire.param


def named_by_client(data: Mapping[str, Any]) -> Iterator[object]:
    """Every model that a request names.

    LiteLLM puts the fallbacks that its operator gave to a key or a team where a client may name some too.
    """
    sent = (data.get("proxy_server_request") or {}).get("body") or data
    return models_of({**data, ROUTING: sent.get(ROUTING)})


def choices_of(chunk: Any) -> list[Any]:  # noqa: ANN401
    """The choices in a chunk of a stream.

    Raises:
        UpstreamError: it is of a stream that cannot be checked.
    """
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        raise UpstreamError(
            f"LiteLLM streams {type(chunk).__name__}, which this guardrail cannot check; ask for the answer in one "
            "piece, or for a stream of completions",
            code="bad_upstream",
        )
    return choices


def said_by(choice: Any) -> Said:  # noqa: ANN401
    """What a choice says, or a part of it in a stream."""
    if isinstance(choice, TextChoices):
        return Said(choice.index, choice.text or "")
    return said_of(plain(_message(choice)), choice.index)


def answer_anew(response: Any, texts: Sequence[str]) -> None:  # noqa: ANN401
    """Write an answer anew, of a text for each choice and of its calls."""
    _strip(response, (*AROUND, "choices"))
    for choice, text in zip(response.choices, texts, strict=True):
        _write_anew(choice, text)


def stream_anew(chunks: Sequence[Any], texts: Mapping[int, str]) -> Iterator[Any]:
    """A stream written anew, of a text for each choice, its calls, and why it ended."""
    yield _chunk(chunks[0], {index: _delta(text) for index, text in texts.items()}, {})
    reasons: dict[int, Any] = dict.fromkeys(texts, "stop")
    usage = None
    for chunk in chunks:
        calls = {choice.index: called for choice in chunk.choices if (called := _called(choice))}
        if calls:
            yield _chunk(chunk, calls, {})
        reasons |= {choice.index: why for choice in chunk.choices if (why := getattr(choice, "finish_reason", None))}
        usage = getattr(chunk, "usage", None) or usage
    last = _chunk(chunks[0], {index: {} for index in texts}, reasons)
    if usage is not None:
        last.usage = usage
    yield last


def stopped_chunk(like: Any, choices: Collection[int], text: str) -> Any:  # noqa: ANN401
    """The last chunk of a stream that was stopped, of the same kind as another; with a text, unless that is empty."""
    deltas = {index: _delta(text) if text else {} for index in sorted(choices) or [0]}
    return _chunk(like, deltas, dict.fromkeys(deltas, "content_filter"))


def plain(value: Any) -> Any:  # noqa: ANN401
    """A value of LiteLLM as JSON has it, without what is not set."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    dump = getattr(value, "model_dump", None)
    return json.loads(json.dumps(dump(exclude_none=True) if dump else value, default=str))


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


def _check_conversations(data: Mapping[str, Any], extra: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """Refuses a conversation beside the one in `fields`, and any in what is put over it."""
    others = [name for name in _CONVERSATIONS if name not in fields]
    if "input" in fields and not isinstance(data.get("prompt"), dict):
        others.append("prompt")
    no_other_conversation(data, *others, own=fields)
    no_other_conversation(extra, *others, *fields)


def _called(choice: Any) -> dict[str, Any]:  # noqa: ANN401
    """The calls of tools in a choice, or in a part of it."""
    return {} if isinstance(choice, TextChoices) else calls_of(plain(_message(choice)))


def _message(choice: Any) -> Any:  # noqa: ANN401
    return getattr(choice, "delta", None) or choice.message


def _write_anew(choice: Any, text: str) -> None:  # noqa: ANN401
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
