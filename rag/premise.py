"""False premises: what a question takes for granted is held against the evidence, and put right where that says so.

A premise counts as false only if a sentence of the evidence contradicts it, by a hard rule of the citation gate
(`rag.facts`) or by the support model, and none states it. That nothing speaks of it is no contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rag.chunking import sentences_inside
from rag.facts.comparison import Facts, Fault, claim_facts, compare, facts
from rag.facts.language import language_of
from rag.facts.numbers import ranges
from rag.facts.polarity import denied, reported
from rag.facts.types import Number
from rag.facts.words import coverage, words
from rag.judgement import judge
from rag.spelling import normal
from rag.types import Citation, Document, Evidence, Gate, GroundedAnswer, Premise, Status, SupportModel

# A difference in one of these contradicts what is taken for granted. Others, such as "may" for "must" or "some" for
# "most", take support from a paraphrase and yet do not make a premise false.
_RULES = frozenset({"number", "date", "time", "weekday", "rate", "negation", "opposite", "order"})
_LOOKED_AT = 5  # sentences for each claim
_ABOUT = 0.7  # share of a claim's words that a sentence must have for a rule to find it contradicted
_CLAUSE = re.compile(r"[;:,.](?!\d)|\b(?:and|but|because|while|although|which|so|when|if)\b|[，；。：]", re.IGNORECASE)
_HELPS = r"(?:is|are|was|were|has|have|had|does|do|did|can|could|should|must|will|would|may|might)\b"
_BOUND_NOT = re.compile(
    rf"\b(?:when|whose|who|which|that|if|unless|until|before|where|after)\b(?:(?!\b{_HELPS})[^,;]){{0,60}}?\b"
    rf"(?:{_HELPS} ?)?(?:not|no|never|without|cannot)\b",
    re.IGNORECASE,
)
_CALENDAR = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b", re.IGNORECASE
)
_LIMIT = re.compile(  # before a number
    r"\b(?:(?P<least>over|more than|above|at least|no less than|exceeds?)|(?P<most>under|less than|below|at most|up to"
    r"|no more than)|(?P<about>about|around|roughly|nearly|almost|approximately))\s+[£$€]?$",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|never)(?P<what>(?: (?:for|in|to|by|with|on|of|at|the|an?|\w+)){1,4})")
_APART = re.compile(r"\b(?:before|after|prior to|(?:earlier|later) than)\s+$", re.IGNORECASE)  # a date
_Strength = tuple[float, int, float]  # of what a sentence says: words shared, numbers shared, how little else it says
_NEAR = 0.34  # the same for a sentence that a support model is asked about


@dataclass(frozen=True, slots=True)
class _Place:
    """A sentence of the evidence that is about what a claim says."""

    citation: Citation
    said: Facts
    passage: str
    share: float


def false_premises(
    claims: Sequence[str],
    evidence: Sequence[Evidence],
    documents: Mapping[str, Document],
    *,
    support: SupportModel | None,
    gate: Gate,
) -> list[Premise]:
    """The claims that a sentence of the evidence contradicts, each with the plainest such sentence.

    What a disputed document says is one side's position, and contradicts nothing.

    Args:
        claims: of a question; see `rag.presupposition`.
        evidence: passages.
        documents: by id, those that the evidence comes from.
        support: finds contradictions that no rule does; None leaves the rules.
        gate: a support model must be as sure of a contradiction as it must be of support.
    """
    places = list(_places(evidence, documents))
    found: list[Premise] = []
    for claim in claims:
        near = _about(claim, places)
        premise = _by_rules(claim, near)
        premise = premise if support is None else _by_model(claim, near, premise, support, gate)
        if premise and premise.citation not in [other.citation for other in found]:
            found.append(premise)
    return found


def put_right(
    answer: GroundedAnswer, premises: Sequence[Premise], gated: Callable[[GroundedAnswer], GroundedAnswer]
) -> GroundedAnswer:
    """The answer, led by the sentences that contradict what the question takes for granted.

    Args:
        answer: as it has passed the citation gate.
        premises: as `false_premises` found them.
        gated: the citation gate; a correction that it does not let pass is none.
    """
    if not premises:
        return answer
    named = {premise.citation.quote: premise for premise in premises}
    lead = [premise.citation for premise in named.values()]
    rest = [citation for citation in answer.citations if citation.quote not in named]
    said = [(citation.quote, citation) for citation in lead]
    said += [(answer.answer[citation.answer_start : citation.answer_end], citation) for citation in rest]
    text, placed = "", []
    for piece, citation in said:
        start = len(text) + 2 if text else 0
        text = f"{text}\n\n{piece}" if text else piece
        placed.append(replace(citation, answer_start=start, answer_end=len(text)))
    result = gated(GroundedAnswer(text, False, tuple(placed), answer.searched))
    kept = []
    for citation in result.citations:  # the corrections come first; the gate may find one elsewhere, in the same words
        premise = named.pop(citation.quote, None)
        if premise is None:
            break
        kept.append(replace(premise, citation=citation))
    return replace(result, premises=tuple(kept)) if kept else answer


def _places(evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> Iterator[_Place]:
    """The sentences that can be quoted, without those of disputed documents and questions."""
    known: set[tuple[str, int]] = set()
    for item in evidence:
        passage, document = item.passage, documents[item.passage.document]
        whole = normal(passage.text).text
        language = language_of(whole)
        for each in () if document.disputed else sentences_inside(passage, document):
            if (document.id, each.start) in known:
                continue
            known.add((document.id, each.start))
            citation = Citation.of(document, each.start, each.end, passage=passage.id, score=item.score)
            if not citation.quote.rstrip(" *_\"'”’").endswith(("?", "？")):
                yield _Place(citation, facts(normal(citation.quote).text, language), whole, 0)


def _about(claim: str, places: Sequence[_Place]) -> list[_Place]:
    """The sentences that share most with a claim, best first."""
    text = normal(claim).text
    found = []
    for place in places:
        share = coverage(_said(text), words(place.said.text))
        if share >= _NEAR:
            found.append((share, _agreed(claim_facts(text, place.said), place), replace(place, share=share)))
    return [place for *_, place in sorted(found, key=lambda entry: entry[:2], reverse=True)[:_LOOKED_AT]]


def _by_rules(claim: str, near: Sequence[_Place]) -> Premise | None:
    """The claim as a false premise, if a rule finds it contradicted and no sentence states it."""
    text = normal(claim).text
    found: list[tuple[_Strength, Premise]] = []
    stated: _Strength = (0.0, 0, 0.0)
    for place in near:
        own = claim_facts(text, place.said)
        denial = denied(place.said.text)
        if reported(text) if denial else reported(place.said.text) and not reported(text):
            continue  # what somebody says neither states nor contradicts anything
        fault = compare(own, place.said, (), place.passage)
        within, tight = _clause(text, place)
        if fault is None:
            share = place.share if own.numbers or own.dates else within
            stated = max(stated, (share, _agreed(own, place), tight))
        elif fault.contradicted and fault.rule in _RULES and place.share >= _ABOUT and _meant(fault, own, place):
            found.append(((place.share, _agreed(own, place), tight), Premise(claim, fault.rule, place.citation)))
    best = max(found, key=lambda entry: entry[0], default=None)
    return best[1] if best and best[0] > stated else None


def _agreed(own: Facts, place: _Place) -> int:
    """How many numbers of a claim a sentence has."""
    return sum(any(one.says(other) for other in place.said.numbers) for one in own.numbers)


def _clause(text: str, place: _Place) -> tuple[float, float]:
    """Of the clause most like a claim: the share of the claim's words it has, and of its words the claim has."""
    mine = _said(text)
    clauses = [words(clause) for clause in _CLAUSE.split(place.said.text)]
    return max((coverage(mine, clause), coverage(clause, mine)) for clause in clauses)


