"""JSON that every reader reads alike: strict parsing, one way to write it, and the texts that a value holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.errors import BadRequest

MAX_DEPTH = 100
IDENTIFIER = re.compile(r"[\w.:/@+=-]{0,128}", re.ASCII)
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")  # of a server-sent event
OPAQUE = re.compile(r"(?:[\w+/=-]{60,}+\r?\n)*+[\w+/=-]*+", re.ASCII)  # base64 of any length, maybe in lines


@dataclass(frozen=True, slots=True)
class Names:
    """Names whose values are a server's in an answer, not the model's, as far as they look like it.

    Attributes:
        labels: hold identifiers.
        opaque: hold base64.
        written: below these the model has chosen the names too, so that nothing is taken for the server's, and the
            names are texts of the model's.
    """

    labels: frozenset[str]
    opaque: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()


NAMES = Names(
    frozenset(
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
    ),
    written=frozenset({"args", "arguments", "input"}),
)


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a body strictly.

    Raises:
        BadRequest: it is not UTF-8, not JSON, repeats a key, holds NaN, or is nested too deep.
    """
    try:
        return _STRICT.decode(body.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise BadRequest(f"the body is not UTF-8: byte {exc.start} cannot be read", code="invalid_utf8") from exc
    except json.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {exc.msg} at character {exc.pos}", code="invalid_json") from exc
    except (RecursionError, ValueError) as exc:
        raise BadRequest(f"the body is not acceptable JSON: {exc}", code="invalid_json") from exc


def read_answer(text: bytes | str) -> Any:  # noqa: ANN401
    """A server's JSON: as strictly, but numbers may be infinite.

    Raises:
        ValueError: it is not UTF-8, not JSON, or repeats a key.
        RecursionError: it is nested too deep.
    """
    return _ANSWER.decode(text if isinstance(text, str) else text.decode("utf-8"))


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For a JSON decoder: an object in which no key stands twice, in upper or lower case.

    Raises:
        ValueError: one does.
    """
    value = dict(pairs)
    if len({key.casefold() for key in value}) < len(pairs):
        folded = Counter(key.casefold() for key, _ in pairs)
        twice = next(key for key, _ in pairs if folded[key.casefold()] > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return value


def dump(data: Mapping[str, Any]) -> bytes:
    """JSON as it goes over the wire.

    Raises:
        ValueError: a number is infinite, or is none.
    """
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def dump_request(data: Mapping[str, Any]) -> bytes:
    """A request that something was taken out of.

    Raises:
        BadRequest: a number in it cannot be written.
    """
    try:
        return dump(data)
    except ValueError as exc:
        raise BadRequest(f"the body holds a number that cannot be written: {exc}", code="invalid_json") from exc


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + dump(data) + b"\n\n"


def content_texts(
    value: Any,  # noqa: ANN401 - any JSON value
    names: Names = NAMES,
) -> dict[tuple[str, ...], str]:
    """Every string that a model may have written, by path, in order.

    Items of a list share one path and so run together, unless they carry an `index`, as tool calls do.

    Args:
        value: any JSON value.
        names: those that servers give values to.

    Raises:
        ValueError: it is nested too deep.
    """
    texts: dict[tuple[str, ...], str] = {}
    for path, text in content_leaves(value, names):
        texts[path] = texts.get(path, "") + text
    return texts


def content_leaves(value: Any, names: Names = NAMES) -> Iterator[tuple[tuple[str, ...], str]]:  # noqa: ANN401
    """The same one by one."""
    for path, text in leaves(value, written=names.written):
        name = path[-1] if path else ""
        by_server = (name in names.labels and IDENTIFIER.fullmatch(text)) or (
            name in names.opaque and OPAQUE.fullmatch(text)
        )
        if not by_server or not names.written.isdisjoint(path):
            yield path, text


def leaves(
    value: Any,  # noqa: ANN401 - any JSON value
    path: tuple[str, ...] = (),
    written: Collection[str] = (),
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string, with where it stands; of each object below the names in `written`, its names too, as one text.

    Raises:
        ValueError: it is nested too deep.
    """
    if len(path) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        if value and any(name in written for name in path):
            yield (*path, ""), "".join(f"{key}\n" for key in value)
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)), written)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            index = inner.get("index") if isinstance(inner, Mapping) else None
            yield from leaves(inner, (*path, f"#{index}" if isinstance(index, int) else "*"), written)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=no_repeats, parse_constant=_no_constant)
_ANSWER = json.JSONDecoder(object_pairs_hook=no_repeats)
