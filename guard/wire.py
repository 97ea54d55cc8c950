"""OpenAI's chat-completions wire: read a request strictly, write Airlock's own answers and errors."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guard.errors import BadRequest
from guard.types import Decision, Reply, Turn
from rag.types import Citation

TEXT_PARTS = {"text": "text", "input_text": "text", "refusal": "refusal"}
MEDIA_PARTS = frozenset(
    {"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file", "document"}
)
MAX_MESSAGES = 4096
_MOST_PARAGRAPHS = 8  # of a refusal before quotes


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        """A reader that ignores case would take `Content` for `content`."""
        for name in self.model_extra or {}:
            if name.casefold() in type(self).model_fields:
                raise ValueError(f"write {name!r} as {name.casefold()!r}")
        return self


class _Message(_Open):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: Any = None


class _StreamOptions(_Open):
    include_usage: bool | None = None


class _Request(_Open):
    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What Airlock needs to know of a request.

    Attributes:
        turns: the messages, in order, with their text.
        model: the model asked for.
        stream: whether the client wants server-sent events.
        include_usage: whether it wants a last event with the usage.
        non_text: kinds of message parts that hold no text, such as ``image_url``.
        body: what is sent on: the client's own bytes, unless turns were taken out.
    """

    turns: tuple[Turn, ...]
    model: str
    stream: bool
    include_usage: bool
    non_text: tuple[str, ...]
    body: bytes = b""


def parse_chat(body: bytes, refusals: Collection[str] = ()) -> ChatRequest:
    """Read the body of ``POST /v1/chat/completions``.

    An assistant message that is one of `refusals`, or begins with one and a blank line, is taken out, with all but the
    operator's own messages since the user message that it answers: so a conversation can go on after a refusal, and
    what was refused does not reach the model later. A client that makes such a message up only loses its own turn.

    Anything that two JSON readers may read differently is refused, since the model's server would read it once more:
    repeated keys, also in upper and lower case, NaN, text that is not UTF-8, a byte-order mark.

    Raises:
        BadRequest: it is not such a body; the message names the field.
    """
    data = parse_json(body)
    request = read_chat(data, body)
    kept = _not_refused(data, request.turns, refusals)
    if len(kept) == len(request.turns):
        return request
    data["messages"] = [data["messages"][index] for index in kept]
    try:
        return read_chat(data, dump(data))
    except ValueError as exc:
        raise BadRequest(f"the body holds a number that cannot be written: {exc}", code="invalid_json") from exc


def _not_refused(data: Any, turns: Sequence[Turn], refusals: Collection[str]) -> list[int]:  # noqa: ANN401
    """Indices of the turns that stay."""
    said = [_content(message.get("content"), "")[0] for message in data["messages"]]
    kept: list[int] = []
    for index, turn in enumerate(turns):
        asked = next((place for place in reversed(range(len(kept))) if turns[kept[place]].role == "user"), None)
        if turn.role == "assistant" and asked is not None and _begins_with(said[index].strip(), refusals):
            kept[asked:] = [place for place in kept[asked:] if turns[place].role in ("system", "developer")]
        else:
            kept.append(index)
    return kept


def _begins_with(said: str, refusals: Collection[str]) -> bool:
    """Whether a text is a refusal, alone or with what a protective document says behind it."""
    paragraphs = said.split("\n\n", _MOST_PARAGRAPHS)[:_MOST_PARAGRAPHS]
    return said in refusals or any(
        "\n\n".join(paragraphs[:count]).strip() in refusals for count in range(1, len(paragraphs) + 1)
    )


