"""What the evidence says of each sentence of an answer: word for word, by its facts, by a support model.

A sentence loses its support if it leans on one that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rag.alignment import Aligner, Candidate
from rag.facts.comparison import READ, Facts, Fault, claim_facts, compare, facts
from rag.judgement import judge
from rag.lines import Line, lines_above
from rag.quotes import Quotable
from rag.references import opener, pronoun
from rag.segments import Segment
from rag.spelling import normal
from rag.types import Checked, Gate, Source, Status, SupportModel

_PLACES = 50  # of a sentence that the evidence repeats, looked at
_TIED = 0.05  # difference of scores that tells no two sentences of the evidence apart
_READ_AROUND = 2000  # characters of a passage that a support model is given


def check_sentences(
    answer: str,
    found: Sequence[Segment],
    evidence: Quotable,
    *,
    support: SupportModel | None,
    gate: Gate,
) -> list[Checked]:
    """Every sentence of an answer, and what the evidence says of it.

    Args:
        answer: plain text or Markdown.
        found: its sentences, in order.
        evidence: the passages.
        support: judges paraphrases; without one they are unverifiable.
        gate: thresholds.
    """
    checked = _quotes(answer, found, evidence)
    if any(sentence is None for sentence in checked):
        checked = _paraphrases(answer, found, checked, evidence, Aligner(evidence), support, gate)
    return _leaning(answer, found, [sentence for sentence in checked if sentence], evidence)


def _quotes(answer: str, found: Sequence[Segment], evidence: Quotable) -> list[Checked | None]:
    """Each sentence that is a quote; a paragraph that is one as a whole comes first."""
    blocks: dict[int, list[Segment]] = {}
    for segment in found:
        blocks.setdefault(segment.block, []).append(segment)
    checked: list[Checked | None] = []
    before: Source | None = None
    above = _above(answer, found)
    for block in blocks.values():
        whole = evidence.find(answer[block[0].start : block[-1].end]) if len(block) > 1 else []
        for segment in block:
            places = (evidence.find(answer[segment.start : segment.end]) or whole)[:_PLACES]
            lines = [line for line in above[len(checked)] if checked[line.of]]
            fitting = [place for place in places if not _elsewhere(answer, segment, lines, place, evidence)] or places
            place = next((place for place in fitting if before and _follows(before, place, evidence)), None)
            place = place or (fitting[0] if fitting else None)
            checked.append(_quote(answer, segment, place) if place else None)
            before = place
    return checked


def _above(answer: str, found: Sequence[Segment]) -> list[list[Line]]:
    """Of each sentence of an answer, the lines above it."""
    above: dict[int, list[Line]] = {}
    for line in lines_above(answer, found):
        if line.at != line.start and line.near:
            above.setdefault(line.start, []).append(line)
    return [above.get(segment.start, []) for segment in found]


def _elsewhere(answer: str, segment: Segment, lines: Sequence[Line], place: Source, evidence: Quotable) -> str:
    """How what stands around a quote differs from what stands around its place in the evidence; empty if it does not.

    Args:
        answer: that has the quote.
        segment: the quote.
        lines: above it, those that are in the evidence.
        place: where the evidence says the same.
        evidence: the passages.
    """
    known = evidence.above(place)
    if {words for words, turns in known.items() if turns} != {line.words for line in lines if line.turns}:
        return "stands below another line in the evidence, which turns what it says"
    if not {line.words for line in lines if line.words in evidence.heads} <= known.keys():
        return "stands below another heading or question in the evidence"
    numbers = (re.sub(r"\D", "", segment.sign(answer)), evidence.number(place))
    return f"is number {numbers[1]} in the evidence" if all(numbers) and numbers[0] != numbers[1] else ""


def _quote(answer: str, segment: Segment, place: Source) -> Checked:
    reason = "stands in the evidence word for word"
    return _checked(answer, segment, Status.SUPPORTED, "quote", reason, (place,), 1.0)


def _paraphrases(
    answer: str,
    found: Sequence[Segment],
    checked: Sequence[Checked | None],
    evidence: Quotable,
    aligner: Aligner,
    support: SupportModel | None,
    gate: Gate,
) -> list[Checked | None]:
    """The sentences that are no quotes, by their facts and then by the support model."""
    result = list(checked)
    waiting: list[tuple[int, list[Candidate]]] = []
    for at, segment in enumerate(found):
        if result[at] is None:
            result[at], left = _by_facts(answer, segment, evidence, aligner, gate, is_judged=support is not None)
            if left:
                waiting.append((at, left))
    if support is not None and waiting:
        around = [_around(left, evidence) for _, left in waiting]
        claims = [
            (answer[found[at].start : found[at].end], list(dict.fromkeys(texts)))
            for (at, _), texts in zip(waiting, around, strict=True)
        ]
        judged = judge(support, claims, gate)
        for (at, left), texts, (status, score, decisive) in zip(waiting, around, judged, strict=True):
            known = sorted(zip(left, texts, strict=True), key=lambda pair: pair[1] != decisive)
            places = tuple(candidate.place for candidate, _ in known)  # what decided is cited first
            reason = f"the support model finds it {status.value}"
            result[at] = _checked(answer, found[at], status, "support-model", reason, places, score)
    return result


def _by_facts(
    answer: str, segment: Segment, evidence: Quotable, aligner: Aligner, gate: Gate, *, is_judged: bool
) -> tuple[Checked, list[Candidate]]:
    """What the hard rules say of a sentence, and the candidates that a support model, if there is one, looks at."""
    words = normal(answer[segment.start : segment.end]).text
    if len(words) > READ:
        reason = f"is longer than the {READ} characters that are compared"
        return _checked(answer, segment, Status.UNVERIFIABLE, "length", reason, (), 0.0), []
    candidates = aligner.candidates(words)
    score = candidates[0].score if candidates else 0.0
    is_unlike = not candidates or score < gate.overlap
    looked_at = candidates if is_judged or not is_unlike else []
    tied = [candidate for candidate in looked_at if candidate.score >= score - _TIED]
    faults = [_fault(words, candidate, aligner, evidence) for candidate in tied]
    left = [candidate for candidate, fault in zip(tied, faults, strict=True) if fault is None]
    if is_unlike:
        reason = "no sentence of the evidence is like it"
        return _checked(answer, segment, Status.UNSUPPORTED, "no-evidence", reason, (), score), left
    places = tuple(candidate.place for candidate in left or tied[:1])
    fault = faults[0]
    if not left and fault:
        status = Status.CONTRADICTED if fault.contradicted else Status.UNSUPPORTED
        return _checked(answer, segment, status, fault.rule, fault.reason, places, score), []
    reason = "is no quote, and there is no support model to judge a paraphrase"
    return _checked(answer, segment, Status.UNVERIFIABLE, "paraphrase", reason, places, score), left


def _fault(words: str, best: Candidate, aligner: Aligner, evidence: Quotable) -> Fault | None:
    passage, known = evidence.passage(best.place.passage), _facts_of(evidence, best.place)
    others = [_facts_of(evidence, place) for place in aligner.around(best)]
    return compare(claim_facts(words, known), known, others, passage)


def _facts_of(evidence: Quotable, place: Source) -> Facts:
    return facts(evidence.normal(place), evidence.languages[place.passage])


def _around(candidates: Sequence[Candidate], evidence: Quotable) -> list[str]:
    """The passage of each candidate, of a long one what is around the candidate."""
    found = []
    for candidate in candidates:
        passage, known = evidence.passage(candidate.place.passage), evidence.normal(candidate.place)
        start = max(0, evidence.at(candidate.place) - max(0, _READ_AROUND - len(known)) // 2)
        found.append(passage[start : start + _READ_AROUND])
    return found


def _leaning(answer: str, found: Sequence[Segment], checked: list[Checked], evidence: Quotable) -> list[Checked]:
    """The same, without support for a sentence that leans on one which is not there, or is another in the evidence."""
    above = _above(answer, found)
    result: list[Checked] = []
    for at, (segment, sentence) in enumerate(zip(found, checked, strict=True)):
        reason = ""
        if sentence.status is Status.SUPPORTED:
            reason = _misplaced(sentence, result[at - 1] if at else None, evidence)
            if sentence.rule == "quote" and not reason:
                heads = ((line, result[line.of]) for line in above[at])
                lines = [
                    line
                    for line, head in heads
                    if head.status is Status.SUPPORTED and (line.turns or head.rule == "quote")
                ]
                reason = _elsewhere(answer, segment, lines, sentence.evidence[0], evidence)
        if reason:
            sentence = replace(sentence, status=Status.UNVERIFIABLE, rule="reference", reason=reason)
        result.append(sentence)
    return result


def _misplaced(sentence: Checked, before: Checked | None, evidence: Quotable) -> str:
    word = opener(sentence.text)
    if not word or before is None:
        return ""
    if before.status is not Status.SUPPORTED:
        return f"starts with {word!r}, and the sentence before it is removed"
    if sentence.rule == "quote" and not any(
        _follows(place, sentence.evidence[0], evidence, through=pronoun(word)) for place in before.evidence
    ):
        return f"starts with {word!r}, and follows another sentence in the evidence"
    return ""


def _follows(before: Source, place: Source, evidence: Quotable, *, through: bool = False) -> bool:
    """Whether a place is that of the next sentence of the same passage.

    Args:
        before: place of the sentence before.
        place: place of the sentence.
        evidence: the passages.
        through: sentences that themselves lean on the ones before may stand between.
    """
    if before.passage != place.passage or place.start < before.end:
        return False
    between = (
        Source(place.passage, segment.start, segment.end)
        for segment in evidence.segments[place.passage]
        if before.end <= segment.start and segment.end <= place.start
    )
    return all(through and opener(evidence.normal(skipped)) for skipped in between)


def _checked(
    answer: str,
    segment: Segment,
    status: Status,
    rule: str,
    reason: str,
    evidence: tuple[Source, ...],
    score: float,
) -> Checked:
    text = answer[segment.start : segment.end]
    return Checked(segment.start, segment.end, text, status, rule, reason, evidence, score)
