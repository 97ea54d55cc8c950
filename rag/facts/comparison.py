"""Hold the facts of a claim against those of its evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import chain
from typing import TypeVar

from rag.facts.dates import dates, terms
from rag.facts.language import language_of
from rag.facts.names import Name, codes, names
from rag.facts.numbers import numbers, ranges
from rag.facts.polarity import turned
from rag.facts.shares import Found, exchanged
from rag.facts.types import Date, Number, Placed, Term, blank
from rag.facts.words import coverage, words

READ = 2000  # characters of a sentence that are compared
_ALIKE = 0.5  # share of a claim's words from which a sentence is about the same thing
_COPY = 0.6  # likeness from which one sentence is the other with a word replaced
_TOKENS = 200  # of a sentence, for that: the comparison takes the square of them
_SHORT_HAN = 20  # characters of a Chinese sentence of which a few changed ones change most words
_SHORT = 6  # tokens that may take a name's place
_BOUND = re.compile(  # a claim that may name one end of a range
    r"(?<!\w)(?:at least|at most|up to|over|under|above|below|more|less|fewer|within|until|as|from|by|minimum|maximum"
    r"|max|min|\w{3,}est|most|least|lower|upper|low|high|begins?|starts?|starting|initially|first|or|can|could|may|might"
    r"|sometimes|possible|possibly|even|exceed\w*"
    r"|mindestens|höchstens|maximal|bis|ab|über|unter|mehr|weniger|kann|können|könn\w*|manchmal|möglich"
    r"|moins|plus|jusqu\w*|peut|peuvent|menos|más|hasta|puede|pueden)(?!\w)"
    r"|至少|最[多少高低长短大小]|不?超过|以[上下内]|[高低多少]于|不到|可|能|起|也许",
    re.IGNORECASE,
)
_Kind = TypeVar("_Kind", Number, Date, Term)
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules find in a sentence.

    Attributes:
        text: the sentence, normalised (`rag.spelling.normal`), at most `READ` characters.
        language: a guess.
        numbers: with their units.
        dates: also single years and months.
        terms: times, weekdays, rates, codes.
        names: words that look like one.
        words: stems of its content words.
    """

    text: str
    language: str
    numbers: tuple[Number, ...]
    dates: tuple[Date, ...]
    terms: tuple[Term, ...]
    names: tuple[Name, ...]
    words: tuple[str, ...]

    def alike(self, evidence: Facts) -> bool:
        """Whether a sentence of the evidence has most of this one's words, and so is about the same thing."""
        return coverage(self.words, evidence.words) >= _ALIKE


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a claim cannot rest on its evidence.

    Attributes:
        rule: the kind of fact, such as ``number`` or ``negation``.
        reason: the same in words.
        contradicted: whether the evidence says something else; else it only does not say it.
    """

    rule: str
    reason: str
    contradicted: bool


@lru_cache(maxsize=1024)
def facts(text: str, language: str) -> Facts:
    """The facts of a normalised sentence in a language of `rag.facts.language`."""
    text = text[:READ]
    free = text
    found_codes = codes(text)
    free = _without(free, found_codes)
    found_dates = dates(free)
    free = _without(free, found_dates)
    found_terms = terms(free)
    free = _without(free, [term for term in found_terms if term.kind == "time"])
    return Facts(
        text=text,
        language=language,
        numbers=tuple(numbers(free, language)),
        dates=tuple(found_dates),
        terms=tuple([*found_codes, *found_terms]),
        names=tuple(names(text, language)),
        words=tuple(words(text)),
    )


def claim_facts(text: str, evidence: Facts) -> Facts:
    """The facts of a normalised claim, read in the language of a sentence like it, else in its own."""
    claim = facts(text, evidence.language)
    return claim if claim.alike(evidence) else facts(text, language_of(text, default=evidence.language))


def compare(claim: Facts, best: Facts, others: Sequence[Facts] = (), context: str = "") -> Fault | None:
    """The first fact of a claim that its evidence lacks or contradicts; None if there is none.

    Args:
        claim: the sentence to check.
        best: the sentence of the evidence that is most like it.
        others: further sentences like it, where facts may stand that `best` says nothing of.
        context: the normalised passage around `best`, where names may stand.
    """
    alike = claim.alike(best)
    if fault := next(chain(_missing(claim, best, others, alike), _names(claim, best, context, alike)), None):
        return fault
    if alike and (end := _end(claim, best, others)):
        return end
    if order := _order(claim, best):
        return order
    if (alike or _copied(claim, best)) and claim.language == best.language:
        turn = turned(_without(claim.text, claim.dates), _without(best.text, best.dates), claim.language)
        if turn:
            return Fault(turn.rule, turn.reason, contradicted=turn.opposed)
    return None


def _copied(claim: Facts, best: Facts) -> bool:
    """Whether two sentences in Chinese have most characters in common; in a short one, one changes most pairs."""
    if claim.language != "zh" or not 3 < len(claim.text) < _SHORT_HAN or not 3 < len(best.text) < _SHORT_HAN:
        return False
    return SequenceMatcher(None, claim.text, best.text, autojunk=False).ratio() >= _COPY


def _without(text: str, found: Sequence[Placed]) -> str:
    for fact in found:
        text = blank(text, fact.start, fact.end)
    return text


def _missing(claim: Facts, best: Facts, others: Sequence[Facts], alike: bool) -> Iterator[Fault]:
    """Facts that the evidence lacks, and those that stand in the place of another."""
    yield from _missing_of(lambda facts: facts.numbers, claim, best, others, alike)
    yield from _missing_of(lambda facts: facts.dates, claim, best, others, alike)
    yield from _missing_of(lambda facts: facts.terms, claim, best, others, alike)


def _missing_of(
    of: Callable[[Facts], Sequence[_Kind]], claim: Facts, best: Facts, others: Sequence[Facts], alike: bool
) -> Iterator[Fault]:
    mine, theirs = _distinct(of(claim)), _distinct(of(best))
    unsaid = [known for known in theirs if not _known(known, mine)]
    for fact in mine:
        if _known(fact, theirs) or _in_other_form(fact, best):
            continue
        if said := next((known for known in unsaid if _instead(fact, known)), None):
            yield Fault(fact.rule, f"the evidence says {said.text!r}, the claim {fact.text!r}", contradicted=alike)
        elif isinstance(fact, Number) and not fact.needed:
            continue
        elif not any(_known(fact, of(other)) or _in_other_form(fact, other) for other in others):
            yield Fault(fact.rule, f"the evidence lacks {fact.text!r}", contradicted=False)


def _distinct(found: Sequence[_Kind]) -> list[_Kind]:
    """Facts without those that say again what one before says, which a hostile sentence may have by the hundred."""
    first: dict[_Kind, _Kind] = {}
    for fact in found:
        first.setdefault(replace(fact, text="", start=0), fact)
    return list(first.values())


def _instead(fact: _Kind, known: _Kind) -> bool:
    """Whether a fact of the evidence stands in the place of a claim's."""
    if isinstance(fact, Number) and not fact.needed:  # "an hour" is not in the place of a bare number
        return fact.held and fact.against(known) and fact.unit == known.unit
    return fact.against(known)


