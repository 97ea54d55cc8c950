"""Undo the ways of writing a text that hide it from a classifier, without harming other scripts."""

from __future__ import annotations

import functools
import unicodedata

import regex
from confusable_homoglyphs import confusables

_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_TAG = regex.compile(r"[\U000E0020-\U000E007E]+")
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Co}\p{Cn}--[\u200c\u200d]]", regex.V1)
# U+200C and U+200D shape words in Arabic and Indic scripts; anywhere else they only hide something.
_STRAY_JOINER = regex.compile(
    r"(?<![\p{scx=Arab}\p{scx=Syrc}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Tamil}\p{Telugu}\p{Kannada}"
    r"\p{Malayalam}\p{Sinhala}[[\p{Mn}\p{Mc}]--\p{Inherited}]])[\u200c\u200d]",
    regex.V1,
)
_MANY_MARKS = regex.compile(r"(\p{M}{16})\p{M}+")
_CONTROL = regex.compile(r"[\p{Cc}--[\n\t]]", regex.V1)
_LINE_BREAK = regex.compile(r"\r\n|[\r\u0085\u2028\u2029\v\f]")
_BLANK = regex.compile(r"[^\S\n]+")
_BLANK_LINES = regex.compile(r" ?\n(?:\s*\n)? ?")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}'’]+")
_LATIN = regex.compile(r"\p{Latin}")
_NOT_LATIN = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
_SYMBOLS = regex.compile(r"(?:[\p{S}--[\p{ASCII}\ufffd]]\p{M}*)+", regex.V1)
# Scripts that write without spaces stay whole: encoders cut these themselves.
_LONG_WORD = regex.compile(
    r"[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]{65,}", regex.V1
)
_PIECE = 48


def invisible(text: str) -> int:
    """How many characters of a text nobody sees, and `normalize` takes away."""
    return len(_INVISIBLE.findall(text))


def normalize(text: str) -> str:
    """The text as a reader would see it, in one Unicode form.

    In order: lone surrogates become U+FFFD; text written in invisible tag characters becomes visible; more than 16
    marks on one letter go; NFKC; invisible and control characters go; white space becomes one form; words of more than
    64 letters are cut and emoji and other symbols outside ASCII set apart, since encoders skip what is longer or has a
    symbol stuck to it; Latin look-alikes from other scripts become Latin in words that mix scripts, and in a mostly
    Latin text in words made of nothing else.
    Applying it twice changes nothing more, and text in a script other than Latin keeps its letters.
    """
    text = _SURROGATE.sub("\ufffd", text)
    text = _TAG.sub(lambda match: "".join(chr(ord(char) - 0xE0000) for char in match[0]), text)
    text = _LINE_BREAK.sub("\n", text)
    text = _MANY_MARKS.sub(r"\1", text)  # NFKC takes the square of their number
    text = unicodedata.normalize("NFKC", text)
    text = _INVISIBLE.sub("", text)
    text = _STRAY_JOINER.sub("", text)
    text = _CONTROL.sub("", text)
    text = unicodedata.normalize("NFKC", text)  # what the removed characters kept apart
    text = _BLANK.sub(" ", _SYMBOLS.sub(r" \g<0> ", text))
    text = _BLANK_LINES.sub(lambda match: "\n\n" if match[0].count("\n") > 1 else "\n", text).strip()
    text = _LONG_WORD.sub(lambda match: " ".join(_pieces(match[0])), text)
    return text if text.isascii() else unicodedata.normalize("NFKC", _latinize(text))


def _pieces(word: str) -> list[str]:
    return [word[start : start + _PIECE] for start in range(0, len(word), _PIECE)]


def _latinize(text: str) -> str:
    """Words that mix scripts first: they count as Latin when the script of the whole text is asked for."""
    text = _WORD.sub(lambda match: _latin_word(match[0], mixed=True), text)
    if len(_LATIN.findall(text)) <= len(_NOT_LATIN.findall(text)):
        return text
    return _WORD.sub(lambda match: _latin_word(match[0], mixed=False), text)


def _latin_word(word: str, *, mixed: bool) -> str:
    twins = {char: _latin_twin(char) for char in set(_NOT_LATIN.findall(word))}
    disguised = _LATIN.search(word) is not None if mixed else all(twins.values())
    return "".join(twins.get(char) or char for char in word) if twins and disguised else word


@functools.lru_cache(maxsize=4096)
def _latin_twin(char: str) -> str | None:
    """The ASCII letter that the Unicode table of confusables lists for a letter, or None."""
    found = confusables.is_confusable(char, greedy=True, preferred_aliases=[])
    if not found:
        return None
    twins: list[str] = [twin["c"] for twin in found[0]["homoglyphs"]]
    ascii_twins = [twin for twin in twins if len(twin) == 1 and twin.isascii() and twin.isalpha()]
    if not ascii_twins:
        return None
    same_case = [twin for twin in ascii_twins if twin.isupper() == char.isupper()]
    return (same_case or ascii_twins)[0]
