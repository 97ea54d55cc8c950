"""Cut an answer or a passage into sentences: every word is in one, also those of headings, lists and tables."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from sentencex import get_sentence_boundaries

MARKDOWN = MarkdownIt("commonmark").enable("table").disable("inline")  # blocks are all that is needed
_LANGUAGE = "en"  # whose abbreviations end no sentence; the full stops of other scripts are known as well
_BULLET = re.compile(r"[ \t]*(?:(?:[-*+•‣▪–]|#{1,6}|>(?![ \t]*\d))[ \t]+|\|[ \t]*)")
_NAMED = (  # months in German, whose dates are written "1. Mai"
    "(?:jan(?:uar)?|jänner|feb(?:ruar)?|märz?|apr(?:il)?|mai|juni?|juli?|aug(?:ust)?|sept?(?:ember)?|okt(?:ober)?"
    r"|nov(?:ember)?|dez(?:ember)?)(?![^\W_])"
)
_NUMBER = re.compile(rf"[ \t]*(\d{{1,3}})[.)][ \t]+(?!(?i:{_NAMED})\.?[ \t]+\d{{4}})")
_SIGN = re.compile(
    r"(?:^|(?<=\n))[ \t]*(?:(?P<above>>)[ \t]*\d|(?P<below>[-–])[ \t]+\d(?!\d?\.[ \t]+[^\W\d_])"
    rf"|(?:[-*+>][ \t]+){{0,5}}\d{{1,2}}(?P<day>\.)[ \t]+{_NAMED})",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_UNDERLINE = re.compile(r"[^\S\n\r]*(?:\r\n|[\n\r]) {0,3}(?:={2,}|-{2,})[ \t]*(?=[\n\r]|\Z)")
_HTML_HEADING = re.compile(r"<h[1-6]\b", re.IGNORECASE)
_QUOTED = re.compile(r"[ \t]*>[> \t]*")
_STRIKE = re.compile(r"(?<![~\\])~~(?!~)|<(?P<close>/?)(?:del|s|strike)(?:\s[^<>]{0,200})?>|\n[ \t]*\n", re.IGNORECASE)
_LINE_END = re.compile(r"(?:\r\n|[\n\r])[ \t]*\Z")
_CODE = re.compile(r"```|~~~|^(?: {4}|\t)", re.MULTILINE)  # without one of these there is no block of code
_GAP = re.compile(r"\n[ \t]*\r?\n|\r[ \t]*\r")
_MARKERS = re.compile(r"(?:[ \t>*+-]|\d+[.)])*")  # before the words of a line
_DAY = re.compile(r"\b\d{1,2}\.$")
_MONTH = re.compile(r"(?:jan|feb|mär|apr|mai|jun|jul|aug|sep|okt|nov|dez)", re.IGNORECASE)
_SHORT = "approx|aprox|max|máx|mín|incl|excl|temp|esp|resp|bzw|usw|ggf|inkl|exkl|zzgl|evtl|sog|vgl|gem|ej|прим|напр"
_ABBREVIATED = re.compile(rf"(?<!\w)(?:{_SHORT})\.$")
_PERHAPS_ABBREVIATED = re.compile(rf"(?<!\w)(?:(?i:{_SHORT})|(?-i:[a-zß-öø-ÿа-яё]){{1,6}})\.$")  # before a digit
_BEHIND = re.compile(  # a sentence, and of it
    r"(?:[*_]{1,3}|\s?(?:[⁰¹²³⁴-⁹]{1,3}|\[\^\d{1,3}\]|【\d[\d:]{0,6}(?:†source)?】|~~|</(?:del|s|strike)>)+)(?!\S)"
)
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_LEFT_TO_RIGHT = "\u200e\u202a\u202c\u2066\u2068\u2069"
_RIGHT_TO_LEFT = "\u061c\u200f\u202b\u202c\u2067\u2068\u2069"
# Marks of direction that change nothing around a sentence which begins with a letter of that way.
_MARKS = {"L": _LEFT_TO_RIGHT, "R": _RIGHT_TO_LEFT, "AL": _RIGHT_TO_LEFT}
_EMBEDS = re.compile("[\u202a-\u202e\u2066-\u2069]")
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

    def heading(self, text: str) -> bool:
        """Whether it is a heading: behind #, above a line of = or -, or in HTML."""
        if sign := self.sign(text):
            return "#" in sign
        if _HTML_HEADING.match(text, self.start):
            return True
        return bool(underline(text, self.end)) and not re.search(r"[\n\r]", text[self.words : self.end])