def _end(claim: Facts, best: Facts, others: Sequence[Facts]) -> Fault | None:
    """A range of which the claim says one end as if it were all."""
    if _BOUND.search(claim.text):
        return None
    for low, high in ranges(best.text, best.numbers):
        elsewhere = [number for facts in (best, *others) for number in facts.numbers if number not in (low, high)]
        said = [end for end in (low, high) if any(number.unit and number.says(end) for number in claim.numbers)]
        if len(said) == 1 and not _known(said[0], elsewhere):
            text = best.text[low.start : high.end]
            return Fault("number", f"the evidence says {text!r}, the claim only an end of it", contradicted=False)
    return None


def _known(fact: _Kind, known: Sequence[_Kind]) -> bool:
    return any(fact.says(other) for other in known)


def _in_other_form(fact: Number | Date | Term, evidence: Facts) -> bool:
    """Whether a bare number is a year or an hour of the evidence, or a year one of its bare numbers."""
    if isinstance(fact, Date):
        year, month, day = fact.parts[0]
        return month is day is None and any(number.value == year and not number.unit for number in evidence.numbers)
    if isinstance(fact, Number) and not fact.unit:
        hours = [term.value for term in evidence.terms if term.kind == "time"]
        years = [date.parts[0] for date in evidence.dates]
        return (fact.value.denominator == 1 and (int(fact.value), None, None) in years) or (
            fact.value < 25 and f"{int(fact.value):02}:00" in hours
        )
    return False


