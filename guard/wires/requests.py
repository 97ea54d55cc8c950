"""What reading a request has in common on every wire: strict models, parts of content, texts in odd places."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guard.errors import BadRequest
from guard.types import FIELD, Turn
from guard.wires.json import MAX_DEPTH, OPAQUE, dump_request, leaves
from guard.wires.types import Reading, WireRequest

MAX_ITEMS = 4096
_MOST_PARAGRAPHS = 8  # of a refusal before quotes
# Names that the wires give; any other name in a message is something that somebody wrote.
_SCHEMA = frozenset(
    "annotations arguments audio cache_control call_id citations content context custom data detail encrypted_content "
    "end_index file file_data file_id file_url filename format function function_call id image_url index input "
    "input_audio is_error logprobs media_type name output reasoning reasoning_content refusal signature source "
    "start_index status summary text thinking title tool_call_id tool_calls tool_use_id ttl type url url_citation "
    "video_url audio_url".split()
)
_WRITTEN = frozenset({"input", "arguments"})  # of these, below which others than the wire choose the names
_NESTED = _SCHEMA - _WRITTEN  # where a part may hold others
_IDS = frozenset({"id", "type", "tool_call_id", "call_id", "tool_use_id", "status", "media_type", "ttl"})
_IDENTIFIER = re.compile(r"[\w.:/@+=-]{0,64}", re.ASCII)
_LINKS = frozenset({"url", "file_url", "image_url", "video_url", "audio_url"})
_MEDIA_DATA = _LINKS | {"data", "file_data"}
_BYTES = re.compile(rf"(?:data:[\w/.+;=-]*;base64,)?{OPAQUE.pattern}", re.ASCII)
_LINK = re.compile(rf"https?://[!-~]*|{_BYTES.pattern}", re.ASCII)
_PROMPT = "prompt_id"
_CONVERSATIONS = ("messages", "prompt", "input", _PROMPT)
EXTRA = "extra_body"  # some servers merge it into the request
FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")  # tried in the request's place

M = TypeVar("M", bound="Open")


class Open(BaseModel):
    """A part of a request: strict in what is known, open to more."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        """A reader that ignores case would take `Content` for `content`."""
        for name in self.model_extra or {}:
            if name.casefold() in type(self).model_fields:
                raise ValueError(f"write {name!r} as {name.casefold()!r}")
        return self


@dataclass(frozen=True, slots=True)
class Parts:
    """The kinds of parts that a wire's content may have.

    Attributes:
        text: the field with the text, by kind.
        media: kinds that hold no text.
        note: kind of the text that stands where one of them was taken out.
    """

    text: Mapping[str, str]
    media: frozenset[str]
    note: str = "text"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a conversation, as a refused turn is known by it: whose it is, and what it says."""

    role: str
    said: str


def validated(model: type[M], data: object) -> M:
    """A request, or a part of one, by its model.

    Raises:
        BadRequest: it is none; the message names the field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        error = exc.errors()[0]
        # Of a union, pydantic names the member that it tried too; a client knows only the field.
        loc = [part for part in error["loc"] if isinstance(part, int) or (part.isidentifier() and part != "str")][:3]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        raise BadRequest(f"{param or 'the body'}: {error['msg'][0].lower()}{error['msg'][1:]}", param=param) from exc


def limited(data: object, field: str) -> None:
    """Refuses a list that nobody writes, before anything looks into it.

    Raises:
        BadRequest: it is longer than `MAX_ITEMS`.
    """
    items = data.get(field) if isinstance(data, dict) else None
    if isinstance(items, list) and len(items) > MAX_ITEMS:
        raise BadRequest(f"{field}: {len(items)} of them; at most {MAX_ITEMS}", param=field)


def no_other_conversation(data: object, *fields: str, own: Collection[str] = ()) -> None:
    """Refuses what some server may take for the conversation in place of what was judged.

    Args:
        data: the body.
        fields: of other wires.
        own: what the wire reads of a request beside its conversation.

    Raises:
        BadRequest: one of the fields is there, or what is merged into the request, or tried after it, holds one, or
            one of the wire's own.
    """
    if not isinstance(data, dict):
        return
    for field in fields:
        if data.get(field) is not None:
            raise BadRequest(f"{field}: is no field of this endpoint; leave it out", param=field)
    for field, merged in _merged(data):
        for name in (name for name in (*_CONVERSATIONS, *own) if merged.get(name) is not None):
            raise BadRequest(
                f"{field}: holds {name!r}, a conversation in the place of the one that is judged; leave it out",
                param=field,
            )


def texts_of(data: Mapping[str, Any], field: str) -> list[str]:
    """The texts of a field that holds one, or a list of them.

    Raises:
        BadRequest: it holds something else, such as token ids.
    """
    value = data.get(field)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return list(value)
    if isinstance(value, list) and value and all(isinstance(each, (int, list)) for each in value):
        raise BadRequest(
            f"{field}: token ids cannot be judged; send the text itself", param=field, code="unsupported_content"
        )
    raise BadRequest(f"{field}: need a text, or a list of texts", param=field)


def content(
    value: str | Sequence[Mapping[str, Any]] | None, param: str, parts: Parts, opaque: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Text of a message's content, with all that its parts say, and the kinds of its parts that are no text.

    Args:
        value: a text, or parts.
        param: where it stands, for errors.
        parts: the kinds that there are.
        opaque: names whose values are no text.

    Raises:
        BadRequest: a part is of another kind, or has no text.
    """
    if value is None or isinstance(value, str):
        return value or "", []
    texts: list[str] = []
    others: list[str] = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        field = parts.text.get(kind, "") if isinstance(kind, str) else ""
        if isinstance(kind, str) and isinstance(part.get(field), str):
            texts.append(part[field])
            rest = {name: value for name, value in part.items() if name not in ("type", field)}
            texts += said(rest, f"{param}[{number}]", opaque=opaque)
            others += media_in(inside(part), parts)
        elif isinstance(kind, str) and kind in parts.media:
            texts += said(part, f"{param}[{number}]", opaque=opaque, parts=parts)
            others += media_in(nested(part), parts)
        else:
            known = ", ".join((*parts.text, *sorted(parts.media)))
            raise BadRequest(f"{param}[{number}]: need a `type` of {known}, and for text its `text`", param=param)
    return "\n".join(texts), others


