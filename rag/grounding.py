"""The citation gate: hold every sentence of an answer against evidence, and keep what the evidence proves.

A sentence is supported if it is a quote (`rag.quotes`), or if no hard fact in it differs from the evidence
(`rag.facts`) and a support model confirms it. What is not supported goes, and with it each sentence that leans on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rag.checking import check_sentences
from rag.chunking import sentences_inside
from rag.lines import Line, lines_above
from rag.quotes import Quotable
from rag.segments import Segment, segments, underline
from rag.types import (
    DEFAULT_GATE,
    Checked,
    Citation,
    Document,
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

_BLANK_LINE = re.compile(r"\n\s*\n")


def check_answer(
    answer: str,
    passages: Sequence[str | Passage],
    *,
    support: SupportModel | None = None,
    gate: Gate = DEFAULT_GATE,
    documents: Mapping[str, Document] | None = None,
) -> GroundingReport:
    """Hold every sentence of an answer against passages.

    Args:
        answer: plain text or Markdown.
        passages: the evidence, best first.
        support: judges paraphrases; without one they are unverifiable.
        gate: thresholds and limits.
        documents: by id, those that passages come from: a line above a passage may turn what it says.

    Raises:
        InputError: the answer is empty, or it or the passages are beyond a limit of the gate.
    """
    found = segments(measured(answer, passages, gate))
    return _report(answer, passages, found, (), support, gate, _outer(passages, documents or {}))


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
        for sentence in sentences_inside(passage, documents[passage.document])
    ]
    measured(answer.answer, passages, gate)
    outer = _outer(passages, documents)
    report = _report(answer.answer, passages, _segments_of(answer), own, support, gate, outer)
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


def measured(answer: str, passages: Sequence[str | Passage], gate: Gate) -> str:
    """The answer, once it and the passages are known to be within the limits of the gate.

    Raises:
        InputError: the answer is empty, or it or the passages are beyond a limit or hold half a character.
    """
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
    gate: Gate,
    outer: Mapping[int, Sequence[Line]],
) -> GroundingReport:
    evidence = Quotable([_text(passage) for passage in passages], own, gate.passage_sentences, outer)
    sound = check_sentences(answer, found, evidence, support=support, gate=gate)
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


def _joined(answer: str, kept: Sequence[Segment]) -> str:
    """The sentences that are left, with their list markers and the lines below headings, in their paragraphs."""
    text = ""
    before: Segment | None = None
    for segment in kept:
        if before is None or segment.block != before.block:
            is_apart = before and _BLANK_LINE.search(answer, before.end, segment.marker + 1)
            gap = "" if before is None else ("\n\n" if is_apart else "\n")
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
    return replace(
        Citation.of(document, start, end, passage=passage.id, score=score),
        version=passage.version,  # the evidence's word, which `check` holds against the document
        quote=passage.text[place.start : place.end],
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