def read_chat(data: Any, body: bytes = b"") -> ChatRequest:  # noqa: ANN401 - any JSON value
    """The same from parsed JSON, nothing taken out.

    Raises:
        BadRequest: it is no chat request; the message names the field.
    """
    if isinstance(data, dict) and isinstance(data.get("messages"), list) and len(data["messages"]) > MAX_MESSAGES:
        raise BadRequest(f"messages: {len(data['messages'])} of them; at most {MAX_MESSAGES}", param="messages")
    try:
        request = _Request.model_validate(data)
    except ValidationError as exc:
        error = exc.errors()[0]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"][:3]).lstrip(".")
        raise BadRequest(f"{param or 'the body'}: {error['msg'][0].lower()}{error['msg'][1:]}", param=param) from exc
    if not request.messages:
        raise BadRequest("messages: need at least one message", param="messages")
    turns = []
    non_text: list[str] = []
    for number, message in enumerate(request.messages):
        text, others = _content(message.content, f"messages[{number}].content")
        rest = _said({"tool_calls": message.tool_calls, **(message.model_extra or {})}, f"messages[{number}]")
        turns.append(Turn(message.role, "\n".join([text, *rest])))
        non_text += others
    return ChatRequest(
        body=body,
        turns=tuple(turns),
        model=request.model or "",
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        non_text=tuple(dict.fromkeys(non_text)),
    )


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a body strictly.

    Raises:
        BadRequest: it is not UTF-8, not JSON, repeats a key, holds NaN, or is nested too deep.
    """
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=no_repeats, parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise BadRequest(f"the body is not UTF-8: byte {exc.start} cannot be read", code="invalid_utf8") from exc
    except json.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {exc.msg} at character {exc.pos}", code="invalid_json") from exc
    except (RecursionError, ValueError) as exc:
        raise BadRequest(f"the body is not acceptable JSON: {exc}", code="invalid_json") from exc


def content_texts(value: Any) -> dict[tuple[str, ...], str]:  # noqa: ANN401 - any JSON value
    """Every string that a model may have written, by path, in order.

    Items of a list share one path and so run together, unless they carry an `index`, as tool calls do.

    Raises:
        ValueError: it is nested too deep.
    """
    texts: dict[tuple[str, ...], str] = {}
    for path, text in _leaves(value, ()):
        if path[-1:] and path[-1] in _LABELS and _IDENTIFIER.fullmatch(text):
            continue
        texts[path] = texts.get(path, "") + text
    return texts


_MAX_DEPTH = 100
_IDENTIFIER = re.compile(r"[\w.:/@+=-]{0,128}")

# Written by servers, never by models, as far as they look like it.
_LABELS = frozenset(
    {
        "finish_reason",
        "id",
        "model",
        "native_finish_reason",
        "object",
        "obfuscation",
        "provider",
        "role",
        "service_tier",
        "system_fingerprint",
        "type",
    }
)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:  # noqa: ANN401
    if len(path) > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            index = inner.get("index") if isinstance(inner, Mapping) else None
            yield from _leaves(inner, (*path, f"#{index}" if isinstance(index, int) else "*"))


def completion(request: ChatRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
    """A chat completion that Airlock writes itself."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    message.update(_marks(reply))
    body = {
        **frame(request, decision, "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}],
        "usage": _USAGE,
    }
    if extras:
        body["airlock"] = extras_of(decision, reply)
    return dump(body)


def completion_events(request: ChatRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
    """The same as server-sent events."""
    around = frame(request, decision, "chat.completion.chunk")
    delta = {"role": "assistant", "content": reply.text, **_marks(reply)}
    last: dict[str, Any] = {**around, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]}
    if extras:
        last["airlock"] = extras_of(decision, reply)
    events = [{**around, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}, last]
    if request.include_usage:
        events.append({**around, "choices": [], "usage": _USAGE})
    return b"".join(map(event, events)) + DONE


def stopped_events(request: ChatRequest, decision: Decision, choices: Sequence[int]) -> bytes:
    """The end of a stream that was stopped after some of it was released: what is out stands, no more follows."""
    ended = [{"index": index, "delta": {}, "finish_reason": "content_filter"} for index in choices]
    return event({**frame(request, decision, "chat.completion.chunk"), "choices": ended}) + DONE


def error_body(
    message: str, *, kind: str, code: str, param: str | None = None, inner: Mapping[str, Any] | None = None
) -> bytes:
    """An error object as OpenAI writes it."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    if inner:
        error["innererror"] = inner
    return dump({"error": error})


def unavailable_body(decision: Decision, comfort: str = "") -> bytes:
    """The error of a request that could not be checked: never an answer, never passed on; `comfort` comes first."""
    message = comfort + ("\n\n" if comfort else "")
    message += (
        "Airlock could not check this, so it was held back. Try again; if it goes on, tell the operator the decision "
        f"{decision.id}."
    )
    return error_body(message, kind="server_error", code="guard_unavailable")


def blocked_body(decision: Decision, text: str) -> bytes:
    """The error of a refused request, for ``policy.on_block: error``."""
    verdict = decision.verdict
    result = {verdict.category: {"filtered": True, "severity": verdict.tier.label}} if verdict else {}
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": result}
    return error_body(text, kind="invalid_request_error", code="content_filter", param="messages", inner=inner)


DONE = b"data: [DONE]\n\n"
_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def frame(request: ChatRequest, decision: Decision, kind: str) -> dict[str, Any]:
    """What every completion and chunk that Airlock writes has beside its choices."""
    return {"id": f"chatcmpl-{decision.id}", "object": kind, "created": int(time.time()), "model": request.model}


def _finish(reply: Reply) -> str:
    return "content_filter" if reply.refused else "stop"


def _marks(reply: Reply) -> dict[str, Any]:
    marks: dict[str, Any] = {"refusal": reply.text} if reply.refused else {}
    return marks | ({"annotations": url_citations(reply.citations)} if reply.citations else {})


def url_citations(citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """Citations as a message carries them, by their places in its content."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": citation.answer_start,
                "end_index": citation.answer_end,
                "title": citation.title,
                "url": citation.url,
            },
        }
        for citation in citations
    ]


