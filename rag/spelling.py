"""Take harmless differences out of a text: white space, quotation marks, dashes, compatibility forms, Markdown."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from html.entities import html5

_CLUSTER = 24  # marks on one character that are composed with it
_HIDDEN = r"[\u00ad\u200b-\u200d\u2060\ufeff]+"  # soft hyphens, zero-width marks; a mark of direction can make 12 a 21
_SPACE = r"&(?:nbsp|#160|#[xX][aA]0);"
_ENTITY = r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]{2,8}\d{0,2});"
_ESCAPED = r"\\[!-/:-@\[-`{-~]"
_EMPHASIS = r"(?<![^\W_])[*_`]+(?![\s*_`])|(?<![\s*_`])[*_`]+(?![^\W_])"
_MARKS = r"[\u0300-\u036f\u3099\u309a]"
_GREEK = r"\u0370-\u03ff\u1f00-\u1fff"
_STABLE = r"\xc0-\u012f\u0400-\u045f\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_ODD = re.compile(
    rf"(?:[^\S ]|{_SPACE})(?:\s|{_SPACE})*|\s{{2,}}|{_ENTITY}|{_ESCAPED}|{_HIDDEN}|{_EMPHASIS}|(?<=[{_GREEK}]);"
    rf"|[^\x00-\x7f{_STABLE}]{_MARKS}{{0,{_CLUSTER}}}"
    rf"|[\x21-\x7f{_STABLE}]{_MARKS}{{1,{_CLUSTER}}}"
)
_DROPPED = re.compile(rf"{_HIDDEN}|[*_`]+")
_DIGIT_BEHIND = re.compile(rf"(?:{_DROPPED.pattern})*\d")
_PLAIN = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'")
    | dict.fromkeys("“”„‟″«»「」『』", '"')
    | dict.fromkeys("‐‑‒–—―−﹣－", "-")
    | dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", ("^" + digit for digit in "0123456789"), strict=True))  # 10² is not 102
    | {"İ": "I", "ı": "i"}  # their lower case has another length, or matches an i that no table holds
    | {"。": ".", "，": ",", "；": ";", "：": ":", "！": "!", "？": "?", "\u037e": "?", "…": "...", "\u2044": "/"}
)
ENDS = " .!?;,:"
_WIDE = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"


@dataclass(frozen=True, slots=True)
class Normal:
    """A text in which harmless differences are gone; character ``i`` came from ``text[starts[i]:ends[i]]``."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def at(self, start: int) -> int:
        """The first normal character that came from `start` or later."""
        return bisect_left(self.starts, start)

    def up_to(self, end: int) -> int:
        """The normal character after the last that came from before `end`."""
        return bisect_right(self.ends, end)


def normal(text: str) -> Normal:
    """Compatibility forms composed, white space single, quotation marks and dashes plain, emphasis taken out.

    Entities and backslash escapes are read; links stay, since a reader follows them.
    """
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0

    def keep(piece: str, start: int, end: int) -> None:
        parts.append(piece)
        same = len(piece) == end - start
        starts.extend(range(start, end) if same else [start] * len(piece))
        ends.extend(range(start + 1, end + 1) if same else [end] * len(piece))

    for odd in _ODD.finditer(text):
        if position < odd.start():
            keep(text[position : odd.start()], position, odd.start())
        position = odd.end()
        written = _written(odd[0])
        if written.isspace():
            if parts and not parts[-1].endswith(" "):
                keep(" ", odd.start(), odd.end())
        elif not _DROPPED.fullmatch(odd[0]):
            piece = unicodedata.normalize("NFKC", written.translate(_PLAIN)).translate(_PLAIN)
            if "/" in piece[1:]:  # 1½ is not 11/2
                piece = " " * (bool(parts) and parts[-1][-1:].isdigit()) + piece
                piece += " " * bool(_DIGIT_BEHIND.match(text, odd.end()))
            keep(piece, odd.start(), odd.end())
    if position < len(text):
        keep(text[position:], position, len(text))
    return Normal("".join(parts), starts, ends)


def _written(odd: str) -> str:
    """What an entity, a backslash escape or a Greek question mark stands for; anything else as it is."""
    if odd == ";":
        return "?"
    if len(odd) == 2 and odd[0] == "\\":
        return odd[1]
    if odd[0] != "&":
        return odd
    if re.fullmatch(rf"(?:\s|{_SPACE})+", odd):
        return " "
    return unescape(odd) if odd[1] == "#" else html5.get(odd[1:], odd)


def key(words: str) -> str:
    """What two spellings of one sentence share: all but the case of the first letter and the punctuation at the end."""
    words = re.sub(rf"(?<={_WIDE}) | (?={_WIDE})", "", words.strip())
    question = "?" if "?" in words[-3:] else ""
    words = words.rstrip(ENDS)
    return words[:1].lower() + words[1:] + question if words else ""
