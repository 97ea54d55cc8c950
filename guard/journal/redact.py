"""Masks in a text what names or unlocks somebody: addresses, numbers, accounts, keys.

What has a form is masked, rather too much than too little: every run of seven or more digits goes, whatever it is.
What has none stays: names, postal addresses, numbers in words, and whatever a text tells of a person.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_DASHES = r"\-\u2010-\u2015\u2212"  # that of keyboards, and those that editors and models put in its place
_GAP = rf"[ \t.{_DASHES}/()\u00a0\u2009\u200b\u202f]{{0,3}}"  # between the digits of a number
_SECRET_NAMES = (  # also within longer words, but not in a passage, a compass, a secretary or a tokenizer
    r"pass(?:word|wd|phrase|code)|"
    r"(?<!sur)(?<![ck]om)(?<!tres)(?<!by)(?<!over)(?<!under)pass(?!ag|eng|ing|ion|iv|ed|es|iert|ung)|"
    r"pwd|secret(?!ar|ion)|token(?!i[sz])|credential|api[_\- ]?key|access[_\- ]?key|private[_\- ]?key|"
    r"kennwort|contrase[ñn]a|(?<![rd]e)senha(?!lt|i\b)|пароль|"
    r"密[码碼](?![学學])|口令|パスワード|पासवर्ड|كلمة (?:المرور|السر)"
)
_BLANKS = r"[^\S\r\n]*+"
_BREAK = rf"(?:(?:\r\n?|\n){_BLANKS}(?:-[ \t]++)?+)?+"  # one at most, with the mark of a list
_SAYS = (  # between a name and its value
    rf"(?:{_BLANKS}(?:\b(?:is|ist|es|est|é|هي)\b|[是为為]|は(?={_BLANKS}[!-~])|[=-]>|→|[:=＝：])){{1,2}}+{_BLANKS}{_BREAK}|"
    r"[ ]*+\t[ \t]*+"
)
_QUOTES = (  # how each begins and ends; an apostrophe within a word is neither
    (r"\\\"", r"\\\""),
    (r"\\'", r"\\'"),
    (r"\"", r"\""),
    (r"(?<!\w)'", r"'(?!\w)"),
    ("`", "`"),
    ("“", "”"),
    ("‘", r"’(?!\w)"),
)
_QUOTED = "|".join(  # no quotation goes on behind the next that begins, else the time would be squared
    rf"(?<={begin})(?:(?!{begin}|{end})(?:\\[^\r\n]|[^\r\n]))++(?={end})" for begin, end in _QUOTES
)
_MASKS = r"\[(?:key|credentials|token|secret|email|iban|ip|card|phone|number)\]"
_CARD_BEGIN = r"(?<!\d)(?=[3-6]|2[2-7])"  # of the issuers; years begin otherwise
_CARD_GAP = rf"[\s_:,.{_DASHES}/()\u200b]{{0,8}}+"
_CARDS = ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4))  # how card numbers are grouped, the longest first
_TOKENS = (
    r"eyJ[\w\-]{8,1000}+\.[\w\-]{4,}(?:\.[\w\-]*)?",  # JSON web token
    r"(?:sk|pk|rk|whsec)[-_][\w\-]{8,}",
    r"gh[oprsu]_\w{16,}",
    r"github_pat_\w{16,}",
    r"glpat-[\w\-]{12,}",
    r"xox[a-z]-[\w\-]{8,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{12,}",
    r"AIza[\w\-]{20,}",
    r"(?:hf|npm)_\w{16,}",
    r"pypi-[\w\-]{16,}",
    r"SG\.[\w\-]{8,}\.[\w\-]{8,}",
)


def redact(text: str) -> str:
    """The text, with ``[email]``, ``[phone]`` and the like in place of what was masked."""
    for pattern, mask in _RULES:
        text = pattern.sub(mask, text)
    return text


def _token(match: re.Match[str]) -> str:
    run = match[0]
    return "[token]" if any(map(str.isdigit, run)) and any(map(str.isalpha, run)) else run


def _iban(match: re.Match[str]) -> str:
    """Masks the longest beginning that is an IBAN (ISO 13616: modulo 97 is 1); words may follow it."""
    words = re.split(r"([ \-])", match[0])
    for end in range(len(words), 0, -2):
        account = "".join(words[:end:2]).upper()
        if 15 <= len(account) <= 34:
            number = "".join(str(int(character, 36)) for character in account[4:] + account[:4])
            if int(number) % 97 == 1:
                return "[iban]" + "".join(words[end:])
    return match[0]


def _ip(match: re.Match[str]) -> str:
    if not any(map(str.isdigit, match[0])):  # a::b of a program
        return match[0]
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return "[ip]"


def _card(match: re.Match[str]) -> str:
    return "[card]" if _luhn([int(character) for character in match[0] if character.isdigit()]) else match[0]


def _number(match: re.Match[str]) -> str:
    digits = [int(character) for character in match[0] if character.isdigit()]
    if 13 <= len(digits) <= 19 and _luhn(digits):
        return "[card]"
    if match[0].startswith(("+", "0", "(")) and len(digits) <= 15:
        return "[phone]"
    return "[number]"


def _luhn(digits: list[int]) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_Mask = str | Callable[[re.Match[str]], str]
_RULES: tuple[tuple[re.Pattern[str], _Mask], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL), "[key]"),
    (re.compile(r"(?<=://)[^\s/@]{1,512}(?=@)"), "[credentials]"),
    (re.compile(r"\b(bearer|basic)[ \t]+[^\s\[]\S{5,}", re.IGNORECASE), r"\1 [token]"),
    (
        re.compile(
            rf"((?:{_SECRET_NAMES})[\w\-]{{0,16}}(?:\\?[\"'])?(?:{_SAYS})(?:\\?[\"'`“‘])?)"
            rf"(?:{_QUOTED}|(?!{_MASKS})[^\s\"'&,;][^\s\"'&;]*)",
            re.IGNORECASE,
        ),
        r"\1[secret]",
    ),
    (re.compile(rf"(?<![\w\[])(?:{'|'.join(_TOKENS)})"), "[token]"),
    (
        re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~\-])[\w.!#$%&'*+/=?^`{|}~\-]++[@＠](?:[\w\-]{1,63}\.){0,8}[\w\-]{1,63}"),
        "[email]",
    ),
    (re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?:[ \-]?[A-Z0-9]{1,4}){3,9}", re.IGNORECASE | re.ASCII), _iban),
    (re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), _ip),
    (re.compile(r"(?<![\d.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\d])"), _ip),
    (re.compile(r"[A-Za-z0-9_+=\-]{24,}"), _token),
    *(
        (re.compile(_CARD_BEGIN + _CARD_GAP.join(rf"\d{{{count}}}" for count in groups) + r"(?!\d)"), _card)
        for groups in _CARDS
    ),
    (re.compile(rf"[+(]?\d(?:{_GAP}\d){{6,}}"), _number),
)
