"""Cut a document into passages of whole sentences, each with its exact place in the text."""

from __future__ import annotations

import functools
import itertools
import operator
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import regex

from rag.segments import MARKDOWN, boundaries, signs, struck, trimmed, uncommented
from rag.types import Document, Passage

DEFAULT_WORDS = 80
_SIGNS = str.maketrans(">-.", "\ufdd0\ufdd1\ufdd2")  # of numbers, which would be read as markers
_SIGNS_BACK = str.maketrans("\ufdd0\ufdd1\ufdd2", ">-.")
_ABOVE = re.compile(r">[ \t]*\Z")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


@dataclass(frozen=True, slots=True)
class Section:
    """What lies below one heading.

    Attributes:
        heading: the heading's text; empty before the first one.
        start: first character of the heading's line.
    """

    heading: str
    start: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that can be quoted: ``text[start:end]``, without list marker or surrounding white space.

    Attributes:
        start: first character.
        end: character after the last.
        section: what it lies in.
        apart: whether struck words or a comment stand between it and the sentence before.
    """

    start: int
    end: int
    section: Section
    apart: bool = False


def headings(text: str) -> list[str]:
    """The headings of a Markdown text, in order."""
    return [section.heading for section, lines in _blocks(text) if not lines]


@functools.lru_cache(maxsize=256)
def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a Markdown text's paragraphs and list items, in order.

    Headings, code, tables, HTML, comments and what has struck words or a comment in it are not quotable and give none.
    A line break inside a paragraph ends no sentence.
    """
    seen = uncommented(text)
    out = struck(seen)
    if seen != text:
        out = bytearray(map(operator.or_, out, map(operator.ne, text, seen)))
    found: list[Sentence] = []
    before = 0
    for section, lines in _blocks(text):
        for start, end in _split(seen, lines) if lines else ():
            if out.find(1, start, end) < 0:
                found.append(Sentence(start, end, section, out.find(1, before, start) >= 0))
                before = end
    return tuple(found)


def sentences_inside(passage: Passage, document: Document) -> list[Sentence]:
    """The sentences of a document that stand whole in one of its passages."""
    known = sentences(document.text)
    return [each for each in known if passage.start <= each.start and each.end <= passage.end]


def passages(document: Document, words: int = DEFAULT_WORDS) -> list[Passage]:
    """Consecutive sentences of one section, as many as `words` allow; a longer sentence is a passage of its own.

    No passage goes over struck words or a comment.
    """
    runs: list[list[Sentence]] = []
    for _, group in itertools.groupby(sentences(document.text), key=lambda sentence: sentence.section):
        room = 0
        for sentence in group:
            length = _length(document.text[sentence.start : sentence.end])
            if length > room or sentence.apart:
                runs.append([])
                room = words
            runs[-1].append(sentence)
            room -= length
    return [
        Passage(
            id=f"{document.id}#{number}",
            document=document.id,
            version=document.version,
            start=run[0].start,
            end=run[-1].end,
            text=document.text[run[0].start : run[-1].end],
        )
        for number, run in enumerate(runs)
    ]


def embedding_text(document: Document, quotable: Passage | Sentence) -> str:
    """What the encoder reads: title and heading first, since they name the topic that the text takes for granted."""
    parts = (*_topic(document, quotable), document.text[quotable.start : quotable.end])
    return "\n".join(filter(None, dict.fromkeys(parts)))


def topic(document: Document, quotable: Passage | Sentence) -> str:
    """The document's title and the heading above."""
    return "\n".join(filter(None, dict.fromkeys(_topic(document, quotable))))


def _topic(document: Document, quotable: Passage | Sentence) -> tuple[str, str]:
    known = sentences(document.text)
    place = bisect_right(known, quotable.start, key=lambda sentence: sentence.start)
    return document.title, known[place - 1].section.heading if place else ""  # of what another version cut


def _length(text: str) -> int:
    """How many words; two characters of a script that writes no spaces count as one."""
    unspaced = len(_UNSPACED.findall(text))
    if not unspaced:
        return len(text.split())
    words = _UNSPACED.sub(" ", text).split()
    return (unspaced + 1) // 2 + sum(any(map(str.isalnum, word)) for word in words)


def _blocks(text: str) -> Iterator[tuple[Section, list[tuple[int, int]]]]:
    """Each heading, without lines, and each paragraph: where on each of its lines its words stand."""
    lines = text.replace("\r", "\n").split("\n")  # the same length: offsets stay true
    starts = list(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    marked = list("\n".join(lines))
    for at in signs(text):
        marked[at] = marked[at].translate(_SIGNS)
    section = Section("", 0)
    opened = ""
    for token in MARKDOWN.parse("".join(marked)):
        if token.type != "inline" or token.map is None:
            opened = token.type
        elif opened == "heading_open":
            section = Section(uncommented(token.content.translate(_SIGNS_BACK)).strip(), starts[token.map[0]])
            yield section, []
        elif opened == "paragraph_open":
            parts = token.content.split("\n")
            said = parts[0].translate(_SIGNS_BACK).rstrip()
            # Lines of other spaces than Markdown's open the paragraph, and are not in its content.
            first = next((at for at in range(*token.map) if lines[at].rstrip().endswith(said)), token.map[0])
            yield section, [_words(lines[at], starts[at], part) for at, part in enumerate(parts, first)]


def _words(line: str, start: int, content: str) -> tuple[int, int]:
    """The place of a line's content, which ends the line, behind list markers, quote marks and indentation.

    A > before a number is no quote mark.
    """
    length = len(line.rstrip())
    first = length - len(content.strip())
    if line[first : first + 1].isdigit() and (above := _ABOVE.search(line, 0, first)):
        first = above.start()
    return start + first, start + length


def _split(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    first = lines[0][0]
    places = itertools.pairwise([(first, first), *lines])
    block = "".join(text[start:end].rjust(end - before) for (_, before), (start, end) in places)
    for start, end in boundaries(block):
        start, end = trimmed(block, start, end)
        if start < end:
            yield first + start, first + end
