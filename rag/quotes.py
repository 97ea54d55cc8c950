"""Find quotes: whole sentences or clauses of the evidence, whatever their white space, quotation marks and dashes."""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rag.facts.cues import ALTERS
from rag.segments import Segment, segments
from rag.types import InputError, Source

_TRIES = 50  # occurrences of a run of sentences that are looked at
_CLUSTER = 24  # marks on one character that are composed with it
_HIDDEN = r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]+"  # soft hyphens, zero-width and direction marks
_EMPHASIS = r"(?<![^\W_])[*_`]+|[*_`]+(?![^\W_])"
_MARKS = r"[\u0300-\u036f\u3099\u309a]"
_STABLE = r"\xc0-\u0131\u0400-\u045f\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_ODD = re.compile(
    rf"[^\S ]\s*|\s{{2,}}|{_HIDDEN}|{_EMPHASIS}|[^\x00-\x7f{_STABLE}]{_MARKS}{{0,{_CLUSTER}}}"
    rf"|[\x21-\x7f{_STABLE}]{_MARKS}{{1,{_CLUSTER}}}"
)
_DROPPED = re.compile(rf"{_HIDDEN}|[*_`]+")
_PLAIN = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'")
    | dict.fromkeys("“”„‟″«»「」『』", '"')
    | dict.fromkeys("‐‑‒–—―−﹣－", "-")
    | dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", ("^" + digit for digit in "0123456789"), strict=True))  # 10² is not 102
    | {"。": ".", "，": ",", "；": ";", "：": ":", "！": "!", "？": "?", "…": "..."}
)
_ENDS = " .!?;,:"
_WIDE = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]"