def segments(text: str) -> list[Segment]:
    """The sentences of a text, in order; what holds no letter, digit or sign that is read as one is none.

    A line break inside a paragraph ends no sentence. The numbers of a list that counts from 1 are not its words.
    """
    found = []
    for number, (marker, start, end) in enumerate(_blocks(text)):
        for first, last in _sentences(text[start:end]):
            found.append(Segment(start + first, start + last, number, marker, start))
    return found


def signs(text: str) -> set[int]:
    """Where a line starts with a sign that belongs to its first number, as in > 5, - 5 or 1. Mai, and is no marker."""
    text = text.replace("\r", "\n")  # the same length: offsets stay true
    counted = _counting(text)
    found = set()
    for sign in _SIGN.finditer(text):
        above, below = _line_above(text, sign.start()), _line_below(text, sign.end())
        if sign["above"]:
            fact = not any(line.lstrip().startswith(">") for line in (above, below))
        elif sign["below"]:  # a wrapped line, and no list
            own = above[-1:].isalnum() and not above[:1].isspace() and not _BULLET.match(above) and above[:1] != "|"
            fact = own and not _NUMBER.match(above) and not _BULLET.match(below)
        else:
            fact = sign.start() not in counted
        if fact:
            found.add(max(sign.start(group) for group in ("above", "below", "day")))
    return found


def underline(text: str, end: int) -> int:
    """The end of the line of = or - that makes a heading of the line which ends here; 0 without one.

    One below which the sentence goes on in lower case is decoration.
    """
    found = _UNDERLINE.match(text, end)
    return found.end() if found and not text[found.end() : found.end() + 80].lstrip()[:1].islower() else 0


def struck(text: str) -> bytearray:
    """1 for each character between marks that strike out, and of these: ~~…~~, <del>, <s> and <strike>; else 0."""
    mask = bytearray(len(text))
    wave = tag = edge = -1

    def mark(start: int, end: int) -> None:
        mask[start:end] = b"\1" * (end - start)

    for found in _STRIKE.finditer(text.replace("\r", "\n")):
        start, end = found.span()
        if found[0] == "~~":
            if wave >= 0 and not text[start - 1].isspace():
                mark(wave, end)
                wave = -1
            elif not text[end : end + 1].isspace():
                wave = start
        elif found[0][0] == "\n":
            wave = -1
            edge = start if edge < tag else edge
        elif not found["close"]:
            tag = start if tag < 0 else tag
        elif tag >= 0:
            mark(tag, end)
            tag = -1
    if tag >= 0:  # never closed
        mark(tag, edge if edge > tag else len(text))
    return mask


def uncommented(text: str) -> str:
    """The text with spaces in the place of each comment of HTML, which no reader sees; as long as it was.

    The line end before a comment that begins a line goes too: a sentence is not cut by an empty line that it leaves.
    Only such a comment goes over an empty line; <!-- within a line that is not closed before one is seen, and so is
    what stands in a block of code.
    """
    parts = []
    at = end = 0
    code = _code(text) if "<!--" in text else []
    while (start := text.find("<!--", at)) >= 0:
        while code and code[0][1] <= start:
            del code[0]
        if code and code[0][0] <= start:
            parts.append(text[at : code[0][1]])
            at = code[0][1]
            continue
        if end < start + 4 and (end := text.find("-->", start + 4)) < 0:
            break
        before = text[at:start]
        gap = _GAP.search(text, start, end)
        if gap and not _MARKERS.fullmatch(before, max(before.rfind("\n"), before.rfind("\r")) + 1):
            parts.append(text[at : gap.end()])
            at = gap.end()
        else:
            parts += [_LINE_END.sub(_blank, before), " " * (end + 3 - start)]
            at = end + 3
    return "".join([*parts, text[at:]])


