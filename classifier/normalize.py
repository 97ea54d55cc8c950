"""Undo the ways of writing a text that hide it from a classifier, without harming other scripts."""

from __future__ import annotations

import functools
import unicodedata

import regex
from confusable_homoglyphs import confusables

from classifier.lettering import UNPARTED, in_letters, in_one_case, with_blanks, without_capitals

_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_TAG = regex.compile(r"[\U000E0020-\U000E007E]+")
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Co}\p{Cn}--[\u200c\u200d]]", regex.V1)
# U+200C and U+200D shape words in Arabic and Indic scripts; anywhere else they only hide something.
_STRAY_JOINER = regex.compile(
    r"(?<![\p{scx=Arab}\p{scx=Syrc}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}"
    r"\p{Kannada}\p{Malayalam}\p{Sinhala}[[\p{Mn}\p{Mc}]--\p{Inherited}]])[\u200c\u200d]",
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
_GREEK_SYMBOL = regex.compile(r"\p{Greek}")
_SYMBOLS = regex.compile(r"(?:[\p{S}--[\p{ASCII}\ufffd]]\p{M}*)+", regex.V1)
_WORDS_PARTED = regex.compile(r"(?<=\w[\p{P}]*\s)(?:[\p{S}--\p{ASCII}]\p{M}*)+\s(?=[\p{P}]*\w)", regex.V1)
_DECORATED = 2
_LONG_WORD = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNPARTED}]]{{65,}}", regex.V1)
_PIECE = 48
_MOST_PASSES = 8
# Four and more single letters, each set apart by the same mark or blanks: "k.i.l.l", "k i l l"; or, where several
# blanks part the words, two and more: "d o   i t". Not in scripts in which a word may be one letter.
_ONE = r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{Han}]\p{M}*"
_SPELLED = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}\p{{N}}]){_ONE}(\t| +|[.\-_*|~·•+]){_ONE}(?:\1{_ONE}){{2,}}(?![\p{{L}}\p{{M}}\p{{N}}])"
)
_SPELLED_APART = regex.compile(rf"(?<=^|\s\s){_ONE}( ){_ONE}(?: {_ONE})*(?=\s\s|$)")
# Letters with marks that no composed letter holds. African languages and stress marks have them, but on vowels.
_STRUCK = regex.compile(r"(\p{Latin}|\p{Han}|\s)(?:[\p{Mn}&&\p{Inherited}]|\p{Me})+", regex.V1)
_STRUCK_CONSONANT = regex.compile(r"[bcdfghjklpqrstvwxz\p{Han}](?:[\p{Mn}&&\p{Inherited}]|\p{Me})", regex.V1 | regex.I)
_LETTER = regex.compile(r"\p{L}")
_STYLED = regex.compile(r"[\u249C-\u24B5\U0001F110-\U0001F189]|(?<!\p{RI})\p{RI}(?!\p{RI})|\p{RI}{3,}")
_PHONETIC = "ʙɢʜɪʟɴʀʏ"  # of the International Phonetic Alphabet
_SMALL_CAPITAL = regex.compile(rf"[ᴀᴄᴅᴇꜰᴊᴋᴍᴏᴘꞯꜱᴛᴜᴠᴡᴢ{_PHONETIC}]")
_STYLED_NAME = regex.compile(
    r"(?:NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER|REGIONAL INDICATOR SYMBOL LETTER"
    r"|(?P<small>LATIN LETTER SMALL CAPITAL|PARENTHESIZED LATIN SMALL LETTER)) (?P<letter>[A-Z])"
)


def invisible(text: str) -> int:
    """How many characters of a text nobody sees, and `normalize` takes away."""
    return len(_INVISIBLE.findall(text)) + len(_STRAY_JOINER.findall(text))


def decorated(text: str) -> bool:
    """Whether emoji or other symbols stand between the words of a normalized text here and there.

    They may be what it says, or only part the words of a sentence that says it without them: it has two readings.
    """
    return len(_WORDS_PARTED.findall(text)) >= _DECORATED


def is_symbol(piece: str) -> bool:
    """Whether a piece of a normalized text is symbols outside ASCII, such as emoji, and nothing else."""
    return _SYMBOLS.fullmatch(piece.strip()) is not None


