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
    r"(?<![\p{Arabic}\p{Syriac}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Tamil}\p{Telugu}\p{Kannada}"
    r"\p{Malayalam}\p{Sinhala}\p{Mn}\p{Mc}])[\u200c\u200d]"
)
_CONTROL = regex.compile(r"[\p{Cc}--[\n\t]]", regex.V1)
_LINE_BREAK = regex.compile(r"\r\n|[\r\u0085\u2028\u2029\v\f]")
_BLANK = regex.compile(r"[^\S\n]+")
_BLANK_LINES = regex.compile(r" ?\n(?:\s*\n)? ?")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}'’]+")
_LATIN = regex.compile(r"\p{Latin}")
_NOT_LATIN = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
_LONG_RUN = regex.compile(r"\S{65,}")
_RUN = 48


def normalize(text: str) -> str:
    """The text as a reader would see it, in one Unicode form.

    In order: lone surrogates become U+FFFD; text written in invisible tag characters becomes visible; NFKC; invisible
    and control characters go; Latin look-alikes from other scripts become Latin in words that mix scripts; white space
    becomes one form; runs of more than 64 characters without white space are cut, since encoders skip longer words.
    Applying it twice changes nothing more, and text in a script other than Latin keeps its letters.
    """
    text = _SURROGATE.sub("\ufffd", text)
    text = _TAG.sub(lambda match: "".join(chr(ord(char) - 0xE0000) for char in match[0]), text)
    text = _LINE_BREAK.sub("\n", text)
    text = unicodedata.normalize("NFKC", text)
    text = _INVISIBLE.sub("", text)
    text = _STRAY_JOINER.sub("", text)
    text = _CONTROL.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _latinize(text))
    text = _BLANK.sub(" ", text)
    text = _BLANK_LINES.sub(lambda match: "\n\n" if match[0].count("\n") > 1 else "\n", text).strip()
    return _LONG_RUN.sub(lambda match: _cut(match[0]), text)


def _latinize(text: str) -> str:
    latin_text = len(_LATIN.findall(text)) > len(_NOT_LATIN.findall(text))
    return _WORD.sub(lambda match: _latin_word(match[0], latin_text), text)


def _latin_word(word: str, latin_text: bool) -> str:
    foreign = set(_NOT_LATIN.findall(word))
    if not foreign:
        return word
    twins = {char: _latin_twin(char) for char in foreign}
    mixed = _LATIN.search(word) is not None
    disguised = latin_text and all(twins.values())
    if not (mixed or disguised):
        return word
    return "".join(twins.get(char) or char for char in word)


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


def _cut(run: str) -> str:
    if len(_WORD.findall(run)) > len(run) // 32 or (not run.isascii() and _NOT_LATIN.search(run)):
        return run  # punctuation, or a script that writes without spaces: encoders cut these themselves
    return " ".join(run[start : start + _RUN] for start in range(0, len(run), _RUN))