def _meant(fault: Fault, own: Facts, place: _Place) -> bool:
    """Whether a fault that a rule finds is a contradiction.

    A "not" in a clause such as "whose deposit was not protected" denies nothing. And the passage has the claim's names,
    or it is about another country, say. "Over 30 pounds" and "before 2000" hold for 35 pounds and for 1998.
    """
    if fault.rule == "negation" and _BOUND_NOT.search(place.said.text) and not denied(place.said.text):
        return False
    if fault.rule == "negation" and _denied_of(own.text, place.said.text):
        return False
    if fault.rule == "number" and any(_holds(own.text, number, place.said) for number in own.numbers):
        return False
    if fault.rule == "date" and any(_APART.search(own.text[: date.start]) for date in own.dates):
        return False
    known = place.passage.casefold()
    return all(
        name.text.casefold().removesuffix("'s") in known
        for name in own.names
        if (name.sure or own.language == "en") and not _CALENDAR.fullmatch(name.text)
    )


def _denied_of(text: str, said: str) -> bool:
    """Whether both deny: "not safe for children", where the evidence has "safe for adults, and not for children"."""
    mine = words(text)
    denials = [
        denial for denial in _NOT.finditer(said) if denial["what"] and coverage(words(denial["what"]), mine) == 1
    ]
    return bool(_NOT.search(text)) and any(words(denial["what"]) for denial in denials)


def _holds(text: str, number: Number, said: Facts) -> bool:
    """Whether a number holds by what the evidence says: "over 30" of 35, 8 of "7 to 9" and of "at least 7"."""
    for low, high in ranges(said.text, said.numbers):
        if low.unit == number.unit and low.value <= number.value <= high.value:
            return True
    known = [other for other in said.numbers if number.against(other)]
    for other in known:
        bound = _LIMIT.search(said.text[: other.start]) if other.unit == number.unit else None
        if bound and (
            (bound["least"] and number.value >= other.value) or (bound["most"] and number.value <= other.value)
        ):
            return True
    limit = _LIMIT.search(text[: number.start])
    if limit is None:
        return False
    values = [other.value for other in known]
    if limit["least"]:
        return any(value >= number.value for value in values)
    if limit["most"]:
        return any(value <= number.value for value in values)
    return bool(values) and all(abs(value - number.value) * 20 <= number.value for value in values)


def _said(text: str) -> list[str]:
    """The words that tell what a claim is about: those of dates are facts."""
    return words(_CALENDAR.sub(" ", text))


def _by_model(
    claim: str, near: Sequence[_Place], premise: Premise | None, support: SupportModel, gate: Gate
) -> Premise | None:
    """What the rules found, unless the model sees the claim stated; else what the model finds contradicted."""
    passages = list(dict.fromkeys(place.passage for place in near))
    asked = [place.said.text for place in near] + passages
    judged = judge(support, [(claim, [text]) for text in asked], gate)
    if any(status is Status.SUPPORTED for status, _, _ in judged):
        return None
    if premise:
        return premise
    sure = [
        (score, -number)
        for number, (status, score, _) in enumerate(judged[: len(near)])
        if status is Status.CONTRADICTED and score >= gate.supported
    ]
    return Premise(claim, "support-model", near[-max(sure)[1]].citation) if sure else None
