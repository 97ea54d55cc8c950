"""Years and centuries before Christ, which are other ones than those with the same number after."""

from __future__ import annotations

import re

# "2010 BC Hydro" names the province, "2010 BC" and "2010 BC the" an era; no era is as long ago as 100,000 years.
_ENGLISH = r"(?<!\d{6}\s)(?<!\d{3},\d{3}\s)(?>B\.\s?C\.(?:\s?E\b\.?)?|B\.\s?C|BCE?)"
_NO_NAME = r"(?!['’]|\s+(?!the\b|(?:to|until|and|or)\s\d)[^\W\d_])"
_BEFORE = (
    rf"(?:(?<!\b(?:18[5-9]\d|19\d\d|20\d\d|2100)\s){_ENGLISH}|{_ENGLISH}{_NO_NAME}"
    r"|before\s(?:Christ|the\s[Cc]ommon\s[Ee]ra)|v\.\s?(?:Chr|u\.\s?Z)\.|vor\s(?:Christus|Christi\sGeburt|unserer\sZeitrechnung)"
    r"|av(?:\.|ant)\s(?:J\.?\s?-\s?C\.?|Jésus-Christ|notre\sère)|a\.\s?(?:de\s)?C\.|a\.\s?n\.\s?e\.|antes\sde\sCristo)(?!\w)"
)
_SPAN = r"(?:[\s.-]{1,2}(?:centur(?:y|ies)|millenni(?:um|a)|Jahrhunderts?|Jahrtausends?|siècles?))?"
_BEHIND = re.compile(
    rf"{_SPAN}(?:\s?(?:-|to|and|until|bis|und|à|et|al?|y)\s?(?P<last>\d{{1,4}})(?:st|nd|rd|th)?{_SPAN})?\s?{_BEFORE}"
)
_AHEAD = re.compile(r"(?:公元|紀元|纪元|西元)前\s?(?:(?P<first>\d{1,4})(?:年|世[纪紀])?(?:-|~|至|到|から)(?:前)?)?$")
_AHEAD_ALONE = re.compile(r"(?<![年之以目提])前(?=\d{3,4}年)")  # 前10年 are the last ten years
_NEAR = 16  # characters before a number in which such words may stand
_NAMED = re.compile(rf"(?:(?<=\d)|(?<=\d\s)|(?<=century\s)){_BEFORE}")


def before_christ(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The place of a number with the words that set it before Christ; None without them.

    Both numbers of 431-404 BC are of that time, since they count down; the words belong to the one beside them.
    """
    if behind := _BEHIND.match(text, end):
        if not behind["last"]:
            return start, behind.end()
        return (start, end) if _counts_down(text[start:end], behind["last"]) else None
    if ahead := _AHEAD.search(text, max(0, start - _NEAR), start):
        if not ahead["first"]:
            return ahead.start(), end
        return (start, end) if _counts_down(ahead["first"], text[start:end]) else None
    if start and _AHEAD_ALONE.match(text, start - 1):
        return start - 1, end
    return None


def without_eras(text: str) -> str:
    """The text with white space in the place of such words as BC behind a number; as long as it was."""
    return _NAMED.sub(lambda era: " " * len(era[0]), text)


def _counts_down(first: str, last: str) -> bool:
    numbers = [int(digits) for digits in re.findall(r"\d{1,4}", f"{first} {last}")]
    return len(numbers) != 2 or numbers[0] > numbers[1]
