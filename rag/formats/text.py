"""Markdown and text, each with YAML front matter if it has any; and how bytes become text."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace

from rag.formats import Extracted
from rag.metadata import parse_yaml
from rag.types import Limits, Unreadable

_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)

_INDENTATION = re.compile(r"^(?: {4}| {0,3}\t)[ \t]*(?=[^\s#=])(?!-+[ \t]*$)", re.MULTILINE)  # no heading is made


def read_text(data: bytes, limits: Limits) -> list[Extracted]:
    """The text behind the front matter, as it is."""
    whole = decode(data)
    if re.match(r"\s+---[ \t]*\n[\w-]+[ \t]*:", whole):
        whole = whole.lstrip()
    if not re.match(r"---[ \t]*\n", whole):
        return [Extracted(whole.strip("\n"))]
    match = _FRONT_MATTER.match(whole)
    if match is None:
        raise Unreadable("front matter opens with `---` and is never closed; add a second `---` line")
    return [Extracted(whole[match.end() :].strip("\n"), parse_yaml(match["yaml"], "front matter"))]


def read_plain(data: bytes, limits: Limits) -> list[Extracted]:
    """As `read_text`, without indentation, which begins a paragraph here and would be code in Markdown."""
    return [replace(each, text=_INDENTATION.sub("", each.text)) for each in read_text(data, limits)]


def decode(data: bytes, charset: str = "utf-8") -> str:
    """Text, each line ended by a line feed: by its byte order mark, else by the charset declared; never guessed.

    Raises:
        Unreadable: the bytes are not of that charset, or they are no text.
    """
    charset = next((name for mark, name in _MARKS if data.startswith(mark)), charset)
    try:
        text = data.decode(charset)
    except UnicodeDecodeError as exc:
        name = exc.encoding.upper()
        raise Unreadable(f"is not {name} ({exc.reason} at byte {exc.start}); save it as UTF-8") from exc
    if "\0" in text:
        raise Unreadable("holds NUL characters and is no text; save it as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")
