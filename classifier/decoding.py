"""Texts that stand encoded in a text: base64, lists of codes, escapes, rot13, letters from last to first."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import unicodedata
import urllib.parse
from collections.abc import Iterator

import regex

_LAYERS = 3  # an encoded text may be encoded once more
_HIDDEN = regex.compile(r"\p{Cf}")
_BASE64 = regex.compile(r"(?<![\w+/-])[\w+/-]{16,}={0,2}(?:\s[\w+/-]{16,}={0,2})*(?:\s[\w+/-]+={1,2})?", regex.ASCII)
_HEX = regex.compile(r"(?<!\w)(?:0x)?(?:(?:[0-9A-Fa-f]{2})++(?:,? ?0x|[ :,-])?)+(?!\w)", regex.ASCII)
_FEWEST_DIGITS = 24
_HEX_MARKS = regex.compile(r"0x|[ :,-]")
# Characters by their codes, one by one, however the list is written.
_MARKS = r"""[\s,;:.|'"\[\]-]"""
_HEX_CODE = r"(?:0x|U\+(?:00)?)?([0-9A-F]{2})(?![0-9A-F])"
_HEX_CODES = regex.compile(rf"(?<![\w.])(?:{_HEX_CODE}{_MARKS}{{1,4}}){{11,}}(?:{_HEX_CODE})?", regex.ASCII | regex.I)
_HEX_LETTER = regex.compile(r"[A-F]", regex.I)  # no list of two-digit numbers
_DECIMAL_CODES = regex.compile(rf"(?<![\w.])(?:\d{{2,3}}{_MARKS}{{1,4}}){{11,}}\d{{2,3}}(?!\w)", regex.ASCII)
_BITS = regex.compile(rf"(?<!\w)(?:[01]{{8}}{_MARKS}{{0,4}}){{12,}}(?!\w)", regex.ASCII)
_URL = regex.compile(r"%[0-9A-Fa-f]{2}")
_HTML = regex.compile(r"&#(?:0*\d{2,7}|[xX]0*[0-9A-Fa-f]{2,6})")
_ESCAPE = regex.compile(r"\\(?:[uUx]|(?:0?[4-7][0-7]|1[0-7]{2})(?!\d))", regex.ASCII)
_ESCAPED = regex.compile(
    r"\\(?:u([0-9A-Fa-f]{4})|u\{0*([0-9A-Fa-f]{1,5})\}|U000([0-9A-Fa-f]{5})|(0?[4-7][0-7]|1[0-7]{2})(?!\d))"
    r"|(?:\\x[0-9A-Fa-f]{2})+",
    regex.ASCII,
)
_FEWEST_ESCAPES = 4
_WORD = regex.compile(r"\p{L}{2,}")
_FEWEST_CHARACTERS = 8
_READABLE = regex.compile(r"[\p{L}\p{M}\p{N}\s\p{P}]")
_LETTER = regex.compile(r"\p{L}")
_STRETCH = regex.compile(r"[\n:\"“”«»`|()\[\]]+")
_ENGLISH = 0.2  # of its words are common ones
_LATIN_WORD = regex.compile(r"[A-Za-z']+")
_COMMON = frozenset(
    "about all an and any are as at be but by can do for from have he her his how if in is it me my not of on or "
    "she so that the their them they this to was we what when where which who why will with without you your".split()
)


def decoded(text: str) -> list[str]:
    """What a text says in an encoding: one reading for each way and layer, readable ones only.

    Nothing for an ordinary text. All readings together are at most a few times as long as the text.
    """
    whole = _HIDDEN.sub("", unicodedata.normalize("NFKC", text))
    found, layer = {whole: None}, [whole]
    for _ in range(_LAYERS):
        readings = dict.fromkeys(reading for each in layer for reading in _readings(each) if reading)
        layer = [reading for reading in readings if reading not in found]
        found.update(dict.fromkeys(layer))
    del found[whole]
    return [each for each in found if _WORD.search(each) and (len(each) >= _FEWEST_CHARACTERS or not each.isascii())]


def _readings(text: str) -> Iterator[str]:
    plain = _unescaped(text)
    yield plain
    yield "\n".join(dict.fromkeys(_runs(plain)))
    yield _in_other_letters(plain)


def _unescaped(text: str) -> str:
    """The whole text without its escapes, so that what they part stays together."""
    if len(_URL.findall(text)) >= _FEWEST_ESCAPES:
        text = urllib.parse.unquote(text, errors="replace")
    if len(_HTML.findall(text)) >= _FEWEST_ESCAPES:
        text = html.unescape(text)
    if len(_ESCAPE.findall(text)) >= _FEWEST_ESCAPES:
        text = _ESCAPED.sub(_from_escape, text)
    return text


def _from_escape(match: regex.Match[str]) -> str:
    if match[4]:
        return chr(int(match[4], 8))
    digits = match[1] or match[2] or match[3]
    return chr(int(digits, 16)) if digits else _from_bytes(match[0])


def _from_bytes(escapes: str) -> str:
    """Escaped bytes, as UTF-8 where they are that."""
    found = bytes.fromhex(escapes.replace("\\x", ""))
    try:
        return found.decode()
    except UnicodeDecodeError:
        return found.decode("latin-1")


def _runs(text: str) -> Iterator[str]:
    """What runs of hexadecimal digits and of base64 say, and lists of codes, those that are readable."""
    for match in _HEX.finditer(text):
        digits = _HEX_MARKS.sub("", match[0])
        if len(digits) >= _FEWEST_DIGITS:
            yield from _readable(bytes.fromhex(digits))
    for match in _BASE64.finditer(text):
        yield from _readable(_from_base64(match[0]))
    rest, at = [], 0  # what is no list of hexadecimal codes
    for match in _HEX_CODES.finditer(text):
        codes = "".join(filter(None, (*match.captures(1), match[2])))
        if _HEX_LETTER.search(codes):
            yield from _readable(bytes.fromhex(codes))
            rest.append(text[at : match.start()])
            at = match.end()
    rest.append(text[at:])
    for match in _BITS.finditer(text):
        bits = "".join(regex.findall("[01]", match[0]))
        yield from _readable(int(bits, 2).to_bytes(len(bits) // 8))
    for match in _DECIMAL_CODES.finditer("\n".join(rest)):
        said = "".join(chr(int(code)) for code in regex.findall(r"\d+", match[0], regex.ASCII))
        if _commonness(said) >= _ENGLISH:
            yield said


def _from_base64(run: str) -> bytes:
    digits = "".join(run.split()).replace("=", "").replace("-", "+").replace("_", "/")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4))
    except binascii.Error:
        return b""


def _readable(found: bytes) -> Iterator[str]:
    """Decoded bytes, if they are nearly nothing but letters, digits, blanks and punctuation in UTF-8 or UTF-16."""
    wide = len(found) >= 2 * _FEWEST_CHARACTERS and not any(found[1::2])  # as PowerShell writes it
    text = found.decode("utf-16-le" if wide else "utf-8", "replace")
    if text and len(_READABLE.findall(text)) >= 0.9 * len(text):
        yield text


def _in_other_letters(text: str) -> str:
    """Rot13, or letters from last to first, of each stretch that is English so, and that is none as it stands."""
    return "\n".join(filter(None, map(_turned, _STRETCH.split(text))))


def _turned(text: str) -> str:
    letters = _LETTER.findall(text)
    if sum(map(str.isascii, letters)) < 0.95 * len(letters) or _commonness(text) > 0.1:
        return ""
    best = max((codecs.encode(text, "rot13"), text[::-1]), key=_commonness)
    return best if _commonness(best) >= _ENGLISH else ""


def _commonness(text: str) -> float:
    """Share of words that are common in English, of four words or more."""
    words = _LATIN_WORD.findall(text)
    return sum(word.lower() in _COMMON for word in words) / len(words) if len(words) >= 4 else 0.0
