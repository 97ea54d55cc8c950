"""The numbers of a sentence, with their units, and the ranges between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from rag.facts.eras import before_christ
from rag.facts.han_numbers import han_numbers
from rag.facts.number_words import number_words
from rag.facts.types import MOST_DIGITS, Number, blank
from rag.facts.units import CURRENCY, Unit, currency, unit_at, with_unit

_RANGE_LENGTH = 30  # characters from one end of a range to the other
_BEHIND_HAN = "(?<=[为是到达至约于降率])|(?<=[气水体]温)|(?<=温度)|(?<=利润)"  # a "-" that is no dash
_MINUS = re.compile(r"(?<![\d%°] )(?<!\w)(?:minus|negative|moins|menos)\s$|零下\s?$|(?<![胜自])负\s?$", re.IGNORECASE)
_DIGITS = re.compile(
    rf"(?P<sign>(?:(?<![\w.)\]])|{_BEHIND_HAN})[-+])?(?P<money>{CURRENCY}\s?)?(?<!\d)(?<!m\^)"
    r"(?P<body>\d{1,3}(?: \d{3}){2,}(?!\d)|(?<!\d )\d{2,3} \d{3}(?! ?\d)"
    r"|\d{1,3}(?:['’\u00a0\u202f\u2009]\d{3})+(?:[.,]\d+)?(?!\d)|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)"
    r"|\d{1,3}(?:\.\d{3})+(?:,\d+)?(?!\d)|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<under>\d{1,3})(?![\d/]|\.\d))?(?P<ordinal>(?:st|nd|rd|th|er|ère|ème)\b)?"
)
_SPACED = re.compile(r"\d{1,3}(?: \d{3})+(?!\d)(?:,\d+)?")
_MIXED = re.compile(r"(?<![\d.,/])(\d{1,4}) (\d{1,2})/(\d{1,3})(?![\d/]|\.\d)")
_SCALE = re.compile(
    r"\s?(?P<word>thousand|million|millions|billion|billions|tausend|mio\.|millionen|mrd\.|milliarden|mille|bn|tn"
    r"|trillions?|milliards?|mil|millón|millones|万亿|千万|百万|十亿|億|亿|萬|万|dozen)(?![^\W\d_\u2e80-\u9fff])",
    re.IGNORECASE,
)
_MONEY_SCALE = re.compile(r"(?P<word>k|mn?|bn?|tn?)(?![^\W_])", re.IGNORECASE)  # right behind a sum of money
_SCALES = {
    "thousand": 10**3, "tausend": 10**3, "mille": 10**3, "mil": 10**3, "million": 10**6, "millions": 10**6,
    "mio.": 10**6, "millionen": 10**6, "millón": 10**6, "millones": 10**6, "billion": 10**9, "billions": 10**9,
    "mrd.": 10**9, "milliarden": 10**9, "milliard": 10**9, "milliards": 10**9, "trillion": 10**12, "trillions": 10**12,
    "万亿": 10**12, "千万": 10**7, "百万": 10**6, "十亿": 10**9, "億": 10**8, "亿": 10**8, "萬": 10**4, "万": 10**4,
    "dozen": 12, "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12,
}  # fmt: skip
_RANGE = re.compile(r"(?:\S\s?-|~|\s(?P<word>to|bis|à|a)|至|到|\s(?P<other>or|oder|ou|o))\s?$", re.IGNORECASE)
_BETWEEN = re.compile(r"(?<!\w)(?:between|zwischen|entre)\s(?:[£$€]\s?)?$", re.IGNORECASE)
_AND = re.compile(r"\s(?:and|und|et|y)\s(?:[£$€]\s?)?$", re.IGNORECASE)
_MOVES = re.compile(
    r"(?<!ranges )(?<!ranging )(?<!varies )(?<!\w)(?:from|von|de|desde)\s(?:[£$€]\s?)?$|从$", re.IGNORECASE
)
_JOINS = re.compile(r"\s?(?:-|~|to|bis|à|a|or|and|oder|und|ou|et|o|y|至|到|或|、|から|\bund\b)\s?$", re.IGNORECASE)
_AND_A_HALF = re.compile(r"\sand\sa\shalf(?!\w)", re.IGNORECASE)
_ARTICLE = {
    language: re.compile(rf"(?<!\w)(?:{words})\s", re.IGNORECASE)
    for language, words in (
        ("en", "an?|each|per|single|one"),
        ("de", "ein|eine|einen|einem|einer|pro|je"),
        ("fr", "une?|par"),
        ("es", "una?|uno|por"),
    )
}
_PART_OF = re.compile(r"(?:half|quarter|third)\s(?:of\s)?$", re.IGNORECASE)
_COUNTED = frozenset(("tablet", "pill", "capsule", "drop", "puff", "sachet", "teaspoon", "cup", "glass", "spoon"))
_RATE = re.compile(r"(?:each|per|pro|je|par|por)\b", re.IGNORECASE)
_LASTS = re.compile(r"(?<!\w)(?:for|wait|lasts?|takes?|after|least|most|nearly|about)\s$", re.IGNORECASE)


def numbers(text: str, language: str) -> list[Number]:
    """The numbers of a normalised text, in order."""
    in_words = han_numbers(text) if language in ("zh", "ja") else number_words(text, language)
    found = [*_digits(text, language), *in_words, *_articles(text, language)]
    if language == "en":
        found = _and_a_half(text, found)
    return _share_units(text, [_signed(text, number) for number in found])


def ranges(text: str, found: Iterable[Number]) -> Iterator[tuple[Number, Number]]:
    """The ends of each range, such as "2-8 °C", "between 5 and 10 mg" or "one or two tablets", of numbers in order."""
    for low, high in pairwise(number for number in found if number.needed and number.unit):
        between, before = text[low.start : high.start], text[max(0, low.start - 24) : low.start]
        if low.unit != high.unit or low.value >= high.value or len(between) > _RANGE_LENGTH or _MOVES.search(before):
            continue
        if _AND.search(between) and _BETWEEN.search(before):
            yield low, high
        elif (joined := _RANGE.search(between)) and (not joined["other"] or _next(low, high)):
            yield low, high


def _next(low: Number, high: Number) -> bool:
    first, second = (number.value if number.written is None else number.written for number in (low, high))
    return second == first + 1


def _signed(text: str, number: Number) -> Number:
    """The number with the minus that stands before it as a word; "negative 48 hours before" has none.

    One of a year or century before Christ has a minus as well.
    """
    of_year = number.unit in ("", "ordinal", "months")
    if of_year and (era := before_christ(text, number.start, number.end)):
        return _negative(number, text, *era)
    minus = _MINUS.search(text[max(0, number.start - 16) : number.start])
    if minus is None or number.unit in ("time", "months", "ordinal") or not number.needed or number.value < 0:
        return number
    return _negative(number, text, number.start - len(minus[0]), number.end)


def _negative(number: Number, text: str, start: int, end: int) -> Number:
    written = None if number.written is None else -number.written
    return replace(number, value=-number.value, written=written, start=start, text=text[start:end])


def _digits(text: str, language: str) -> Iterator[Number]:
    for mixed in _MIXED.finditer(text):
        if 0 < int(mixed[2]) < int(mixed[3]):
            value = int(mixed[1]) + Fraction(int(mixed[2]), int(mixed[3]))
            yield with_unit(text, value, mixed.start(), mixed.end())
            text = blank(text, *mixed.span())
    for match in _DIGITS.finditer(text):
        if len(match["body"]) > MOST_DIGITS:
            continue
        body, end = match["body"], match.end()
        if language in ("de", "fr", "es") and (group := _SPACED.match(text, match.start("body"))):
            body, end = group[0], max(end, group.end())
        value = _value(body, language)
        if match["under"] and value < int(match["under"]) <= 100:
            value /= int(match["under"])
        elif match["under"]:
            under = match.start("under")
            yield with_unit(text, Fraction(int(match["under"])), under, match.end("under"))
        if match["sign"] == "-":
            value = -value
        if match["ordinal"]:
            yield Number(value, "ordinal", match[0], match.start())
            continue
        while scale := _SCALE.match(text, end):
            value, end = value * _SCALES[scale["word"].lower()], scale.end()
        if not match["money"]:
            yield with_unit(text, value, match.start(), end)
            continue
        if scale := _MONEY_SCALE.match(text, end):
            value, end = value * _SCALES[scale["word"].lower()], scale.end()
        yield Number(value, currency(match["money"].strip()), text[match.start() : end], match.start())


def _value(body: str, language: str) -> Fraction:
    """A number as the language writes it: 1,500 is fifteen hundred in English, one and a half in German."""
    plain = re.sub(r"['’ \u00a0\u202f\u2009]", "", body)
    separators = [character for character in plain if character in ".,"]
    if not separators:
        return Fraction(plain)
    last = separators[-1]
    thousands = "." if language in ("de", "fr", "es") else ","
    if len(set(separators)) == 1 and (
        len(separators) > 1 or (last == thousands and re.search(r"^\d{1,3}.\d{3}$", plain))
    ):
        return Fraction(plain.replace(last, ""))
    whole, _, part = plain.rpartition(last)
    return Fraction(f"{re.sub('[.,]', '', whole) or 0}.{part}")


def _articles(text: str, language: str) -> Iterator[Number]:
    """Words that may stand for one: `a tablet` supports `one tablet`, and needs no support itself.

    Where it says how much or how long, as in `take a tablet`, no other number may stand in its place.
    """
    if language not in _ARTICLE:
        return
    for match in _ARTICLE[language].finditer(text):
        unit, before = unit_at(text, match.end()), text[: match.start()][-12:]
        if unit is None or _PART_OF.search(before):
            continue
        dimension, factor, end = unit
        lasts = dimension == "time" and (language != "en" or _LASTS.search(before))
        held = not _RATE.match(match[0]) and bool(dimension in _COUNTED or lasts)
        written = text[match.start() : end]
        yield Number(factor, dimension, written, match.start(), needed=False, written=Fraction(1), held=held)


def _and_a_half(text: str, found: list[Number]) -> list[Number]:
    """`two and a half hours` and `an hour and a half` are one number each."""
    for half in _AND_A_HALF.finditer(text):
        for at, number in enumerate(found):
            if number.end == half.start():
                unit = _written_unit(text, number) if number.unit else unit_at(text, half.end())
                dimension, factor, end = unit or ("", Fraction(1), half.end())
                value = (number.value / factor if number.unit else number.value) + Fraction(1, 2)
                written = text[number.start : max(end, half.end())]
                found[at] = Number(value * factor, dimension, written, number.start, written=value)
                found = [other for other in found if not half.start() <= other.start < half.end()]
                break
    return found


def _share_units(text: str, found: list[Number]) -> list[Number]:
    """In `5 to 10 mg` and `250 or 500 mg`, the unit is that of both."""
    found = sorted(found, key=lambda number: number.start)
    unit: Unit | None = None  # that the number behind shares with the one behind it
    for place in range(len(found) - 2, -1, -1):
        number, after = found[place], found[place + 1]
        shares = (
            not number.unit
            and after.unit
            and number.needed
            and 0 <= after.start - number.end < 7
            and _JOINS.match(text[number.end : after.start])
        )
        unit = (unit or _written_unit(text, after)) if shares else None
        if unit:
            value, written = number.value * unit[1], text[number.start : after.end]
            found[place] = Number(value, after.unit, written, number.start, written=number.value)
    return found


def _written_unit(text: str, number: Number) -> Unit | None:
    """The unit that a number is written with."""
    for at in range(number.start, number.end):
        unit = unit_at(text, at) if not text[at].isdigit() else None
        if unit and unit[0] == number.unit and unit[2] == number.end:
            return unit
    return None
