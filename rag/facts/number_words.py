"""Numbers in words of English, German, French and Spanish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from rag.facts.types import Number
from rag.facts.units import with_unit


def _words(text: str) -> dict[str, int]:
    return {word: int(number) for number, word in (pair.split(":") for pair in text.split())}


_EN_WORDS = _words(
    "0:zero 1:one 2:two 3:three 4:four 5:five 6:six 7:seven 8:eight 9:nine 10:ten 11:eleven 12:twelve 13:thirteen"
    " 14:fourteen 15:fifteen 16:sixteen 17:seventeen 18:eighteen 19:nineteen 20:twenty 30:thirty 40:forty 50:fifty"
    " 60:sixty 70:seventy 80:eighty 90:ninety"
)
_EN_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_DE_WORDS = _words(
    "0:null 2:zwei 3:drei 4:vier 5:fünf 6:sechs 7:sieben 8:acht 9:neun 10:zehn 11:elf 12:zwölf 13:dreizehn"
    " 14:vierzehn 15:fünfzehn 16:sechzehn 17:siebzehn 18:achtzehn 19:neunzehn 20:zwanzig 30:dreißig 40:vierzig"
    " 50:fünfzig 60:sechzig 70:siebzig 80:achtzig 90:neunzig 100:hundert 1000:tausend"
)
_DE_WORDS |= {
    f"{'ein' if one == 1 else name}und{ten}": tens + one
    for name, one in {"ein": 1, **_DE_WORDS}.items()
    for ten, tens in _DE_WORDS.items()
    if 0 < one < 10 and 20 <= tens < 100
}
_FR_WORDS = _words(
    "0:zéro 2:deux 3:trois 4:quatre 5:cinq 6:six 7:sept 8:huit 9:neuf 10:dix 11:onze 12:douze 13:treize 14:quatorze"
    " 15:quinze 16:seize 17:dix-sept 18:dix-huit 19:dix-neuf 20:vingt 30:trente 40:quarante 50:cinquante"
    " 60:soixante 80:quatre-vingts 80:quatre-vingt 100:cent 1000:mille"
)
_FR_WORDS |= {
    f"{ten}{join}{name}": tens + one
    for name, one in {"un": 1, "une": 1, **_FR_WORDS}.items()
    for ten, tens in _FR_WORDS.items()
    for join in ("-", "-et-", " et ")
    if 0 < one < (20 if tens in (60, 80) else 10) and 20 <= tens < 100 and ten != "quatre-vingts"
}
_ES_WORDS = _words(
    "0:cero 2:dos 3:tres 4:cuatro 5:cinco 6:seis 7:siete 8:ocho 9:nueve 10:diez 11:once 12:doce 13:trece 14:catorce"
    " 15:quince 16:dieciséis 17:diecisiete 18:dieciocho 19:diecinueve 20:veinte 30:treinta 40:cuarenta 50:cincuenta"
    " 60:sesenta 70:setenta 80:ochenta 90:noventa 100:cien 1000:mil"
)
_ES_WORDS |= {
    f"{ten} y {name}": tens + one
    for name, one in {"uno": 1, "un": 1, "una": 1, **_ES_WORDS}.items()
    for ten, tens in _ES_WORDS.items()
    if 0 < one < 10 and 30 <= tens < 100
} | _words(
    "21:veintiuno 21:veintiún 21:veintiuna 22:veintidós 23:veintitrés 24:veinticuatro 25:veinticinco 26:veintiséis"
    " 27:veintisiete 28:veintiocho 29:veintinueve"
)
_PLAIN = {
    language: (re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(words, key=len, reverse=True))})(?![\w-])", re.I), words)
    for language, words in (("de", _DE_WORDS), ("fr", _FR_WORDS), ("es", _ES_WORDS))
}

_EN = re.compile(r"(?<![\w-])(?:{0})(?:(?:[\s-]|\sand\s)(?:{0}))*(?!\w)".format("|".join([*_EN_WORDS, *_EN_SCALES])))
_EN_TOKEN = re.compile(r"[^\s-]+")
_NOT_ONE = re.compile(
    r"(?:the|this|that|which|no|any|every|each|another|such"
    r"|\ban? (?:new|old|different|similar|better|larger|smaller))\s$",
    re.IGNORECASE,
)
_NOT_ONE_AFTER = re.compile(
    r"\s(?:(?:should|can|may|must|who|that|which|would|could|another)\b"
    r"|of the (?:most|least)\b)"
)
_EN_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5,
             "tenth": 10, "tenths": 10}  # fmt: skip
_PARTS_AFTER = re.compile(rf"[\s-]({'|'.join(_EN_PARTS)})\b")
_DOZEN = re.compile(r"(?<!\w)(half )?a dozen(?!\w)")
_ONE_PART = re.compile(r"(?<!\w)(half|quarter)(?! a dozen)(?!\w)")
_PART_COUNTED = re.compile(r"(?:one|two|three|the (?:first|second|third|last|next|other|top|bottom))[\s-]$")
_PART_OF_A = re.compile(r"\s(?:of\s)?an?(?=\s)")
_EN_OFTEN = {"once": 1, "twice": 2, "thrice": 3}
_OFTEN = re.compile(
    rf"(?<!\w)({'|'.join(_EN_OFTEN)})(?!\w)(?=(?P<per>\s(?:an?|per|every|each|daily|weekly|monthly|yearly|in)\b)?)"
)
_EN_ORDINALS = {
    word: place
    for place, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 1
    )
}
_EN_ORDINALS |= {re.sub("y$", "ie", word) + "th": number for word, number in _EN_WORDS.items() if number > 12} | {
    f"{ten}-{first}": tens + place
    for ten, tens in _EN_WORDS.items()
    if tens >= 20
    for first, place in _EN_ORDINALS.items()
    if place < 10
}
_EN_ORDINAL = re.compile(rf"(?<!\w)({'|'.join(_EN_ORDINALS)})(?!\w)")
_EN_NTH = re.compile(rf"-(?:{'|'.join(list(_EN_ORDINALS)[:9])})(?!\w)")
_SECONDS = re.compile(r"(?:\d|\ba|per|each|every)\s$")

_DE_ORDINALS = {
    "erst": 1, "zweit": 2, "dritt": 3, "viert": 4, "fünft": 5, "sechst": 6, "siebt": 7, "neunt": 9, "zehnt": 10,
    "elft": 11, "zwölft": 12,
}  # fmt: skip
_DE_ORDINAL = re.compile(
    rf"(?<!\w)(?:(?P<the>(?i:der|die|das|dem|den|des))\s)?(?P<place>{'|'.join(_DE_ORDINALS)})e[nmrs]?(?!\w)"
)
_DE_COMPOUND = re.compile(
    r"(?:(?P<thousands>[a-zäöüß]*)tausend)?(?:(?P<hundreds>[a-zäöüß]*)hundert)?(?:und)?(?P<rest>[a-zäöüß]*)"
)
_DE_WORD = re.compile(r"(?<![\w-])[^\W\d_]{4,60}(?![\w-])")
_DE_HALF = re.compile(r"(?<!\w)(?:eine[nrm]?\s)?halbe[nrms]?(?=\s)", re.IGNORECASE)


def number_words(text: str, language: str) -> Iterator[Number]:
    """The numbers that a normalised text has in words."""
    if language == "en":
        yield from _english(text, text.lower())
    else:
        pattern, words = _PLAIN[language]
        for match in pattern.finditer(text):
            yield with_unit(text, Fraction(words[match[0].lower()]), match.start(), match.end())
    if language == "de":
        yield from _german(text)


def _english(text: str, lower: str) -> Iterator[Number]:
    yield from _english_counts(text, lower)
    for match in _DOZEN.finditer(lower):
        yield with_unit(text, Fraction(6 if match[1] else 12), match.start(), match.end())
    for match in _ONE_PART.finditer(lower):
        if not _PART_COUNTED.search(lower[: match.start()][-12:]):
            end = (_PART_OF_A.match(lower, match.end()) or match).end()
            yield with_unit(text, Fraction(1, _EN_PARTS[match[1]]), match.start(), end)
    for match in _OFTEN.finditer(lower):
        needed = bool(match["per"]) or match[1] != "once"
        yield Number(Fraction(_EN_OFTEN[match[1]]), "times", match[0], match.start(), needed)
    for match in _EN_ORDINAL.finditer(lower):
        before = lower[: match.start()][-8:]
        if match[1] != "second" or not _SECONDS.search(before):
            needed = match[1] != "first" or "the " in before
            yield Number(Fraction(_EN_ORDINALS[match[1]]), "ordinal", match[0], match.start(), needed)


def _english_counts(text: str, lower: str) -> Iterator[Number]:
    """Such as `two hundred and five`, `twenty-one` and `three quarters`."""
    for match in _EN.finditer(lower):
        found = _EN_TOKEN.finditer(lower, match.start(), match.end())
        tokens = [token for token in found if token[0] != "and"]
        words = [token[0] for token in tokens]
        if words[0] in _EN_SCALES:
            continue  # after digits, or "hundreds"
        named = _NOT_ONE.search(lower[: match.start()][-24:]) or _NOT_ONE_AFTER.match(lower, match.end())
        if words == ["one"] and named:
            continue
        for value, first, last in _composed(words):
            start, end = tokens[first].start(), tokens[last - 1].end()
            if value >= 20 and _EN_NTH.match(lower, end):
                continue  # twenty-first
            if part := _PARTS_AFTER.match(lower, end):
                yield with_unit(text, Fraction(value, _EN_PARTS[part[1]]), start, part.end())
            else:
                yield with_unit(text, Fraction(value), start, end)


def _composed(words: list[str]) -> Iterator[tuple[int, int, int]]:
    """The numbers that a row of number words says, each with its first word and the one after its last."""
    total = part = first = 0
    before = ""
    for place, word in enumerate(words):
        if word in _EN_SCALES:
            scale = _EN_SCALES[word]
            if scale == 100:
                part *= 100
            else:
                total, part = total + part * scale, 0
        else:
            value = _EN_WORDS[word]
            joins = before in _EN_SCALES or (before in _EN_WORDS and _EN_WORDS[before] >= 20 and 0 < value < 10)
            if before and not joins:
                yield total + part, first, place
                total, part, first = 0, 0, place
            part += value
        before = word
    yield total + part, first, len(words)


def _german(text: str) -> Iterator[Number]:
    """Compounds such as `zweihundert` and `zweieinhalb`, `dreimal`, halves, and ordinals."""
    for match in _DE_WORD.finditer(text):
        word = match[0].lower()
        often = word.removesuffix("mal")
        if word != often:
            if (times := _german_value(often)) is not None:
                yield Number(times, "times", match[0], match.start())
        elif word not in _DE_WORDS and (value := _german_value(word)) is not None:
            yield with_unit(text, value, match.start(), match.end())
    for match in _DE_HALF.finditer(text):
        number = with_unit(text, Fraction(1, 2), match.start(), match.end())
        if number.unit:
            yield number
    for match in _DE_ORDINAL.finditer(text):
        place = match.start("place")
        needed = match["place"] != "erst" or bool(match["the"])
        yield Number(Fraction(_DE_ORDINALS[match["place"]]), "ordinal", text[place : match.end()], place, needed)


def _german_value(word: str) -> Fraction | None:
    """What a German number word says; None if it is none. `ein` counts only within a longer one."""
    if word in ("anderthalb", "eineinhalb"):
        return Fraction(3, 2)
    if word in _DE_WORDS:
        return Fraction(_DE_WORDS[word])
    if (whole := word.removesuffix("einhalb")) != word:
        return Fraction(_DE_WORDS[whole]) + Fraction(1, 2) if _DE_WORDS.get(whole, 100) < 100 else None
    match = _DE_COMPOUND.fullmatch(word)
    if match is None or (match["thousands"] is None and match["hundreds"] is None):
        return None
    total = Fraction(0)
    for name, factor in (("thousands", 1000), ("hundreds", 100), ("rest", 1)):
        part = match[name]
        if part is None or (part == "" and factor == 1):
            continue
        value = Fraction(1) if part in ("", "ein") else _german_value(part)
        if value is None:
            return None
        total += value * factor
    return total