def _names(claim: Facts, best: Facts, context: str, alike: bool) -> Iterator[Fault]:
    """Names that the evidence lacks, and names that stand in the place of another."""
    replaced = _replaced(claim, best)
    for name in claim.names:
        if _has(best.text, name.text):
            continue
        instead = next((known.text for said, known in replaced if name.text in said), "")
        if instead:
            yield Fault("name", f"the evidence says {instead!r}, the claim {name.text!r}", contradicted=alike)
        elif name.sure and (not _has(context, name.text) or _other_names(claim, best)):
            yield Fault("name", f"the evidence lacks {name.text!r}", contradicted=False)
    for said, known in replaced:
        if (known.sure or best.language == "zh") and not _has(claim.text, known.text):
            yield Fault("name", f"the evidence says {known.text!r}, the claim {said!r}", contradicted=alike)


def _replaced(claim: Facts, best: Facts) -> list[tuple[str, Name]]:
    """Short runs of the claim, and the names of the evidence whose place they take, if all else is much the same."""
    mine, theirs = list(_TOKEN.finditer(claim.text)), list(_TOKEN.finditer(best.text))
    if max(len(mine), len(theirs)) > _TOKENS:
        return []
    matcher = SequenceMatcher(None, [m[0].casefold() for m in mine], [t[0].casefold() for t in theirs], autojunk=False)
    if matcher.ratio() < _COPY:
        return []
    found = []
    for kind, first, last, left, right in matcher.get_opcodes():
        if kind == "replace" and max(last - first, right - left) <= _SHORT:
            said = claim.text[mine[first].start() : mine[last - 1].end()]
            start, end = theirs[left].start(), theirs[right - 1].end()
            found += [(said, name) for name in best.names if name.start < end and start < name.end]
    return found


def _has(text: str, name: str) -> bool:
    if not name.isascii() and "\u3040" <= name[0] <= "\u9fff":
        return name in text
    stem = name.casefold().removesuffix("'s").removesuffix("’s")
    return bool(re.search(rf"(?<!\w){re.escape(stem)}(?:['’]?s)?(?!\w)", text.casefold()))


def _other_names(claim: Facts, best: Facts) -> bool:
    """Whether the best sentence has a name that the claim lacks, so that another name is another fact."""
    return any(name.sure and not _has(claim.text, name.text) for name in best.names)


def _order(claim: Facts, best: Facts) -> Fault | None:
    """A fact in another's place: all other words the same, or with the words of the other around it."""
    kinds: tuple[Callable[[Facts], list[Found]], ...] = (
        lambda facts: [(n.start, n.text, (n.value, n.unit)) for n in facts.numbers if n.needed],
        lambda facts: [(d.start, d.text, d.parts) for d in facts.dates],
        lambda facts: [(n.start, n.text, n.text.casefold()) for n in facts.names],
    )
    for of in kinds:
        mine, theirs = sorted(of(claim), key=lambda fact: fact[0]), sorted(of(best), key=lambda fact: fact[0])
        said, known = [fact[2] for fact in mine], [fact[2] for fact in theirs]
        if said != known and len(said) == len(known) > 1 and _frame(claim.text, mine) == _frame(best.text, theirs):
            return Fault("order", "the evidence has other facts in the places of these", contradicted=True)
    said_of, known_of = _by_kind(claim), _by_kind(best)
    if any(exchanged(claim.text, found, best.text, known_of.get(kind, ())) for kind, found in said_of.items()):
        return Fault("order", "the evidence says two facts of one another's words", contradicted=True)
    return None


def _by_kind(facts: Facts) -> dict[str, list[Found]]:
    """Its numbers by unit and its dates, each in order."""
    found: dict[str, list[Found]] = {"date": [(date.start, date.text, date.parts) for date in facts.dates]}
    for number in facts.numbers:
        if number.needed:
            found.setdefault(number.unit, []).append((number.start, number.text, number.value))
    return {kind: sorted(of_kind, key=lambda fact: fact[0]) for kind, of_kind in found.items()}


def _frame(text: str, found: Sequence[Found]) -> list[str]:
    """All words but the facts, in order."""
    for start, written, _ in found:
        text = blank(text, start, start + len(written))
    return [token[0].casefold() for token in _TOKEN.finditer(text)]