def extras_of(decision: Decision, reply: Reply | None = None) -> dict[str, Any]:
    """The `airlock` object of an answer."""
    said = decision.as_dict()
    extras = {name: said[name] for name in ("decision", "tier", "category", "route", "rule")}
    if reply is not None and reply.citations:
        extras["citations"] = [citation_dict(citation) for citation in reply.citations]
    if reply is not None and reply.notes:
        extras["notes"] = [asdict(note) | {"text": reply.text[note.start : note.end]} for note in reply.notes]
    return extras


def citation_dict(citation: Citation) -> dict[str, Any]:
    """A citation as it is written on the wire and on the command line."""
    names = ("passage", "document", "version", "title", "url", "start", "end", "quote", "score", "status", "verbatim")
    return {name: getattr(citation, name) for name in names}


def _content(content: str | list[dict[str, Any]] | None, param: str) -> tuple[str, list[str]]:
    """Text of a message's content, with all that its parts say, and the kinds of its parts that are no text."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    others: list[str] = []
    for number, part in enumerate(content):
        kind = part.get("type")
        field = TEXT_PARTS.get(kind, "") if isinstance(kind, str) else ""
        if isinstance(part.get(field), str):
            texts.append(part[field])
        elif isinstance(kind, str) and kind in MEDIA_PARTS:
            others.append(kind)
        else:
            known = ", ".join((*TEXT_PARTS, *sorted(MEDIA_PARTS)))
            raise BadRequest(f"{param}[{number}]: need a `type` of {known}, and for text its `text`", param=param)
        rest = {name: value for name, value in part.items() if name not in ("type", field)}
        texts += _said(rest, f"{param}[{number}]", opaque=_MEDIA_DATA if kind in MEDIA_PARTS else frozenset())
    return "\n".join(texts), others


# Names that the wire gives; any other name in a message is something that somebody wrote.
_SCHEMA = frozenset(
    "annotations arguments audio cache_control citations content custom data detail end_index file file_data file_id "
    "filename format function function_call id image_url index input input_audio name reasoning reasoning_content "
    "refusal start_index text title tool_call_id tool_calls type url url_citation video_url audio_url".split()
)
_IDS = frozenset({"id", "type", "tool_call_id"})
_MEDIA_DATA = frozenset({"url", "data", "file_data"})


def _said(value: Any, param: str, *, opaque: frozenset[str] = frozenset()) -> list[str]:  # noqa: ANN401
    """Everything that a part of a message says: every string and every name that is not the wire's own.

    Args:
        value: any JSON value.
        param: where it stands, for errors.
        opaque: names whose values are no text.

    Raises:
        BadRequest: it is nested too deep.
    """
    found: list[str] = []
    waiting = [(value, "", 0)]
    while waiting:
        inner, name, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise BadRequest(f"{param}: nested deeper than {_MAX_DEPTH} levels", param=param)
        if isinstance(inner, str):
            if name not in opaque and not (name in _IDS and _IDENTIFIER.fullmatch(inner)):
                found.append(inner)
        elif isinstance(inner, dict):
            found += [key for key in inner if key not in _SCHEMA]
            waiting += [(below, key, depth + 1) for key, below in reversed(inner.items())]
        elif isinstance(inner, list):
            waiting += [(below, name, depth + 1) for below in reversed(inner)]
    return found


def event(data: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + dump(data) + b"\n\n"


def dump(data: Mapping[str, Any]) -> bytes:
    """JSON as it goes over the wire.

    Raises:
        ValueError: a number is infinite, or is none.
    """
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: an object in which no key stands twice, in upper or lower case.

    Raises:
        ValueError: one does.
    """
    seen: set[str] = set()
    for key, _ in pairs:
        if key.casefold() in seen:
            raise ValueError(f"the key {key!r} stands twice in one object")
        seen.add(key.casefold())
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