def said(
    value: Any,  # noqa: ANN401 - any JSON value
    param: str,
    *,
    opaque: Collection[str] = (),
    parts: Parts | None = None,
    written: bool = False,
) -> list[str]:
    """Everything that a part of a message says: every string and every name that is not a wire's own.

    Identifiers, and bytes under names that hold them, are not said as far as they look like it; below names that are
    not the wire's own every string is.

    Args:
        value: any JSON value.
        param: where it stands, for errors.
        opaque: names that hold bytes.
        parts: the kinds of parts, of which those without text hold bytes or an address.
        written: whether its names are not the wire's.

    Raises:
        BadRequest: it is nested too deep.
    """
    found: list[str] = []
    unsaid = {} if written else {**dict.fromkeys(_IDS, _IDENTIFIER), **_bytes_in(opaque)}
    waiting = [(value, "", unsaid, 0)]
    while waiting:
        inner, name, unsaid, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadRequest(f"{param}: nested deeper than {MAX_DEPTH} levels", param=param)
        if isinstance(inner, str):
            if name not in unsaid or not unsaid[name].fullmatch(inner):
                found.append(inner)
        elif isinstance(inner, dict):
            found += [key for key in inner if key not in _SCHEMA]
            if unsaid and parts and is_media(inner, parts):
                unsaid = {**unsaid, **_bytes_in(_MEDIA_DATA)}
            for key, below in reversed(inner.items()):
                by_wire = (key in _SCHEMA or key in unsaid) and key not in _WRITTEN
                waiting.append((below, key, unsaid if by_wire else {}, depth + 1))
        elif isinstance(inner, list):
            waiting += [(below, "", unsaid, depth + 1) for below in reversed(inner)]
    return found


def trimmed(
    data: dict[str, Any],
    request: WireRequest,
    reading: Reading,
    *,
    field: str,
    parts: Parts,
    entry: Callable[[Any], Entry],
    read: Callable[[Any, bytes, Reading], WireRequest],
    dropped: str | None = None,
    beside: str | None = None,
) -> WireRequest:
    """A request without refused turns and, where `reading` says so, without parts that hold no text.

    Args:
        data: the body, which is changed.
        request: what was read of it.
        reading: what is taken out.
        field: where the list of its messages is.
        parts: the wire's.
        entry: how a refused turn is known.
        read: reads what is left.
        dropped: type of messages that are no text as a whole, and go with the parts.
        beside: another field that holds parts.
    """
    messages = data[field]
    stay = kept([entry(message) for message in messages], reading.refusals)
    if len(stay) < len(messages):
        data[field] = [messages[index] for index in stay]
        request = read(data, dump_request(data), reading)
    if reading.text_only and request.non_text:
        stay = [index for index in stay if dropped is None or messages[index].get("type") != dropped]
        data[field] = without_media([messages[index] for index in stay], parts)
        if beside in data:
            data[beside] = without_media(data[beside], parts)
        request = replace(request, body=dump_request(data), removed=request.non_text, non_text=())
    return replace(request, kept=tuple(stay))


