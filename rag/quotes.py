"""Find quotes: whole sentences or clauses of the evidence, whatever their white space, quotation marks and dashes."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from rag.facts.language import language_of
from rag.facts.surroundings import ALTERS, BINDS, DENIES
from rag.lines import Line, lines_above
from rag.segments import segments, unstruck
from rag.spelling import ENDS, key, normal
from rag.types import InputError, Source

_TRIES = 50  # occurrences of a run of sentences that are looked at
_MARK = r"(?:\[\^?\d{1,3}(?: ?[,;-] ?\^?\d{1,3})*\]|【\d{1,3}(?::\d{1,3})?(?:†source)?】)"
_FOOTNOTE = r"(?<=[.!?])(?:\^\d){1,3}$"
_CITED = re.compile(rf"(?: ?{_MARK}){{1,9}}(?=[.!?]*$)|{_FOOTNOTE}")  # marks that cite a source
_NUMBERED = re.compile(r" \((\d{1,2})\)(?=[.!?]*$)")
_NOTED = re.compile(
    rf"(?: |(?<=[.!?])){_MARK}{{1,9}}(?=[.!?]*$)|{_FOOTNOTE}"
)  # the same in evidence, where a[3] is a fact
_OTHER_SCRIPT = re.compile(r"[\u0400-\u1cff\u1ea0-\u1ef9\uac00-\ud7a3]|[\u0370-\u03ff\u1f00-\u1fff]{2}")
_FUNCTION = 0.12  # share of words that the languages with tables have in common texts, and others do not
# Negations of languages that share words with those of the tables.
_DENIED_ABROAD = re.compile(
    r"(?<!\w)(?:non|(?<!\d )(?-i:mai)|nessun\w*|senza|né|mica|tranne|salvo|vietat\w*|não|nem|sem|nenhum\w*|exceto"
    r"|niet|nooit|geen|zonder|behalve|tenzij|inte|aldrig|ingen|inga|inget|utan|ikke|aldri|intet|uden|uten|nu|fără|nie|bez)(?!\w)",
    re.IGNORECASE,
)
# What a clause begins with that limits the one before it.
_LIMITS = re.compile(
    r"\W*(?:(?:for|in|within|with|during|over|under|above|below|from|by|at|on|after|among|between|less|fewer|more|half"
    r"|für|bei|mit|im|während|über|unter|ab|bis|von|nach|weniger|mehr|halb\w*"
    r"|pour|chez|avec|dans|en|pendant|sous|sur|au|aux|dès|moins|plus"
    r"|para|con|durante|por|desde|hasta|menos|más)(?!\w)|对|在|当|于|按)",
    re.IGNORECASE,
)
_GROUPS = re.compile(
    r"(?<!\w)(?:adults?|child(?:ren)?|kids?|infants?|bab(?:y|ies)|newborns?|toddlers?|teen\w*|adolescents?|wom[ae]n|m[ae]n"
    r"|boys?|girls?|pregnan\w*|breastfeed\w*|elderly|seniors?|people|persons?|patients?|anyone|those"
    r"|erwachsene\w*|kind(?:er\w*)?|säugling\w*|jugendliche\w*|frauen|männer\w*|schwanger\w*|stillend\w*|ältere\w*"
    r"|personen|patient\w*|menschen|wer"
    r"|adultes|enfants?|nourrissons?|bébés?|femmes?|hommes?|enceintes?|personnes?"
    r"|adult[oa]s?|niñ[oa]s?|bebés?|lactantes|mujer(?:es)?|hombres?|embaraz\w*|personas?|pacientes?|ancian[oa]s?)(?!\w)"
    r"|儿童|兒童|孩子|小孩|婴|幼儿|成人|成年人|老人|老年|孕妇|妇女|哺乳|患者|病人|男性|女性|小児|子ども|子供|大人|高齢|妊|授乳|乳児",
    re.IGNORECASE,
)
_LINK = re.compile(r'(?<!!)\[([^\[\]]{1,200})\]\((?:[^()\s]|\([^()\s]{0,100}\)){0,500}(?: "[^"]{0,200}")?\)')


class Quotable:
    """Evidence, ready to be searched for quotes.

    A quote is a run of whole sentences, or a clause between semicolons if nothing else in its sentence could alter
    what it says: no condition, negation, question, report of what others say, or word on whom or what it is for. Where
    no table has the words for these, a clause is none. Nor is a sentence with struck words.

    Args:
        texts: the passages.
        more: places in them that may be quoted as well, such as the sentences of `rag.chunking`.
        most: sentences, of all passages together.
        outer: by number of the passage, lines above it in its document that hold for its sentences.

    Raises:
        InputError: there are more sentences.

    Attributes:
        segments: the sentences of each passage.
        heads: words of the lines above some sentence; see `rag.lines`.
    """

    def __init__(
        self,
        texts: Sequence[str],
        more: Iterable[Source] = (),
        most: int = 20_000,
        outer: Mapping[int, Sequence[Line]] | None = None,
    ) -> None:
        texts = [unstruck(text) for text in texts]
        self.segments = [segments(text) for text in texts]
        count = sum(len(found) for found in self.segments)
        if count > most:
            raise InputError(f"{count} sentences, at most {most} are read; give fewer", "passages")
        self._normal = [normal(text) for text in texts]
        self.languages = [language_of(whole.text) for whole in self._normal]
        self._known: dict[str, list[Source]] = {}
        self._bare: dict[str, list[Source]] = {}
        self._ends: list[set[int]] = [set() for _ in texts]
        self._starts: list[set[int]] = [set() for _ in texts]
        for number, text in enumerate(texts):
            self._add_sentences(number, text)
        for place in more:
            self._add(self.normal(place), place.passage, place.start, place.end)
        self._above = [
            (list(lines_above(text, found)), list((outer or {}).get(number, ())))
            for number, (text, found) in enumerate(zip(texts, self.segments, strict=True))
        ]
        self._found: dict[Source, dict[str, bool]] = {}
        self.heads = {line.words for both in self._above for lines in both for line in lines}
        self._numbers = [
            [re.sub(r"\D", "", each.sign(text)) for each in found]
            for text, found in zip(texts, self.segments, strict=True)
        ]

    def above(self, place: Source) -> dict[str, bool]:
        """Words of the lines outside a place that stand above a sentence which it touches, and whether they turn it."""
        if place in self._found:
            return self._found[place]
        found = self._found[place] = {}
        for lines in self._above[place.passage]:
            at = bisect_right(lines, place.start, key=lambda line: line.end)
            while at < len(lines) and lines[at].start < place.end:
                if not place.start <= lines[at].at < place.end:
                    found[lines[at].words] = lines[at].turns
                at += 1
        return found

    def number(self, place: Source) -> str:
        """That of the list item in which a place begins; empty without one."""
        at = bisect_right(self.segments[place.passage], place.start, key=lambda segment: segment.start) - 1
        return self._numbers[place.passage][at] if at >= 0 else ""

    def normal(self, place: Source) -> str:
        """The normalised text of a place."""
        whole = self._normal[place.passage]
        return whole.text[whole.at(place.start) : whole.up_to(place.end)]

    def at(self, place: Source) -> int:
        """Where a place begins in its normalised passage."""
        return self._normal[place.passage].at(place.start)

    def passage(self, number: int) -> str:
        """The normalised text of a passage."""
        return self._normal[number].text

    def _add_sentences(self, passage: int, text: str) -> None:
        """The sentences and clauses of a passage, but no heading that only names what is false."""
        whole, found = self._normal[passage], self.segments[passage]
        claused = ";" in whole.text and _has_tables(whole.text)
        for at, segment in enumerate(found):
            if segment.heading(text) and at + 1 < len(found):
                said, after = (text[each.start : each.end] for each in found[at : at + 2])
                if not said.endswith("?") and DENIES.search(after):
                    continue
            first, last = whole.at(segment.start), whole.up_to(segment.end)
            words = whole.text[first:last]
            self._starts[passage].add(first)
            self._ends[passage].add(first + len(words.rstrip(ENDS)))
            self._add(words, passage, segment.start, segment.end)
            for left, right in _clauses(words) if claused else ():
                self._add(words[left:right], passage, whole.starts[first + left], whole.ends[first + right - 1])

    def _add(self, words: str, passage: int, start: int, end: int) -> None:
        place = Source(passage, start, end)
        self._known.setdefault(key(words), []).append(place)
        if (bare := _bare(words)) != words:
            self._bare.setdefault(key(bare), []).append(place)

    def find(self, words: str) -> list[Source]:
        """Every place that says exactly this, in order; none if it is no whole sentence or clause."""
        said = normal(words).text.strip()
        for form in (said, _unquoted(said), bare := self._uncited(said), _unquoted(bare)):
            if (same := key(form)) and (found := self._known.get(same) or self._runs(form) or self._bare.get(same, [])):
                return found
        return []

    def _uncited(self, said: str) -> str:
        """Without the marks at the end that cite a source; (8) is one only if there are eight passages."""
        said = _CITED.sub("", said)
        number = _NUMBERED.search(said)
        if number and 0 < int(number[1]) <= len(self.segments):
            return said[: number.start()] + said[number.end() :]
        return said

    def _runs(self, said: str) -> list[Source]:
        """Places where several sentences of the evidence in a row say it."""
        found = []
        question, said = "?" in said[-3:], said.rstrip(ENDS)
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


def _bare(words: str) -> str:
    """A sentence of the evidence without its links and footnote marks, as an answer says it."""
    words = _LINK.sub(lambda link: f"[{link[1]}]" if link[1].strip("^").isdigit() else link[1], words)
    return _NOTED.sub("", words.rstrip())


def _unquoted(said: str) -> str:
    """Without the quotation marks that an answer sets around a quote; those of the evidence count."""
    inner = said.rstrip(ENDS)
    return inner[1:-1] if len(inner) > 2 and inner[0] == inner[-1] and inner[0] in "\"'" else ""


def _has_tables(text: str) -> bool:
    """Whether a text is in a language that has a table of cues, and shows it."""
    language = language_of(text, default="")
    if language in ("zh", "ja"):
        return True
    words = re.findall(r"[^\W\d_]+", text[:2000])
    known = sum(bool(language_of(word, default="")) for word in words)
    return known >= max(1, _FUNCTION * len(words))


def _clauses(sentence: str) -> list[tuple[int, int]]:
    """Start and end of each clause that can stand alone."""
    cuts = [0, *(found.end() for found in re.finditer(r";\s*", sentence)), len(sentence)]
    spans = list(itertools.pairwise(cuts))
    if len(spans) < 2 or len(spans) > 20 or _OTHER_SCRIPT.search(sentence):
        return []
    turning = (ALTERS, BINDS, _DENIED_ABROAD)
    altering = [
        _LIMITS.match(sentence, start, end) or any(words.search(sentence, start, end) for words in turning)
        for start, end in spans
    ]
    groups = [bool(_GROUPS.search(sentence, start, end)) for start, end in spans]
    return [
        (start, start + len(sentence[start:end].rstrip(" ;")))
        for number, (start, end) in enumerate(spans)
        if sentence[start:end].strip(" ;.")
        and not any(altering[:number] + altering[number + 1 :])
        and (groups[number] or not any(groups))
    ]
