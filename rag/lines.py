"""Lines above a sentence that say what it is about, or turn it: headings, ":" lines such as "Never:", table headers."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rag.facts.surroundings import ALTERS, TURNING_HEADING
from rag.segments import Segment, segments
from rag.spelling import key, normal

_LONE = re.compile(r"\s\d{1,3}[.)]$")  # the number of what comes next
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_LINKED = re.compile(r"\[([^\[\]]{0,200})\](?:\([^()]{0,500}\)|\[[^\[\]]{0,200}\])?")
_ATTRIBUTES = re.compile(r"\{[^{}]{0,200}\}\s*$")
_DECORATION = re.compile(r"^[\W\d_]+|(?<![^\w?؟])[^\w?؟]+$")  # around the words of a heading
_BOLD = re.compile(r"(\*\*|__)(?=\S)[^*_]*[^*_\s.!?:。！？؟：]\1")
_ASKED = re.compile(r"[?？؟][\s*_)]{0,8}$")  # not where somebody else's question is quoted
_RULE = re.compile(r"[ \t|]*\n[ \t]*\|?[ \t]*:?-{2,}")  # below the header of a table


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and a sentence that it stands above.

    Attributes:
        of: number of the line among the sentences of its text.
        at: first character of the line; below 0 if it stands before the text.
        start: first character of the sentence below.
        end: character after the last of that sentence.
        words: of the line, as `rag.spelling.key` writes them.
        turns: whether it holds a negation, a condition or a report.
        near: whether it stands right above; a question may stand farther above.
    """

    of: int
    at: int
    start: int
    end: int
    words: str
    turns: bool
    near: bool = True

    def moved(self, by: int) -> Line:
        """The same in a text that starts elsewhere."""
        return replace(self, at=self.at + by, start=self.start + by, end=self.end + by)


def lines_above(text: str, found: Sequence[Segment]) -> Iterator[Line]:
    """The lines above each sentence, in the order of the sentences; such a line itself counts as one above it.

    Those are its nearest heading, paragraph in bold and question, and the nearest ":" line or table header, and the
    nearest one that turns, of the list or table that it is in. A ":" line also stands above the rest of its paragraph
    and the block right after it.
    """
    heading = bold = asked = line = lead = -1
    paragraph = -1  # the last block that is no item
    heads: dict[int, tuple[str, bool]] = {}
    for number, segment in enumerate(found):
        sign, words = segment.sign(text), text[segment.start : segment.end]
        if segment.heading(text):
            heading, bold, asked, line, lead = number, -1, -1, -1, -1
            heads[number] = _heading(words)
            yield Line(number, segment.start, segment.start, segment.end, *heads[number])
            continue
        paragraph = paragraph if sign else segment.block
        if not sign and _alone(found, number) and _BOLD.fullmatch(words):
            bold, asked = number, -1
            heads[number] = _heading(words)
            yield Line(number, segment.start, segment.start, segment.end, *heads[number])
        line, lead = (
            at if at >= 0 and _holds(found[at], segment, bool(sign), paragraph) else -1 for at in (line, lead)
        )
        for at in sorted({heading, bold, asked, line, lead} - {-1, number}):
            near = at != asked or _answers(found, at, segment, bool(sign), paragraph)
            yield Line(at, found[at].start, segment.start, segment.end, *heads[at], near)
        if _ASKED.search(words) and bold != number:
            asked = number
            heads[number] = (_key(words), False)
            yield Line(number, segment.start, segment.start, segment.end, *heads[number])
        if _LONE.sub("", words).rstrip("*_ ").endswith((":", "：")) or (
            sign.startswith("|") and _RULE.match(text, segment.end)
        ):
            line = number
            heads[number] = (_key(words), bool(ALTERS.search(words)))
            lead = number if heads[number][1] else lead
            yield Line(number, segment.start, segment.start, segment.end, *heads[number])


@functools.lru_cache(maxsize=256)
def turned_by_headings(text: str) -> frozenset[int]:
    """The first characters of the sentences below a heading that turns them: no answer can quote them by themselves."""
    found = segments(text)
    above = (line for line in lines_above(text, found) if line.turns and line.at != line.start)
    return frozenset(line.start for line in above if found[line.of].heading(text))


def _holds(head: Segment, segment: Segment, item: bool, paragraph: int) -> bool:
    """Whether a line stands above a sentence: in its list or table, in its paragraph or in the block right after."""
    return segment.block - head.block in (0, 1) or (item and paragraph <= head.block)


def _answers(found: Sequence[Segment], asked: int, segment: Segment, item: bool, paragraph: int) -> bool:
    """Whether a question stands right above a sentence: in its paragraph, or at the end of what it stands below."""
    head = found[asked]
    return head.block == segment.block or (
        found[asked + 1].block != head.block and _holds(head, segment, item, paragraph)
    )


def _alone(found: Sequence[Segment], number: int) -> bool:
    """Whether a sentence is the only one of its block."""
    around = [*found[max(0, number - 1) : number], *found[number + 1 : number + 2]]
    return all(each.block != found[number].block for each in around)


def _heading(words: str) -> tuple[str, bool]:
    """The words of a heading without links, marks and decoration, and whether it turns what is below."""
    plain = _ATTRIBUTES.sub("", _LINKED.sub(r"\1", _TAG.sub("", words)))
    return _key(plain), bool(TURNING_HEADING.fullmatch(_DECORATION.sub("", normal(plain).text)))


def _key(words: str) -> str:
    return key(normal(words).text)
