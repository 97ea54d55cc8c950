"""Cut an answer or a passage into sentences: every word is in one, also those of headings, lists and tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from sentencex import get_sentence_boundaries

_LANGUAGE = "en"  # whose abbreviations end no sentence; the full stops of other scripts are known as well
_BULLET = re.compile(r"[ \t]*(?:(?:[-*+•‣▪–]|#{1,6}|>(?![ \t]*\d))[ \t]+|\|[ \t]*)")
_NUMBER = re.compile(r"[ \t]*(\d{1,3})[.)][ \t]+")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_DAY = re.compile(r"\b\d{1,2}\.$")
_MONTH = re.compile(r"(?:jan|feb|mär|apr|mai|jun|jul|aug|sep|okt|nov|dez)", re.IGNORECASE)
_SHORT = "approx|aprox|max|máx|mín|incl|excl|temp|esp|resp|bzw|usw|ggf|inkl|exkl|zzgl|evtl|sog|vgl|gem|ej|прим|напр"
_ABBREVIATED = re.compile(rf"(?<!\w)(?:{_SHORT})\.$")
_PERHAPS_ABBREVIATED = re.compile(rf"(?<!\w)(?:(?i:{_SHORT})|(?-i:[a-zß-öø-ÿа-яё]){{1,6}})\.$")  # before a digit
_FOOTNOTE = re.compile(r"\s?(?:[⁰¹²³⁴-⁹]{1,3}|\[\^\d{1,3}\]|【\d[\d:]{0,6}(?:†source)?】)+(?!\S)")
_DECORATION = re.compile(
    "[\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\U0001f000-\U0001f0ff\U0001f300-\U0001f51d\U0001f525-\U0001faff]"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence: ``text[start:end]``, without list marker or surrounding white space.

    Attributes:
        start: first character.
        end: character after the last.
        block: number of its paragraph, heading, list item or table row.
        marker: first character of the block's list marker or heading mark; that of the block's words without one.
        words: first character of the block's words.
    """

    start: int
    end: int
    block: int
    marker: int
    words: int

    def sign(self, text: str) -> str:
        """The block's list marker or heading mark in the text; empty without one."""
        return text[self.marker : self.words].strip()


def segments(text: str) -> list[Segment]:
    """The sentences of a text, in order; what holds no letter, digit or sign that is read as one is none.

    A line break inside a paragraph ends no sentence. The numbers of a list that counts from 1 are not its words.
    """
    found = []
    for number, (marker, start, end) in enumerate(_blocks(text)):
        for first, last in _sentences(text[start:end]):
            found.append(Segment(start + first, start + last, number, marker, start))
    return found


def _blocks(text: str) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each paragraph, heading, list item or table row."""
    counted = _counting(text)
    block: tuple[int, int, int] | None = None
    heading = False
    for line in re.finditer(r"[^\n\r]+", text):
        start = _behind_markers(text, line.start(), line.end(), counted)
        gap = block is not None and re.search(r"\n[^\S\n]*\n|\r[^\S\r\n]*\r", text[block[2] : line.start() + 1])
        if not text[start : line.end()].strip():
            new = True
            start = line.end()
        else:
            new = block is None or heading or start != line.start() or bool(gap)
        if new:
            if block and block[1] < block[2]:
                yield block
            block = (line.start(), start, line.end()) if start < line.end() else None
        elif block:
            block = (block[0], block[1], line.end())
        heading = bool(_HEADING.match(line[0]))
    if block:
        yield block


def _behind_markers(text: str, start: int, end: int, counted: set[int]) -> int:
    """Where the words of a line begin; the line's start if it has no marker."""
    while start < end:
        marker = _BULLET.match(text, start, end)
        if marker is None and start in counted:
            marker = _NUMBER.match(text, start, end)
        if marker is None:
            break
        start = marker.end()
    return start


def _counting(text: str) -> set[int]:
    """Where the lines start that are numbered 1, 2, 3 …; a lone number may be a fact."""
    runs: list[list[int]] = []
    expected = 0
    for line in re.finditer(r"[^\n\r]+", text):
        number = _NUMBER.match(line[0])
        if number is None:
            continue
        found = int(number[1])
        if found == 1:
            runs.append([])
        elif found != expected:
            expected = 0
            continue
        runs[-1].append(line.start())
        expected = found + 1
    return {start for run in runs if len(run) > 1 for start in run}


def boundaries(block: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence of a block, white space around it and all; a footnote mark ends its sentence."""
    pending: tuple[int, int] | None = None
    for boundary in get_sentence_boundaries(_LANGUAGE, block):
        start, end = boundary["start_index"], boundary["end_index"]
        if pending:
            if mark := _FOOTNOTE.match(block, start, end):
                pending, start = (pending[0], mark.end()), mark.end()
            if _goes_on(_tail(block, *pending), block[start:end].lstrip()):
                start = pending[0]
            else:
                yield pending
        pending = (start, end)
    if pending:
        yield pending


def _tail(block: str, start: int, end: int) -> str:
    """The last characters of a sentence."""
    while start < end and block[end - 1].isspace():
        end -= 1
    return block[max(start, end - 12) : end]


def _goes_on(before: str, after: str) -> bool:
    """Whether a full stop was no end: behind an abbreviation, before lower case, or in a German date."""
    stopped = before[-1:] == "."
    small = after[:1].islower() or not _readable(after)
    short = _ABBREVIATED.search(before) or (after.lstrip("*_`(")[:1].isdigit() and _PERHAPS_ABBREVIATED.search(before))
    return (stopped and (small or bool(short))) or bool(_DAY.search(before[-4:]) and _MONTH.match(after))


def _readable(words: str) -> bool:
    """Whether there is a letter, a digit, or a sign that is read as one, such as Braille; emoji are decoration."""
    return any(
        character.isalnum()
        or (character > "\x7f" and unicodedata.category(character) in ("So", "Sk") and not _DECORATION.match(character))
        for character in words
    )


def _sentences(block: str) -> Iterator[tuple[int, int]]:
    for start, end in boundaries(block):
        words = block[start:end]
        if _readable(words):
            yield end - len(words.lstrip()), start + len(words.rstrip())
