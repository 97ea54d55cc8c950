"""Numbers in Chinese numerals, as Chinese and Japanese write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from rag.facts.types import MOST_DIGITS, Number
from rag.facts.units import with_unit

_DIGITS = {
    digit: value
    for value, digits in enumerate(("〇零", "一壹", "二两兩贰", "三叁", "四肆", "五伍", "六陆", "七柒", "八捌", "九玖"))
    for digit in digits
}
_SCALES = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_GREAT = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_CHARS = "".join([*_DIGITS, *_SCALES, *_GREAT])
_NUMERAL = re.compile(
    rf"(?P<part>百分之|[{_CHARS}]+分之)?(?P<place>第)?(?P<body>[{_CHARS}]+)(?:点(?P<rest>[{_CHARS}]+))?"
)
_NOT = re.compile(
    r"十分(?![之钟鐘間])|万一|千万(?![人元吨美])|一[一般样起些定直切旦致律并度边时同番些概贯]|统一|唯一"
    r"|万[分能物]|百姓|四处|一次(?=[服吃用口])"
)
_TENTHS = re.compile(
    r"(?<![第十百千万])(?P<tenths>[一二两三四五六七八九])(?:(?P<part>成)(?![不员立为分功长本绩果年效交因就都人])|(?P<price>折)(?![磨叠断射腾旧返]))"
)
_PERCENT = re.compile(r"百分之(\d+(?:\.\d+)?)")
_PLACE = re.compile(r"第(\d{1,9})")
_HALF = re.compile(r"半(?=[个片天年小粒杯月升斤])|一半")


def han_numbers(text: str) -> Iterator[Number]:
    """The numbers that a normalised text has in numerals or between them."""
    hidden = _NOT.sub(lambda match: " " * len(match[0]), text)
    for match in _NUMERAL.finditer(hidden):
        body, start, end = match["body"], match.start(), match.end()
        if len(body) > MOST_DIGITS or (start and text[start - 1].isdigit()):
            continue  # the scale of digits: 3万
        value = han_value(body)
        if match["rest"]:
            rest = "".join(str(_DIGITS.get(digit, 0)) for digit in match["rest"])
            value += Fraction(int(rest), 10 ** len(rest))
        if match["part"] == "百分之":
            yield Number(value, "percent", match[0], start)
        elif match["part"]:
            under = han_value(match["part"][:-2])
            yield Number(value / under if under else value, "", match[0], start)
        elif match["place"]:
            yield Number(value, "ordinal", match[0], start)
        else:
            number = with_unit(text, value, start, end)
            if number.unit or len(body) > 1 or re.match(r"[个種种项條条座所家本台辆只つ個件]", text[end : end + 1]):
                yield number
    for match in _PERCENT.finditer(text):
        if len(match[1]) <= MOST_DIGITS:
            yield Number(Fraction(match[1]), "percent", match[0], match.start())
    for match in _PLACE.finditer(text):
        yield Number(Fraction(int(match[1])), "ordinal", match[0], match.start())
    for match in _TENTHS.finditer(text):
        tenths = _DIGITS[match["tenths"]]
        if match["part"]:
            yield Number(Fraction(10 * tenths), "percent", match[0], match.start())
        else:
            yield Number(Fraction(tenths), "tenths of a price", match[0], match.start())
    for match in _HALF.finditer(text):
        yield with_unit(text, Fraction(1, 2), match.start(), match.end())


def han_value(body: str) -> Fraction:
    """What numerals say, or digits one after another, as in a year."""
    if not any(character in _SCALES or character in _GREAT for character in body):
        return Fraction(int("".join(str(_DIGITS[digit]) for digit in body)))
    total = part = digit = 0
    for character in body:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif character in _SCALES:
            part, digit = part + (digit or 1) * _SCALES[character], 0
        else:
            total, part, digit = (total + part + digit or 1) * _GREAT[character], 0, 0
    return Fraction(total + part + digit)