def normalize(text: str) -> str:
    """The text as a reader would see it, in one Unicode form.

    In order: lone surrogates become U+FFFD; text written in invisible tag characters becomes visible; invisible and
    control characters go; more than 16 marks on one letter go; letters in circles, squares, parentheses, flags and
    small capitals, which NFKC leaves or takes apart, become letters; NFKC; Latin words whose letters are struck over
    lose the marks; words spelled in single letters are joined; white space becomes one form, and a mark that parts
    words where blanks should, such as an underscore, a blank; words of more than 64 letters are cut and emoji and
    other symbols outside ASCII set apart, since encoders skip what is longer or has a symbol stuck to it; Latin look-
    alikes from other scripts become Latin in words that mix scripts, and in a mostly Latin text in words made of
    nothing else; leetspeak becomes letters; text in which capital and small letters take turns, or nearly all are
    capitals, lower case.
    All of it is done until nothing changes, eight times at most: one disguise may be written over another. Text in a
    script other than Latin keeps its letters.
    """
    for _ in range(_MOST_PASSES):
        before, text = text, _undisguised(text)
        if text == before:
            break
    return text


def _undisguised(text: str) -> str:
    text = _SURROGATE.sub("\ufffd", text)
    text = _TAG.sub(lambda match: "".join(chr(ord(char) - 0xE0000) for char in match[0]), text)
    text = _LINE_BREAK.sub("\n", text)
    text = _INVISIBLE.sub("", text)  # before all that looks at neighbours
    text = _STRAY_JOINER.sub("", text)
    text = _CONTROL.sub("", text)
    text = _MANY_MARKS.sub(r"\1", text)  # NFKC takes the square of their number
    text = _STYLED.sub(lambda match: "".join(map(_plain_letter, match[0])), text)
    text = _without_small_capitals(text)
    text = unicodedata.normalize("NFKC", text)
    text = _without_overstrikes(text)
    if "  " in text:
        text = _SPELLED_APART.sub(_joined, text)
    text = _SPELLED.sub(_joined, text)
    text = _BLANK.sub(" ", _SYMBOLS.sub(r" \g<0> ", text))
    text = _with_words_apart(text)
    text = _BLANK_LINES.sub(lambda match: "\n\n" if match[0].count("\n") > 1 else "\n", text).strip()
    text = _LONG_WORD.sub(lambda match: " ".join(_pieces(match[0])), text)
    text = without_capitals(text)  # before look-alikes: not all capitals have the twin of their small letter
    text = text if text.isascii() else unicodedata.normalize("NFKC", _latinize(text))
    return without_capitals(in_one_case(in_letters(text)))


def _with_words_apart(text: str) -> str:
    """Blanks in place of marks that part words; then single letters joined that blanks of several lengths parted."""
    before = ""
    while text != before:  # once for each mark at most
        before, text = text, _SPELLED.sub(_joined, with_blanks(text))
    return text


@functools.lru_cache(maxsize=512)
def _plain_letter(char: str) -> str:
    """The ASCII letter that a character's Unicode name says it shows, else the character."""
    named = _STYLED_NAME.fullmatch(unicodedata.name(char, ""))
    if named is None:
        return char
    return str(named["letter"].lower() if named["small"] else named["letter"])


def _without_small_capitals(text: str) -> str:
    """The text in plain letters, if a word has two different small capitals, or the text two that are not phonetic."""
    found = set(_SMALL_CAPITAL.findall(text))
    if len(found) < 2:
        return text
    if len(found.difference(_PHONETIC)) < 2 and not any(
        len(set(_SMALL_CAPITAL.findall(word))) > 1 for word in _WORD.findall(text)
    ):
        return text
    return _SMALL_CAPITAL.sub(lambda match: _plain_letter(match[0]), text)


def _without_overstrikes(text: str) -> str:
    """The text, or those of its words, without marks on Latin and Han letters where these are struck over."""
    if not _STRUCK.search(text):
        return text
    if _struck_over(text):
        return _STRUCK.sub(_bare_letter, text)
    return _WORD.sub(lambda match: _STRUCK.sub(_bare_letter, match[0]) if _struck_over(match[0]) else match[0], text)


def _struck_over(text: str) -> bool:
    """Whether a third of the letters are struck, a consonant among them."""
    struck = len(_STRUCK.findall(text))
    if not struck or struck * 3 < len(_LETTER.findall(text)):
        return False
    return _STRUCK_CONSONANT.search(unicodedata.normalize("NFD", text)) is not None


def _bare_letter(match: regex.Match[str]) -> str:
    return unicodedata.normalize("NFD", match[1])[0]


def _joined(match: regex.Match[str]) -> str:
    return match[0].replace(match[1], "")


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
    disguised = _LATIN.search(word) is not None if mixed else all(twins.values()) and not _GREEK_SYMBOL.fullmatch(word)
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
