"""Read words that are written to be read by people only: in leetspeak, capitals, or with marks in place of blanks."""

from __future__ import annotations

import string
import unicodedata

import regex

# The scripts without blanks between words: encoders cut these themselves.
UNPARTED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}'’]+")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PAIR = regex.compile(r"[A-Za-z](?=[A-Za-z])")
_CAPITAL = regex.compile(r"\p{Lu}")
_SMALL = regex.compile(r"\p{Ll}")
_LETTER = regex.compile(r"\p{L}")
_FEWEST_CAPITALS = 8

# A token of letters and the digits and signs that stand for some, but no address; signs at its end are punctuation. In
# a text of such words, any that could be one is read so: "w47", "17".
_TOKEN = regex.compile(r"(?<![\w@$!])[\p{Latin}013457@$!]*[\p{Latin}013457@$](?![\w@$])(?!\.\p{Latin})")
_SIGN = regex.compile(r"[013457@$!]")
_NOT_ARABIZI = regex.compile(r"[014@$!]")  # Arabic in Latin letters writes 3, 5 and 7, among others, for sounds
_BETWEEN = regex.compile(r"\p{Latin}[013457@$!]+\p{Latin}")
_NO_HEX = regex.compile(r"[\p{Latin}--[a-fA-F]]", regex.V1)
_LEET = {"0": "o", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"}
_ALONE = regex.compile(r"(?<!\S)!(?=['’]\p{L}|\s+\S)")
_ENDING = regex.compile(r"\p{Latin}['’]$")
_DIGITS_AS_WORDS = {"1", "4", "15", "17", "45", "47", "50", "70"}  # I, a, is, it, as, at, so, to; others are numbers

_BLANKS = regex.compile(r"\s+")
_FEWEST_MARKS = {"_": 3}
_FEWEST_OTHERS = 4
# What code, addresses and paths have and a sentence without blanks does not.
_CODE = regex.compile(r"[{}<>=;\\/@]|\w[(\[]|::|^www\.")


def in_letters(text: str) -> str:
    """The text in letters, if a third of its words, three or more, are written with digits or signs for letters.

    Two of them need such a sign between letters: one is a name ("B2B", "a4tech"), many are leetspeak. What could be a
    hexadecimal number says nothing, nor do the digits alone that Arabic in Latin letters has.
    """
    written = [word for word in _TOKEN.findall(text) if _SIGN.search(word) and _NO_HEX.search(word)]
    between = sum(_BETWEEN.search(word) is not None for word in written)
    if between < 2 or sum(_NOT_ARABIZI.search(word) is not None for word in written) < 2:
        return text
    if len(written) < 3 or len(written) * 3 < len(_WORD.findall(text)):
        return text
    signs = any(sign in word for word in written for sign in "@$!")
    table = str.maketrans({**_LEET, "1": "l" if signs else "i"})

    def read(match: regex.Match[str]) -> str:
        ending = _ENDING.search(text, max(0, match.start() - 2), match.start())  # "d0n'7"
        number = match[0].isdigit() and not ending and (signs or match[0] not in _DIGITS_AS_WORDS)
        return match[0] if number else match[0].translate(table)

    text = _TOKEN.sub(read, text)
    return _ALONE.sub("i", text) if signs else text


def in_one_case(text: str) -> str:
    """The text in lower case, if capital and small letters take turns in it."""
    pairs = [match.start() for match in _PAIR.finditer(text)]
    turns = sum(text[at].isupper() != text[at + 1].isupper() for at in pairs)
    return text.translate(_LOWER) if len(pairs) >= 8 and turns * 3 > len(pairs) * 2 else text


def without_capitals(text: str) -> str:
    """The text in lower case, if nine in ten letters that have a case, eight or more, are capitals."""
    capitals = len(_CAPITAL.findall(text))
    if capitals < _FEWEST_CAPITALS or capitals < 9 * len(_SMALL.findall(text)):
        return text
    if 3 * capitals < 2 * len(_LETTER.findall(text)):  # abbreviations in a text of a script without capitals
        return text
    # The first of the characters, since the dotted capital I has two: a letter and a mark that no other I carries.
    return unicodedata.normalize("NFKC", _CAPITAL.sub(lambda match: match[0].lower()[0], text))


def with_blanks(text: str) -> str:
    """The text with blanks in place of a mark that stands between words where a sentence has blanks.

    It does where there are three underscores or four of another mark, at most half as many blanks, and nothing that
    looks like code or an address.
    """
    blanks = len(_BLANKS.findall(text))
    if _CODE.search(text):
        return text
    for mark, between in _BETWEEN_WORDS.items():
        fewest = max(_FEWEST_MARKS.get(mark, _FEWEST_OTHERS), 2 * blanks)
        if text.count(mark) < fewest:
            continue
        found = len(between.findall(text))
        if found >= fewest:
            text = between.sub(" ", text)
            blanks += found
    return text


def _between_words(mark: str) -> regex.Pattern[str]:
    """A mark, once or more, between letters; an underscore also beside figures and punctuation."""
    side = rf"[{_SPACED}\p{{N}}[!-/:-@\[-^`{{-~]]" if mark == "_" else rf"[{_SPACED}]"
    return regex.compile(rf"(?<={side}){regex.escape(mark)}+(?={side})", regex.V1)


_SPACED = rf"[\p{{L}}\p{{M}}--[{UNPARTED}]]"
_BETWEEN_WORDS = {mark: _between_words(mark) for mark in "_.-*+~|·•"}
