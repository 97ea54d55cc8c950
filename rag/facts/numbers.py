"""Numbers in digits and words, with their units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from rag.facts.eras import before_christ
from rag.facts.types import Number
from rag.facts.units import CURRENCY, currency, unit_at

_MOST_DIGITS = 30  # more are a code, not a number
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
    r"\s?(?P<word>thousand|million|millions|billion|billions|tausend|mio\.|millionen|mrd\.|milliarden|mille|bn|tn|trillions?"
    r"|milliards?|mil"
    r"|millón|millones|万亿|千万|百万|十亿|億|亿|萬|万|dozen)(?![^\W\d_\u2e80-\u9fff])",
    re.IGNORECASE,
)
_MONEY_SCALE = re.compile(r"(?P<word>k|mn?|bn?|tn?)(?![^\W_])", re.IGNORECASE)  # right behind a sum of money
_SCALES = {
    "thousand": 10**3, "tausend": 10**3, "mille": 10**3, "mil": 10**3, "million": 10**6, "millions": 10**6,
    "mio.": 10**6,
    "millionen": 10**6, "millón": 10**6, "millones": 10**6, "billion": 10**9, "billions": 10**9, "mrd.": 10**9,
    "milliarden": 10**9, "milliard": 10**9, "milliards": 10**9, "万亿": 10**12, "千万": 10**7, "百万": 10**6,
    "十亿": 10**9, "億": 10**8, "亿": 10**8, "萬": 10**4, "万": 10**4, "dozen": 12,
    "k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12,
    "trillion": 10**12, "trillions": 10**12,
}  # fmt: skip
_RANGE = re.compile(r"(?:\S\s?-|~|\s(?P<word>to|bis|à|a)|至|到|\s(?P<other>or|oder|ou|o))\s?$", re.IGNORECASE)
_BETWEEN = re.compile(r"(?<!\w)(?:between|zwischen|entre)\s(?:[£$€]\s?)?$", re.IGNORECASE)
_AND = re.compile(r"\s(?:and|und|et|y)\s(?:[£$€]\s?)?$", re.IGNORECASE)
_MOVES = re.compile(
    r"(?<!ranges )(?<!ranging )(?<!varies )(?<!\w)(?:from|von|de|desde)\s(?:[£$€]\s?)?$|从$", re.IGNORECASE
)
_JOINS = re.compile(r"\s?(?:-|~|to|bis|à|a|or|and|oder|und|ou|et|o|y|至|到|或|、|から|\bund\b)\s?$", re.IGNORECASE)


def _words(text: str) -> dict[str, int]:
    return {word: int(number) for number, word in (pair.split(":") for pair in text.split())}


_EN_WORDS = _words(
    "0:zero 1:one 2:two 3:three 4:four 5:five 6:six 7:seven 8:eight 9:nine 10:ten 11:eleven 12:twelve 13:thirteen"
    " 14:fourteen"
    " 15:fifteen 16:sixteen 17:seventeen 18:eighteen 19:nineteen 20:twenty 30:thirty 40:forty 50:fifty 60:sixty"
    " 70:seventy"
    " 80:eighty 90:ninety"
)
_EN_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_OTHER_WORDS = {
    "de": _words(
        "0:null 2:zwei 3:drei 4:vier 5:fünf 6:sechs 7:sieben 8:acht 9:neun 10:zehn 11:elf 12:zwölf 13:dreizehn"
        " 14:vierzehn"
        " 15:fünfzehn 16:sechzehn 17:siebzehn 18:achtzehn 19:neunzehn 20:zwanzig 30:dreißig 40:vierzig 50:fünfzig"
        " 60:sechzig"
        " 70:siebzig 80:achtzig 90:neunzig 100:hundert 1000:tausend"
    ),
    "fr": _words(
        "0:zéro 2:deux 3:trois 4:quatre 5:cinq 6:six 7:sept 8:huit 9:neuf 10:dix 11:onze 12:douze 13:treize"
        " 14:quatorze"
        " 15:quinze 16:seize 20:vingt 30:trente 40:quarante 50:cinquante 60:soixante 100:cent 1000:mille"
    ),
    "es": _words(
        "0:cero 2:dos 3:tres 4:cuatro 5:cinco 6:seis 7:siete 8:ocho 9:nueve 10:diez 11:once 12:doce 13:trece"
        " 14:catorce"
        " 15:quince 16:dieciséis 17:diecisiete 18:dieciocho 19:diecinueve 20:veinte 30:treinta 40:cuarenta"
        " 50:cincuenta"
        " 60:sesenta 70:setenta 80:ochenta 90:noventa 100:cien 1000:mil"
    ),
}
_OTHER_WORDS["de"] |= {
    f"{'ein' if one == 1 else name}und{ten}": tens + one
    for name, one in {"ein": 1, **_OTHER_WORDS["de"]}.items()
    for ten, tens in _OTHER_WORDS["de"].items()
    if 0 < one < 10 and 20 <= tens < 100
}
_OTHER_WORDS["es"] |= {
    f"{ten} y {name}": tens + one
    for name, one in {"uno": 1, "un": 1, "una": 1, **_OTHER_WORDS["es"]}.items()
    for ten, tens in _OTHER_WORDS["es"].items()
    if 0 < one < 10 and 30 <= tens < 100
} | _words(
    "21:veintiuno 21:veintiún 21:veintiuna 22:veintidós 23:veintitrés 24:veinticuatro 25:veinticinco 26:veintiséis"
    " 27:veintisiete 28:veintiocho 29:veintinueve"
)
_OTHER_WORDS["fr"] |= _words("17:dix-sept 18:dix-huit 19:dix-neuf 80:quatre-vingts 80:quatre-vingt")
_OTHER_WORDS["fr"] |= {
    f"{ten}{join}{name}": tens + one
    for name, one in {"un": 1, "une": 1, **_OTHER_WORDS["fr"]}.items()
    for ten, tens in _OTHER_WORDS["fr"].items()
    for join in ("-", "-et-", " et ")
    if 0 < one < (20 if tens in (60, 80) else 10) and 20 <= tens < 100 and ten != "quatre-vingts"
}
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
_ARTICLES = {
    "en": r"an?|each|per|single|one", "de": r"ein|eine|einen|einem|einer|pro"
        r"|je", "fr": r"une?|par", "es": r"una?|uno|por"
}  # fmt: skip
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
_EN_NTH = re.compile(rf"-(?:{'|'.join(list(_EN_ORDINALS)[:9])})(?!\w)")
_EN_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5,
             "tenth": 10, "tenths": 10}  # fmt: skip
_PART_OF = re.compile(r"(?:half|quarter|third)\s(?:of\s)?$", re.IGNORECASE)
_COUNTED = frozenset(("tablet", "pill", "capsule", "drop", "puff", "sachet", "teaspoon", "cup", "glass", "spoon"))
_RATE = re.compile(r"(?:each|per|pro|je|par|por)\b", re.IGNORECASE)
_LASTS = re.compile(r"(?<!\w)(?:for|wait|lasts?|takes?|after|least|most|nearly|about)\s$", re.IGNORECASE)
_EN_OFTEN = {"once": 1, "twice": 2, "thrice": 3}
_EN = re.compile(r"(?<![\w-])(?:{0})(?:(?:[\s-]|\sand\s)(?:{0}))*(?!\w)".format("|".join([*_EN_WORDS, *_EN_SCALES])))
_NOT_ONE = re.compile(r"(?:the|this|that|which|no|any|every|each|another|such)\s$", re.IGNORECASE)
_HALF_OF = re.compile(r"\s(?:of\s)?an?(?=\s)")
_NOT_ONE_AFTER = re.compile(r"\s(?:should|can|may|must|who|that|which|would|could|another)\b")
_HAN_DIGITS = {
    digit: value
    for value, digits in enumerate(("〇零", "一壹", "二两兩贰", "三叁", "四肆", "五伍", "六陆", "七柒", "八捌", "九玖"))
    for digit in digits
}
_HAN_SCALES = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_HAN_GREAT = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_HAN_CHARS = "".join([*_HAN_DIGITS, *_HAN_SCALES, *_HAN_GREAT])
_HAN = re.compile(
    rf"(?P<part>百分之|[{_HAN_CHARS}]+分之)?(?P<place>第)?(?P<body>[{_HAN_CHARS}]+)(?:点(?P<rest>[{_HAN_CHARS}]+))?"
)
_HAN_NOT = re.compile(
    r"十分(?![之钟鐘間])|万一|千万(?![人元吨美])|一[一般样起些定直切旦致律并度边时同番些概贯]|统一|唯一"
    r"|万[分能物]|百姓|四处|一次(?=[服吃用口])"
)
_TENTHS = re.compile(
    r"(?<![第十百千万])(?P<tenths>[一二两三四五六七八九])(?:(?P<part>成)(?![不员立为分功长本绩果年效交因就都人])|(?P<price>折)(?![磨叠断射腾旧返]))"
)
_HALF = re.compile(r"半(?=[个片天年小粒杯月升斤])|一半")


def numbers(text: str, language: str) -> list[Number]:
    """The numbers of a normalised text, in no order."""
    found = [*_digits(text, language)]
    if language == "en":
        found = _and_a_half(text, [*found, *_english(text), *_articles(text, language)])
    elif language in _OTHER_WORDS:
        found += _plain_words(text, _OTHER_WORDS[language])
    else:
        found += _han(text)
    if language == "de":
        found += _german(text)
    if language != "en":
        found += _articles(text, language)
    return _share_units(text, [_signed(text, number) for number in found])


def ranges(text: str, found: Iterable[Number]) -> Iterator[tuple[Number, Number]]:
    """The ends of each range, such as "2-8 °C", "between 5 and 10 mg" or "one or two tablets"."""
    known = sorted((number for number in found if number.needed and number.unit), key=lambda number: number.start)
    for low, high in pairwise(known):
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
    if of_year and (era := before_christ(text, number.start, number.start + len(number.text))):
        return _negative(number, text, *era)
    minus = _MINUS.search(text[max(0, number.start - 16) : number.start])
    if minus is None or number.unit in ("time", "months", "ordinal") or not number.needed or number.value < 0:
        return number
    return _negative(number, text, number.start - len(minus[0]), number.start + len(number.text))


def _negative(number: Number, text: str, start: int, end: int) -> Number:
    written = None if number.written is None else -number.written
    return replace(number, value=-number.value, written=written, start=start, text=text[start:end])


def _digits(text: str, language: str) -> Iterator[Number]:
    for mixed in _MIXED.finditer(text):
        if 0 < int(mixed[2]) < int(mixed[3]):
            value = int(mixed[1]) + Fraction(int(mixed[2]), int(mixed[3]))
            yield _with_unit(text, value, mixed.start(), mixed.end())
            text = text[: mixed.start()] + " " * len(mixed[0]) + text[mixed.end() :]
    for match in _DIGITS.finditer(text):
        if len(match["body"]) > _MOST_DIGITS:
            continue
        body, end = match["body"], match.end()
        if language in ("de", "fr", "es") and (group := _SPACED.match(text, match.start("body"))):
            body, end = group[0], max(end, group.end())
        value = _value(body, language)
        if match["under"] and value < int(match["under"]) <= 100:
            value /= int(match["under"])
        elif match["under"]:
            under = match.start("under")
            yield _with_unit(text, Fraction(int(match["under"])), under, match.end("under"))
        if match["sign"] == "-":
            value = -value
        if match["ordinal"]:
            yield Number(value, "ordinal", match[0], match.start())
            continue
        while scale := _SCALE.match(text, end):
            value, end = value * _SCALES[scale["word"].lower()], scale.end()
        if match["money"] and (scale := _MONEY_SCALE.match(text, end)):
            value, end = value * _SCALES[scale["word"].lower()], scale.end()
        if match["money"]:
            yield Number(value, currency(match["money"].strip()), text[match.start() : end], match.start())
        else:
            yield _with_unit(text, value, match.start(), end)


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


def _with_unit(text: str, value: Fraction, start: int, end: int) -> Number:
    unit = unit_at(text, end)
    if unit is None:
        return Number(value, "", text[start:end], start)
    dimension, factor, end = unit
    return Number(value * factor, dimension, text[start:end], start, written=value)


def _english(text: str) -> Iterator[Number]:
    lower = text.lower()
    for match in _EN.finditer(lower):
        words = [word for word in re.split(r"[\s-]+", match[0]) if word != "and"]
        if words[0] in _EN_SCALES:
            continue  # after digits, or "hundreds"
        if words == ["one"] and (
            _NOT_ONE.search(lower[: match.start()][-9:]) or _NOT_ONE_AFTER.match(lower, match.end())
        ):
            continue
        for value, first, last in _composed(words):
            start, end = (
                (match.start(), match.end()) if (first, last) == (0, len(words)) else _span(match, words, first, last)
            )
            if value >= 20 and _EN_NTH.match(lower, end):
                continue  # twenty-first
            part = re.compile(r"[\s-](half|halves|thirds?|quarters?|fifths?|tenths?)\b").match(lower, end)
            if part:
                yield _with_unit(text, Fraction(value, _EN_PARTS[part[1]]), start, part.end())
            else:
                yield _with_unit(text, Fraction(value), start, end)
    for match in re.finditer(r"(?<!\w)(half )?a dozen(?!\w)", lower):
        yield _with_unit(text, Fraction(6 if match[1] else 12), match.start(), match.end())
    for match in re.finditer(r"(?<!\w)(half|quarter)(?! a dozen)(?!\w)", lower):
        if not re.search(
            r"(?:one|two|three|the (?:first|second|third|last|next|other|top|bottom))[\s-]$",
            lower[: match.start()][-12:],
        ):
            article = _HALF_OF.match(lower, match.end())
            yield _with_unit(
                text, Fraction(1, _EN_PARTS[match[1]]), match.start(), article.end() if article else match.end()
            )
    for match in re.finditer(r"(?<!\w)(once|twice|thrice)(?!\w)", lower):
        often = bool(
            re.match(
                r"\s(?:an?|per|every|each|daily|weekly|monthly|yearly"
                r"|in)\b",
                lower[match.end() :][:10],
            )
        )
        yield Number(Fraction(_EN_OFTEN[match[1]]), "times", match[0], match.start(), often or match[1] != "once")
    for match in re.finditer(rf"(?<!\w)({'|'.join(_EN_ORDINALS)})(?!\w)", lower):
        before = lower[: match.start()][-8:]
        if match[1] == "second" and re.search(r"(?:\d|\ba|per|each|every)\s$", before):
            continue
        yield Number(
            Fraction(_EN_ORDINALS[match[1]]),
            "ordinal",
            match[0],
            match.start(),
            match[1] != "first" or "the " in before,
        )


def _and_a_half(text: str, found: list[Number]) -> list[Number]:
    """`two and a half hours` and `an hour and a half` are one number each."""
    for half in re.finditer(r"\sand\sa\shalf(?!\w)", text, re.IGNORECASE):
        for at, number in enumerate(found):
            if number.start + len(number.text) == half.start():
                unit = unit_at(text, half.end()) if not number.unit else _written_unit(text, number)
                dimension, factor, end = unit or ("", Fraction(1), half.end())
                value = number.value + Fraction(1, 2) if number.unit == "" else number.value / factor + Fraction(1, 2)
                written = text[number.start : max(end, half.end())]
                found[at] = Number(value * factor, dimension, written, number.start, written=value)
                found = [other for other in found if not half.start() <= other.start < half.end()]
                break
    return found


def _written_unit(text: str, number: Number) -> tuple[str, Fraction, int] | None:
    """The unit that a number is written with."""
    for at in range(number.start, number.start + len(number.text)):
        unit = unit_at(text, at) if not text[at].isdigit() else None
        if unit and unit[0] == number.unit and unit[2] == number.start + len(number.text):
            return unit
    return None


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


def _span(match: re.Match[str], words: list[str], first: int, last: int) -> tuple[int, int]:
    places = [found for found in re.finditer(r"[^\s-]+", match[0]) if found[0] != "and"]
    return match.start() + places[first].start(), match.start() + places[last - 1].end()


def _plain_words(text: str, words: dict[str, int]) -> Iterator[Number]:
    longest = "|".join(sorted(words, key=len, reverse=True))
    for match in re.finditer(rf"(?<![\w-])(?:{longest})(?![\w-])", text, re.IGNORECASE):
        yield _with_unit(text, Fraction(words[match[0].lower()]), match.start(), match.end())


def _german(text: str) -> Iterator[Number]:
    """Compounds such as `zweihundert` and `zweieinhalb`, `dreimal`, halves, and ordinals."""
    for match in _DE_WORD.finditer(text):
        word = match[0].lower()
        often = word.removesuffix("mal")
        if word != often:
            if (times := _german_value(often)) is not None:
                yield Number(times, "times", match[0], match.start())
        elif word not in _OTHER_WORDS["de"] and (value := _german_value(word)) is not None:
            yield _with_unit(text, value, match.start(), match.end())
    for match in re.finditer(r"(?<!\w)(?:eine[nrm]?\s)?halbe[nrms]?(?=\s)", text, re.IGNORECASE):
        number = _with_unit(text, Fraction(1, 2), match.start(), match.end())
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
    small = _OTHER_WORDS["de"]
    if word in small:
        return Fraction(small[word])
    if (whole := word.removesuffix("einhalb")) != word:
        return Fraction(small[whole]) + Fraction(1, 2) if small.get(whole, 100) < 100 else None
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


def _han(text: str) -> Iterator[Number]:
    hidden = _HAN_NOT.sub(lambda match: " " * len(match[0]), text)
    for match in _HAN.finditer(hidden):
        body, start, end = match["body"], match.start(), match.end()
        if len(body) > _MOST_DIGITS or (start and text[start - 1].isdigit()):
            continue  # the scale of digits: 3万
        value = _han_value(body)
        if match["rest"]:
            value += Fraction(
                int("".join(str(_HAN_DIGITS.get(digit, 0)) for digit in match["rest"])), 10 ** len(match["rest"])
            )
        if match["part"] == "百分之":
            yield Number(value, "percent", match[0], start)
        elif match["part"]:
            under = _han_value(match["part"][:-2])
            yield Number(value / under if under else value, "", match[0], start)
        elif match["place"]:
            yield Number(value, "ordinal", match[0], start)
        else:
            number = _with_unit(text, value, start, end)
            if number.unit or len(body) > 1 or re.match(r"[个種种项條条座所家本台辆只つ個件]", text[end : end + 1]):
                yield number
    for match in re.finditer(r"百分之(\d+(?:\.\d+)?)", text):
        if len(match[1]) <= _MOST_DIGITS:
            yield Number(Fraction(match[1]), "percent", match[0], match.start(1))
    for match in re.finditer(r"第(\d{1,9})", text):
        yield Number(Fraction(int(match[1])), "ordinal", match[0], match.start(1))
    for match in _TENTHS.finditer(text):
        tenths = _HAN_DIGITS[match["tenths"]]
        if match["part"]:
            yield Number(Fraction(10 * tenths), "percent", match[0], match.start())
        else:
            yield Number(Fraction(tenths), "tenths of a price", match[0], match.start())
    for match in _HALF.finditer(text):
        yield _with_unit(text, Fraction(1, 2), match.start(), match.end())


def _han_value(body: str) -> Fraction:
    if not any(character in _HAN_SCALES or character in _HAN_GREAT for character in body):
        return Fraction(int("".join(str(_HAN_DIGITS[digit]) for digit in body)))
    total = part = digit = 0
    for character in body:
        if character in _HAN_DIGITS:
            digit = _HAN_DIGITS[character]
        elif character in _HAN_SCALES:
            part, digit = part + (digit or 1) * _HAN_SCALES[character], 0
        else:
            total, part, digit = (total + part + digit or 1) * _HAN_GREAT[character], 0, 0
    return Fraction(total + part + digit)


def _articles(text: str, language: str) -> Iterator[Number]:
    """Words that may stand for one: `a tablet` supports `one tablet`, and needs no support itself.

    Where it says how much or how long, as in `take a tablet`, no other number may stand in its place.
    """
    if language in _ARTICLES:
        for match in re.finditer(rf"(?<!\w)(?:{_ARTICLES[language]})\s", text, re.IGNORECASE):
            unit = unit_at(text, match.end())
            if unit and not _PART_OF.search(text[: match.start()][-12:]):
                written = text[match.start() : unit[2]]
                held = not _RATE.match(written) and (
                    unit[0] in _COUNTED
                    or (unit[0] == "time" and (language != "en" or bool(_LASTS.search(text[: match.start()][-12:]))))
                )
                yield Number(unit[1], unit[0], written, match.start(), needed=False, written=Fraction(1), held=held)


def _share_units(text: str, found: list[Number]) -> list[Number]:
    """In `5 to 10 mg` and `250 or 500 mg`, the unit is that of both."""
    found = sorted(found, key=lambda number: number.start)
    for place in range(len(found) - 2, -1, -1):
        number, after = found[place], found[place + 1]
        end = number.start + len(number.text)
        if number.unit or not after.unit or not number.needed or not 0 <= after.start - end < 7:
            continue
        unit = _written_unit(text, after)
        if unit and _JOINS.match(text[end : after.start]):
            written = text[number.start : after.start + len(after.text)]
            value = number.value * unit[1]
            found[place] = Number(value, after.unit, written, number.start, written=number.value)
    return found
