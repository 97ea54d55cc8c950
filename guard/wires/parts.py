"""The parts of a message's content on every wire: what they say, and which of them hold no text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.errors import BadRequest
from guard.wires.json import MAX_DEPTH, OPAQUE

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
IDENTIFIER = re.compile(r"[\w.:/@+=-]{0,64}", re.ASCII)
_LINKS = frozenset({"url", "file_url", "image_url", "video_url", "audio_url"})
_MEDIA_DATA = _LINKS | {"data", "file_data"}
_BYTES = re.compile(rf"(?:data:[\w/.+;=-]*;base64,)?{OPAQUE.pattern}", re.ASCII)
_LINK = re.compile(rf"https?://[!-~]*|{_BYTES.pattern}", re.ASCII)


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


def content(value: str | Sequence[Mapping[str, Any]] | None, param: str, parts: Parts) -> tuple[str, list[str]]:
    """Text of a message's content, with all that its parts say, and the kinds of its parts that are no text.

    Args:
        value: a text, or parts.
        param: where it stands, for errors.
        parts: the kinds that there are.

    Raises:
        BadRequest: a part is of another kind, or has no text.
    """
    if value is None or isinstance(value, str):
        return value or "", []
    texts: list[str] = []
    others: list[str] = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        field = parts.text.get(kind) if isinstance(kind, str) else None
        if field is not None and isinstance(part.get(field), str):
            texts.append(part[field])
            rest = {name: value for name, value in part.items() if name not in ("type", field)}
            texts += said(rest, f"{param}[{number}]")
            others += media_in(inside(part), parts)
        elif isinstance(kind, str) and kind in parts.media:
            texts += said(part, f"{param}[{number}]", parts=parts)
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
    unsaid = {} if written else {**dict.fromkeys(_IDS, IDENTIFIER), **_bytes_in(opaque)}
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
            if unsaid and parts and _is_media(inner, parts):
                unsaid = {**unsaid, **_bytes_in(_MEDIA_DATA)}
            for key, below in reversed(inner.items()):
                by_wire = (key in _SCHEMA or key in unsaid) and key not in _WRITTEN
                waiting.append((below, key, unsaid if by_wire else {}, depth + 1))
        elif isinstance(inner, list):
            waiting += [(below, "", unsaid, depth + 1) for below in reversed(inner)]
    return found


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
    if _is_media(value, parts):
        return {"type": parts.note, "text": f"[{value.get('type')} removed]"}
    return {name: without_media(inner, parts, depth + 1) if name in _NESTED else inner for name, inner in value.items()}


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
    return [str(block.get("type")) for block in blocks if _is_media(block, parts)]


def _is_media(part: Mapping[str, Any], parts: Parts) -> bool:
    """Whether a part holds no text: by its kind, or since it has a source; only a document's may be text."""
    kind, source = part.get("type"), part.get("source")
    if isinstance(source, dict):
        return kind != "document" or source.get("type") not in ("text", "content")
    return isinstance(kind, str) and kind in parts.media


def _bytes_in(names: Iterable[str]) -> dict[str, re.Pattern[str]]:
    """How what these names hold must look to be no text."""
    return {name: _LINK if name in _LINKS else _BYTES for name in names}