def _code(text: str) -> list[tuple[int, int]]:
    """Start and end of each block of code of a Markdown text, fenced or indented, in order."""
    if not _CODE.search(text):
        return []
    lines = text.replace("\r", "\n").split("\n")  # the same length: offsets stay true
    starts = list(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    blocks = (token for token in MARKDOWN.parse("\n".join(lines)) if token.type in ("fence", "code_block"))
    return [(starts[token.map[0]], starts[token.map[1]]) for token in blocks if token.map]


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def unstruck(text: str) -> str:
    """The text with white space in the place of comments and sentences with struck words; as long as it was."""
    text = uncommented(text)
    mask = struck(text)
    if 1 not in mask:
        return text
    for segment in segments(text):
        if mask.find(1, segment.start, segment.end) >= 0:
            mask[segment.start : segment.end] = b"\1" * (segment.end - segment.start)
    return "".join(" " if gone and sign not in "\n\r" else sign for sign, gone in zip(text, mask, strict=True))


def _line_above(text: str, start: int) -> str:
    return text[text.rfind("\n", 0, max(0, start - 1)) + 1 : max(0, start - 1)].rstrip()


def _line_below(text: str, at: int) -> str:
    start = text.find("\n", at) + 1
    return text[start : start + 80].split("\n")[0] if start else ""


def _blocks(text: str) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each paragraph, heading, list item or table row."""
    counted, facts = _counting(text), signs(text)
    block: tuple[int, int, int] | None = None
    heading = quoted = False
    below = 0
    for line in re.finditer(r"[^\n\r]+", text):
        if line.end() == below:
            heading = True
            continue
        start = _behind_markers(text, line.start(), line.end(), counted, facts)
        gap = block is not None and re.search(r"\n[^\S\n]*\n|\r[^\S\r\n]*\r", text[block[2] : line.start() + 1])
        if not text[start : line.end()].strip():
            new = True
            start = line.end()
        else:
            goes_on = quoted and text[start].islower() and bool(_QUOTED.fullmatch(text, line.start(), start))
            new = block is None or heading or (start != line.start() and not goes_on) or bool(gap)
        heading = bool(_HEADING.match(line[0]))
        quoted = bool(_QUOTED.match(text, line.start(), start))
        if new:
            if block and block[1] < block[2]:
                yield block
            end = start + len(_unclosed(text[start : line.end()])) if heading else line.end()
            block = (line.start(), start, end) if start < line.end() else None
            below = underline(text, line.end()) if start == line.start() else 0
        elif block:
            block = (block[0], block[1], line.end())
    if block:
        yield block


def _unclosed(heading: str) -> str:
    """Without the # that may close a heading."""
    words = heading.rstrip()
    bare = words.rstrip("#")
    return bare if bare[-1:].isspace() else words


def _behind_markers(text: str, start: int, end: int, counted: set[int], facts: set[int]) -> int:
    """Where the words of a line begin; the line's start if it has no marker."""
    while start < end:
        marker = _BULLET.match(text, start, end)
        if marker and not facts.isdisjoint(range(start, marker.end())):
            break
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
    """Start and end of each sentence of a block, white space around it and all.

    A mark of a footnote, or one that ends bold, italic or struck words, ends its sentence.
    """
    pending: tuple[int, int] | None = None
    for boundary in get_sentence_boundaries(_LANGUAGE, block):
        start, end = boundary["start_index"], boundary["end_index"]
        if pending:
            if mark := _BEHIND.match(block, start, end):
                pending, start = (pending[0], mark.end()), mark.end()
            if _goes_on(_tail(block, *pending).rstrip("*_"), block[start:end].lstrip()):
                start = pending[0]
            else:
                yield pending
        pending = (start, end)
    if pending:
        yield pending


def trimmed(block: str, start: int, end: int) -> tuple[int, int]:
    """The place of a sentence without the white space around it, and marks of the direction that its letters have.

    Marks stay around a sentence with such as embed or override in it, since some may belong to these.
    """
    words = block[start:end]
    letter = words.lstrip(_SPACES + _LEFT_TO_RIGHT + _RIGHT_TO_LEFT)[:1] or " "
    around = _SPACES + _MARKS.get(unicodedata.bidirectional(letter), "")
    if _EMBEDS.search(words.strip(around)):
        around = _SPACES
    return end - len(words.lstrip(around)), start + len(words.rstrip(around))


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
        if _readable(block[start:end]):
            yield trimmed(block, start, end)
