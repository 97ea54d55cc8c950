"""The citation gate: hold every sentence of an answer against evidence, and keep what the evidence proves.

A sentence is supported if it is a quote (`rag.quotes`), or if no hard fact in it differs from the evidence
(`rag.facts`) and a support model confirms it. What is not supported goes, and with it each sentence that leans on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rag.alignment import Aligner, Candidate
from rag.chunking import sentences
from rag.facts.comparison import READ, Facts, Fault, compare, facts
from rag.facts.language import language_of
from rag.judgement import judge
from rag.lines import Line, lines_above
from rag.quotes import Quotable
from rag.references import opener, pronoun
from rag.segments import Segment, segments, underline
from rag.spelling import normal
from rag.types import (
    DEFAULT_GATE,
    Checked,
    Citation,
    Document,
    Encoder,
    Evidence,
    Gate,
    GroundedAnswer,
    GroundingReport,
    InputError,
    Passage,
    Source,
    Status,
    SupportModel,
)

_PLACES = 50  # of a sentence that the evidence repeats, looked at
_TIED = 0.05  # difference of scores that tells no two sentences of the evidence apart
_READ_AROUND = 2000  # characters of a passage that a support model is given


def check_answer(
    answer: str,
    passages: Sequence[str | Passage],
    *,
    support: SupportModel | None = None,
    encoder: Encoder | None = None,
    gate: Gate = DEFAULT_GATE,
    documents: Mapping[str, Document] | None = None,
) -> GroundingReport:
    """Hold every sentence of an answer against passages.

    Args:
        answer: plain text or Markdown.
        passages: the evidence, best first.
        support: judges paraphrases; without one they are unverifiable.
        encoder: finds evidence for paraphrases that share few words with it.
        gate: thresholds and limits.
        documents: by id, those that passages come from: a line above a passage may turn what it says.

    Raises:
        InputError: the answer is empty, or it or the passages are beyond a limit of the gate.
    """
    found = segments(_measured(answer, passages, gate))
    return _report(answer, passages, found, (), support, encoder, gate, _outer(passages, documents or {}))


def compose(citations: Iterable[Citation], searched: Iterable[Evidence]) -> GroundedAnswer:
    """An answer of the citations' quotes, in paragraphs by document; an abstention if there are none.

    The citations come back with the places of their quotes in the answer.
    """
    return _compose(((citation.quote, citation) for citation in citations), searched)


def ground(
    answer: GroundedAnswer,
    evidence: Sequence[Evidence],
    documents: Mapping[str, Document],
    check: Callable[[Citation], bool],
    *,
    support: SupportModel | None = None,
    gate: Gate = DEFAULT_GATE,
) -> GroundedAnswer:
    """The part of an answer that the evidence proves, each sentence cited; every other word goes.

    Args:
        answer: an interpretation model's, taken at its word for nothing; its citations only say where its quotes end.
        evidence: what it was to answer from.
        documents: by id; all that the evidence comes from, and maybe more.
        check: whether a quote stands where its citation says; see `KnowledgeBase.check`.
        support: judges paraphrases; without one only quotes are left.
        gate: thresholds and limits.

    Raises:
        InputError: the answer or the evidence is beyond a limit of the gate.
    """
    if not answer.answer.strip():
        return compose((), answer.searched)
    passages = [item.passage for item in evidence]
    own = [
        Source(number, sentence.start - passage.start, sentence.end - passage.start)
        for number, passage in enumerate(passages)
        if passage.document in documents
        for sentence in sentences(documents[passage.document].text)
        if passage.start <= sentence.start and sentence.end <= passage.end
    ]
    _measured(answer.answer, passages, gate)
    outer = _outer(passages, documents)
    report = _report(answer.answer, passages, _segments_of(answer), own, support, None, gate, outer)
    proposed = {(citation.document, citation.start, citation.end): citation for citation in answer.citations}
    said: list[tuple[str, Citation]] = []
    whole = 0
    for checked in report.sentences:
        whole += len(checked.text)
        if checked.status is Status.SUPPORTED:
            citation = _citation(checked, evidence, documents, proposed)
            if citation and check(citation):
                said.append((citation.quote if citation.verbatim else checked.text, citation))
    if report.abstained or sum(len(text) for text, _ in said) < gate.kept * whole:
        said = []
    return _compose(said, answer.searched)


def cite(
    report: GroundingReport,
    evidence: Sequence[Evidence],
    documents: Mapping[str, Document],
    check: Callable[[Citation], bool],
) -> GroundingReport:
    """The report with a citation of each supported sentence.

    Args:
        report: on the passages of the evidence, in order.
        evidence: what the answer was held against.
        documents: by id; all that the evidence comes from.
        check: whether a quote stands where its citation says; one that does not is left out.
    """
    supported = (checked for checked in report.sentences if checked.status is Status.SUPPORTED)
    made = (_citation(checked, evidence, documents, {}) for checked in supported)
    return replace(report, citations=tuple(citation for citation in made if citation and check(citation)))


def _measured(answer: str, passages: Sequence[str | Passage], gate: Gate) -> str:
    if not answer.strip():
        raise InputError("there is no text; give the answer to check", "answer")
    if len(answer) > gate.answer_characters:
        raise InputError(f"{len(answer)} characters, at most {gate.answer_characters} are checked; split it", "answer")
    for param, texts in (("answer", [answer]), ("passages", map(_text, passages))):
        if any(re.search("[\ud800-\udfff]", text) for text in texts):
            raise InputError("half a character (a lone surrogate); send whole ones", param)
    length = sum(len(_text(passage)) for passage in passages)
    if length > gate.passage_characters:
        raise InputError(f"{length} characters, at most {gate.passage_characters} are read; give fewer", "passages")
    return answer


def _report(
    answer: str,
    passages: Sequence[str | Passage],
    found: Sequence[Segment],
    own: Sequence[Source],
    support: SupportModel | None,
    encoder: Encoder | None,
    gate: Gate,
    outer: Mapping[int, Sequence[Line]],
) -> GroundingReport:
    evidence = Quotable([_text(passage) for passage in passages], own, gate.passage_sentences, outer)
    checked = _quotes(answer, found, evidence)
    if any(sentence is None for sentence in checked):
        checked = _paraphrases(answer, found, checked, evidence, Aligner(evidence, encoder), support, gate)
    sound = _leaning(answer, found, [sentence for sentence in checked if sentence], evidence)
    kept = [segment for segment, sentence in zip(found, sound, strict=True) if sentence.status is Status.SUPPORTED]
    share = sum(segment.end - segment.start for segment in kept) / max(1, sum(s.end - s.start for s in found))
    abstained = not kept or share < gate.kept
    return GroundingReport(
        answer=answer,
        passages=tuple(
            passage if isinstance(passage, Passage) else Passage(str(number), "", "", 0, len(passage), passage)
            for number, passage in enumerate(passages)
        ),
        sentences=tuple(sound),
        kept="" if abstained else _joined(answer, kept),
        abstained=abstained,
    )


def _outer(passages: Sequence[str | Passage], documents: Mapping[str, Document]) -> dict[int, list[Line]]:
    """By number of the passage, the lines of its document that stand above it and over its sentences."""
    sources = [passage.document if isinstance(passage, Passage) else "" for passage in passages]
    texts = {source: documents[source].text for source in sources if source in documents}
    above = {source: list(lines_above(text, segments(text))) for source, text in texts.items()}
    return {
        number: [
            line.moved(-passage.start)
            for line in above[passage.document]
            if line.at < passage.start < line.end and line.start < passage.end
        ]
        for number, passage in enumerate(passages)
        if isinstance(passage, Passage) and passage.document in above
    }


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
            result[at], left = _by_facts(answer, segment, evidence, aligner, gate)
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
    answer: str, segment: Segment, evidence: Quotable, aligner: Aligner, gate: Gate
) -> tuple[Checked, list[Candidate]]:
    """What the hard rules say of a sentence, and the candidates that a support model is to look at."""
    words = normal(answer[segment.start : segment.end]).text
    if len(words) > READ:
        reason = f"is longer than the {READ} characters that are compared"
        return _checked(answer, segment, Status.UNVERIFIABLE, "length", reason, (), 0.0), []
    candidates = aligner.candidates(words)
    score = candidates[0].score if candidates else 0.0
    if not candidates or (score < gate.overlap and not aligner.similar):
        reason = "no sentence of the evidence is like it"
        return _checked(answer, segment, Status.UNSUPPORTED, "no-evidence", reason, (), score), []
    tied = [candidate for candidate in candidates if candidate.score >= score - _TIED]
    faults = [_fault(words, candidate, aligner, evidence) for candidate in tied]
    left = [candidate for candidate, fault in zip(tied, faults, strict=True) if fault is None]
    places = tuple(candidate.place for candidate in left or tied[:1])
    fault = faults[0]
    if not left and fault:
        status = Status.CONTRADICTED if fault.contradicted else Status.UNSUPPORTED
        return _checked(answer, segment, status, fault.rule, fault.reason, places, score), []
    reason = "is no quote, and there is no support model to judge a paraphrase"
    return _checked(answer, segment, Status.UNVERIFIABLE, "paraphrase", reason, places, score), left


def _fault(words: str, best: Candidate, aligner: Aligner, evidence: Quotable) -> Fault | None:
    passage, known = evidence.passage(best.place.passage), _facts_of(evidence, best.place)
    claim = facts(words, known.language)
    if not claim.alike(known):
        claim = facts(words, language_of(words, default=known.language))
    return compare(claim, known, [_facts_of(evidence, place) for place in aligner.around(best)], passage)


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


def _joined(answer: str, kept: Sequence[Segment]) -> str:
    """The sentences that are left, with their list markers and the lines below headings, in their paragraphs."""
    text = ""
    before: Segment | None = None
    for segment in kept:
        if before is None or segment.block != before.block:
            gap = "" if before is None else ("\n\n" if "\n\n" in answer[before.end : segment.marker + 1] else "\n")
            first = answer[segment.marker : segment.start]
            marker = first if not any(character.isalnum() for character in first.strip("0123456789")) else ""
            text += gap + marker
        else:
            text += " " if any(map(str.isspace, answer[before.end : segment.start])) else ""
        text += answer[segment.start : segment.end]
        if not segment.sign(answer) and segment.heading(answer):
            text += answer[segment.end : underline(answer, segment.end)]
        before = segment
    return text


def _segments_of(answer: GroundedAnswer) -> list[Segment]:
    """The sentences of an answer; a span that it cites with its own words is one, whatever is in it."""
    found: list[Segment] = []
    position = 0
    for citation in sorted(answer.citations, key=lambda citation: citation.answer_start):
        start, end = citation.answer_start, citation.answer_end
        if position <= start < end and answer.answer[start:end] == citation.quote:
            found += _shifted(answer.answer[position:start], position, len(found))
            found.append(Segment(start, end, len(found), start, start))
            position = end
    return found + _shifted(answer.answer[position:], position, len(found))


def _shifted(text: str, offset: int, block: int) -> list[Segment]:
    return [
        Segment(each.start + offset, each.end + offset, each.block + block, each.marker + offset, each.words + offset)
        for each in segments(text)
    ]


def _citation(
    checked: Checked,
    evidence: Sequence[Evidence],
    documents: Mapping[str, Document],
    proposed: Mapping[tuple[str, int, int], Citation],
) -> Citation | None:
    place = checked.evidence[0]
    item = evidence[place.passage]
    passage = item.passage
    document = documents.get(passage.document)
    if document is None:
        return None
    start, end = passage.start + place.start, passage.start + place.end
    score = proposed[key].score if (key := (document.id, start, end)) in proposed else item.score
    return Citation(
        passage=passage.id,
        document=document.id,
        version=passage.version,
        title=document.title,
        url=document.url,
        start=start,
        end=end,
        quote=passage.text[place.start : place.end],
        score=score,
        status=Status.SUPPORTED,
        answer_start=checked.start,
        answer_end=checked.end,
        verbatim=checked.rule == "quote",
    )


def _compose(said: Iterable[tuple[str, Citation]], searched: Iterable[Evidence]) -> GroundedAnswer:
    text = ""
    placed: list[Citation] = []
    for words, citation in said:
        if placed:
            text += " " if placed[-1].document == citation.document else "\n\n"
        start, text = len(text), text + words
        placed.append(replace(citation, answer_start=start, answer_end=len(text)))
    return GroundedAnswer(answer=text, abstained=not placed, citations=tuple(placed), searched=tuple(searched))


def _text(passage: str | Passage) -> str:
    return passage if isinstance(passage, str) else passage.text