@dataclass(frozen=True, slots=True)
class Normal:
    """A text in which harmless differences are gone; character ``i`` came from ``text[starts[i]:ends[i]]``."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def at(self, start: int) -> int:
        """The first normal character that came from `start` or later."""
        return bisect_left(self.starts, start)

    def up_to(self, end: int) -> int:
        """The normal character after the last that came from before `end`."""
        return bisect_right(self.ends, end)


def normal(text: str) -> Normal:
    """Compatibility forms composed, white space single, quotation marks and dashes plain, emphasis taken out."""
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    position = 0

    def keep(piece: str, start: int, end: int) -> None:
        parts.append(piece)
        same = len(piece) == end - start
        starts.extend(range(start, end) if same else [start] * len(piece))
        ends.extend(range(start + 1, end + 1) if same else [end] * len(piece))

    for odd in _ODD.finditer(text):
        if position < odd.start():
            keep(text[position : odd.start()], position, odd.start())
        position = odd.end()
        if odd[0].isspace():
            if parts and not parts[-1].endswith(" "):
                keep(" ", odd.start(), odd.end())
        elif not _DROPPED.fullmatch(odd[0]):
            keep(unicodedata.normalize("NFKC", odd[0].translate(_PLAIN)).translate(_PLAIN), odd.start(), odd.end())
    if position < len(text):
        keep(text[position:], position, len(text))
    return Normal("".join(parts), starts, ends)


class Quotable:
    """Evidence, ready to be searched for quotes.

    A quote is a run of whole sentences, or a clause between semicolons if nothing else in its sentence could alter
    what it says: no condition, negation, question or report of what others say.

    Args:
        texts: the passages.
        more: places in them that may be quoted as well, such as the sentences of `rag.chunking`.
        most: sentences, of all passages together.

    Raises:
        InputError: there are more sentences.

    Attributes:
        segments: the sentences of each passage.
        leads: of a list item that stands under a negation, a condition or a report ("Never:"), that line.
    """

    def __init__(self, texts: Sequence[str], more: Iterable[Source] = (), most: int = 20_000) -> None:
        self.segments = [segments(text) for text in texts]
        count = sum(len(found) for found in self.segments)
        if count > most:
            raise InputError(f"{count} sentences, at most {most} are read; give fewer", "passages")
        self._normal = [normal(text) for text in texts]
        self._known: dict[str, list[Source]] = {}
        self._ends: list[set[int]] = []
        self._starts: list[set[int]] = []
        for number, found in enumerate(self.segments):
            whole = self._normal[number]
            starts, ends = set(), set()
            for segment in found:
                first, last = whole.at(segment.start), whole.up_to(segment.end)
                starts.add(first)
                ends.add(first + len(whole.text[first:last].rstrip(_ENDS)))
                self._add(whole.text[first:last], number, segment.start, segment.end)
                for left, right in _clauses(whole.text[first:last]):
                    start, end = whole.starts[first + left], whole.ends[first + right - 1]
                    self._add(whole.text[first + left : first + right], number, start, end)
            self._starts.append(starts)
            self._ends.append(ends)
        for place in more:
            self._add(self.normal(place), place.passage, place.start, place.end)
        self.leads = {
            Source(number, item.start, item.end): Source(number, lead.start, lead.end)
            for number, found in enumerate(self.segments)
            for item, lead in under_leads(texts[number], found)
        }

    def normal(self, place: Source) -> str:
        """The normalised text of a place."""
        whole = self._normal[place.passage]
        return whole.text[whole.at(place.start) : whole.up_to(place.end)]

    def passage(self, number: int) -> str:
        """The normalised text of a passage."""
        return self._normal[number].text

    def _add(self, words: str, passage: int, start: int, end: int) -> None:
        self._known.setdefault(key(words), []).append(Source(passage, start, end))

    def find(self, words: str) -> list[Source]:
        """Every place that says exactly this, in order; none if it is no whole sentence or clause."""
        said = normal(words).text.strip()
        for form in (said, _unquoted(said)):
            if key(form) and (found := self._known.get(key(form)) or self._runs(form)):
                return found
        return []

    def _runs(self, said: str) -> list[Source]:
        """Places where several sentences of the evidence in a row say it."""
        found = []
        question, said = "?" in said[-3:], said.rstrip(_ENDS)
        for passage, whole in enumerate(self._normal):
            at = -1
            for _ in range(_TRIES):
                at = whole.text.find(said, at + 1)
                if at < 0:
                    break
                end = at + len(said)
                closing = whole.text[end : end + 8]
                full = end + len(closing) - len(closing.lstrip(".!?"))
                if (
                    at in self._starts[passage]
                    and end in self._ends[passage]
                    and question == ("?" in whole.text[end:full])
                ):
                    found.append(Source(passage, whole.starts[at], whole.ends[full - 1]))
        return found


def under_leads(text: str, found: Sequence[Segment]) -> Iterator[tuple[Segment, Segment]]:
    """Each list item below a line such as "Never:", with that line."""
    lead: Segment | None = None
    for segment in found:
        words = text[segment.start : segment.end].rstrip("*_ ")
        item = segment.marker != segment.start
        if words.endswith((":", "：")):
            lead = segment if ALTERS.search(words) else None
        elif lead and not item and segment.block != lead.block:
            lead = None
        elif lead and item:
            yield segment, lead


def key(words: str) -> str:
    """What two spellings of one sentence share: all but the case of the first letter and the punctuation at the end."""
    words = re.sub(rf"(?<={_WIDE}) | (?={_WIDE})", "", words.strip())
    question = "?" if "?" in words[-3:] else ""
    words = words.rstrip(_ENDS)
    return words[:1].lower() + words[1:] + question if words else ""


def _unquoted(said: str) -> str:
    """Without the quotation marks that an answer sets around a quote; those of the evidence count."""
    inner = said.rstrip(_ENDS)
    return inner[1:-1] if len(inner) > 2 and inner[0] == inner[-1] and inner[0] in "\"'" else ""


def _clauses(sentence: str) -> list[tuple[int, int]]:
    """Start and end of each clause that can stand alone."""
    cuts = [0, *(found.end() for found in re.finditer(r";\s*", sentence)), len(sentence)]
    spans = list(itertools.pairwise(cuts))
    if len(spans) < 2 or len(spans) > 20:
        return []
    altering = [bool(ALTERS.search(sentence[start:end])) for start, end in spans]
    return [
        (start, start + len(sentence[start:end].rstrip(" ;")))
        for number, (start, end) in enumerate(spans)
        if sentence[start:end].strip(" ;.") and not any(altering[:number] + altering[number + 1 :])
    ]