def kept(entries: Sequence[Entry], refusals: Collection[str]) -> list[int]:
    """Which messages stay when refused turns are taken out.

    An assistant message that is one of `refusals`, or begins with one and a blank line, goes, with all but the
    operator's own messages since the user message that it answers: so a conversation can go on after a refusal, and
    what was refused does not reach the model later. A client that makes such a message up only loses its own turn.
    """
    turns: list[list[int]] = []  # of each user message that stays: itself, and what would go with it
    gone: set[int] = set()
    for index, entry in enumerate(entries):
        role = entry.role
        if role == "assistant" and turns and _begins_with(entry.said.strip(), refusals):
            gone.update(turns.pop(), (index,))
        elif role == "user":
            turns.append([index])
        elif turns and role not in ("system", "developer"):
            turns[-1].append(index)
    return [index for index in range(len(entries)) if index not in gone]


def without_media(value: Any, parts: Parts, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
    """Messages in which a note stands in the place of each part that holds no text.

    Raises:
        BadRequest: they are nested too deep.
    """
    if depth > MAX_DEPTH:
        raise BadRequest(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [without_media(inner, parts, depth + 1) for inner in value]
    if not isinstance(value, dict):
        return value
    if is_media(value, parts):
        return {"type": parts.note, "text": f"[{value.get('type')} removed]"}
    return {name: without_media(inner, parts, depth + 1) if name in _NESTED else inner for name, inner in value.items()}


def is_media(part: Mapping[str, Any], parts: Parts) -> bool:
    """Whether a part holds no text: by its kind, or since it has a source; only a document's may be text."""
    kind, source = part.get("type"), part.get("source")
    if isinstance(source, dict):
        return kind != "document" or source.get("type") not in ("text", "content")
    return isinstance(kind, str) and kind in parts.media


def nested(block: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    """A part and those inside it.

    Raises:
        BadRequest: they are nested too deep.
    """
    if depth > MAX_DEPTH:
        raise BadRequest(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(block, list):
        for inner in block:
            yield from nested(inner, depth + 1)
    elif isinstance(block, dict):
        yield block
        yield from inside(block, depth + 1)


def inside(block: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The parts inside a part, or beside the content of a message.

    Raises:
        BadRequest: they are nested too deep.
    """
    for name, inner in block.items():
        if name in _NESTED:
            yield from nested(inner, depth)


def media_in(blocks: Iterable[Mapping[str, Any]], parts: Parts) -> list[str]:
    """The kinds of those parts that hold no text."""
    return [str(block.get("type")) for block in blocks if is_media(block, parts)]


def field_turns(data: Mapping[str, Any], names: Collection[str]) -> list[Turn]:
    """The texts of fields beside the conversation that are to be judged; the names in `extra_body` are fields too.

    So are the fields of what is merged into the request, or tried after it.
    """
    sources = [data, *(merged for field, merged in _merged(data) if field not in names)]
    fields = [(name, source[name]) for source in sources for name in names if source.get(name)]
    fields = [
        (name, list(value.values()) if name == EXTRA and isinstance(value, dict) else value) for name, value in fields
    ]
    found = ["\n".join(said(value, name, written=True)) for name, value in fields]
    return [Turn(FIELD, text) for text in found if text.strip()]


def stored_prompt(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The field by which LiteLLM puts a prompt that it keeps before the conversation, if it is there."""
    return (_PROMPT,) if data.get(_PROMPT) else ()


def strings_beside(data: Mapping[str, Any], conversation: str, written: Collection[str]) -> frozenset[str]:
    """Every string of a request that is not of its conversation, and the names below those in `written`.

    Raises:
        BadRequest: it is nested too deep.
    """
    try:
        beside = [leaves(value, (name,), written) for name, value in data.items() if name != conversation]
        return frozenset(text for found in beside for _, text in found)
    except ValueError as exc:
        raise BadRequest(str(exc)) from exc


def _bytes_in(names: Iterable[str]) -> dict[str, re.Pattern[str]]:
    """How what these names hold must look to be no text."""
    return {name: _LINK if name in _LINKS else _BYTES for name in names}


def _merged(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What some servers merge into a request, or try after it, each with the field that holds it."""
    if isinstance(extra := data.get(EXTRA), dict):
        yield EXTRA, extra
        yield from ((EXTRA, each) for name in FALLBACKS for each in _objects(extra.get(name)))
    yield from ((name, each) for name in FALLBACKS for each in _objects(data.get(name)))


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    """Every object in a value."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield inner
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner


def _begins_with(text: str, refusals: Collection[str]) -> bool:
    """Whether a text is a refusal, alone or with what a protective document says behind it."""
    paragraphs = text.split("\n\n", _MOST_PARAGRAPHS)[:_MOST_PARAGRAPHS]
    return text in refusals or any(
        "\n\n".join(paragraphs[:count]).strip() in refusals for count in range(1, len(paragraphs) + 1)
    )
