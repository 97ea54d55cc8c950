"""Measure the citation gate: whether what is released is cited where it stands, and what gets past it of lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from rag.answer import Answerer
from rag.chunking import passages
from rag.documents import read_documents, version
from rag.grounding import ground
from rag.segments import segments
from rag.store import KnowledgeBase
from rag.types import Citation, Document, Gate, GroundedAnswer, Status, Support, SupportModel
from training.grounding.edits import Paragraph, read_paragraphs
from training.grounding.lies import HONEST, Case, Place
from training.intervals import interval

Gated = Callable[[Case], GroundedAnswer]


class Credulous:
    """A support model that believes everything: what is left is what the hard rules alone let pass."""

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[Support]:
        """Supported, each."""
        return [Support(1.0, 0.0, 0.0) for _ in pairs]


def evaluate_citations(
    answerer: Answerer, questions: Sequence[str], reopened: Callable[[], KnowledgeBase]
) -> dict[str, Any]:
    """Answers from a knowledge base, each of whose sentences is then looked up in one that was opened afresh.

    `verified`: of the released sentences, those in a citation that stands in the base at its offsets and whose words,
    if they are a quote, are those of the answer. Where two sentences are taken for one ("… may say no. Supporters …"),
    each of its words must be in such a citation.
    """
    answers = [answerer.answer(question) for question in questions]
    knowledge = reopened()
    released = verified = 0
    for answer in answers:
        good = [each for each in answer.citations if _stands(each, answer, knowledge)]
        cited = {at for each in good for at in range(each.answer_start, each.answer_end)}
        for segment in segments(answer.answer):
            released += 1
            words = [at for at in range(segment.start, segment.end) if not answer.answer[at].isspace()]
            verified += cited.issuperset(words)
    return {
        "questions": len(answers),
        "answered": sum(answer.outcome == "answered" for answer in answers),
        "related": sum(answer.related for answer in answers),
        "released": released,
        "verified": verified,
        "share": round(verified / released, 6) if released else None,
        "unverified_upper": upper(released - verified, released),
    }


def _stands(citation: Citation, answer: GroundedAnswer, knowledge: KnowledgeBase) -> bool:
    said = answer.answer[citation.answer_start : citation.answer_end]
    return knowledge.check(citation) and bool(said) and (said == citation.quote or not citation.verbatim)


def places(paths: Sequence[Path]) -> list[Place]:
    """The passages of folders of documents, and the paragraphs of rows, each a document of its own.

    Raises:
        TrainingError: a file cannot be read.
    """
    found = []
    for path in paths:
        if path.is_dir():
            for document in read_documents(path).documents:
                found += [Place.of(passage, document) for passage in passages(document)]
        else:
            for number, paragraph in enumerate(read_paragraphs([path])):
                found += _of_paragraph(f"{path.stem}/{number}", paragraph)
    return found


def _of_paragraph(name: str, paragraph: Paragraph) -> list[Place]:
    text = paragraph.passage
    document = Document(name, version(name, {}, text), name, text, {})
    return [Place.of(passage, document) for passage in passages(document)]


def evaluate_gate(cases: Sequence[Case], gated: Gated) -> dict[str, Any]:
    """The share of lies that is released, with a bound that is above it 95 times in 100, and of honest sentences kept.

    Lies on one passage stand or fall together, so the bound on all of them counts passages (`upper_of`); of a kind
    there is about one on each.

    Args:
        cases: what was proposed.
        gated: what is released of it.
    """
    made: Counter[str] = Counter()
    out: Counter[str] = Counter()
    lied: list[tuple[str, bool]] = []  # the passage of each lie, and whether it was released
    examples: dict[str, list[str]] = {}
    for case in cases:
        released = case.released(gated(case))
        made[case.kind] += 1
        out[case.kind] += released
        if case.kind not in HONEST:
            lied.append((case.group, released))
            if released:
                examples.setdefault(case.kind, []).append(case.target)
    lies = [kind for kind in made if kind not in HONEST]
    total, passed = len(lied), sum(released for _, released in lied)
    return {
        "lies": total,
        "passages": len({passage for passage, _ in lied}),
        "released": passed,
        "released_share": round(passed / total, 4) if total else None,
        "released_upper": upper_of(lied),
        "kept": {
            kind: {"sentences": made[kind], "share": round(out[kind] / made[kind], 4)} for kind in HONEST if made[kind]
        },
        "by_kind": {
            kind: {
                "lies": made[kind],
                "released": out[kind],
                "share": round(out[kind] / made[kind], 4),
                "upper": upper(out[kind], made[kind]),
            }
            for kind in sorted(lies)
        },
        "released_lies": {kind: found[:10] for kind, found in sorted(examples.items())},
    }


def through(support: SupportModel | None, gate: Gate) -> Gated:
    """The citation gate, as an answerer uses it: each citation is looked up in its document."""

    def gated(case: Case) -> GroundedAnswer:
        def check(citation: Citation) -> bool:
            document = case.documents[citation.document]
            return document.text[citation.start : citation.end] == citation.quote != ""

        return ground(case.answer, case.evidence, case.documents, check, support=support, gate=gate)

    return gated


def off(case: Case) -> GroundedAnswer:
    """No gate: the proposal, as if each sentence of it were cited."""
    text, target = case.answer.answer, case.target
    at = text.find(target)
    blank = Citation("", "", "", "", "", 0, 0, "", 0.0, Status.UNVERIFIABLE, at, at + len(target), verbatim=False)
    return replace(case.answer, citations=(blank,))


def upper_of(lied: Sequence[tuple[str, bool]]) -> float | None:
    """The bound on a share of lies of which those on one passage go together: each with its passage.

    Where none was released, that of the share of passages; else that of the bootstrap over passages, or of lies that
    are each by themselves if that is higher.
    """
    groups, released = [passage for passage, _ in lied], np.array([gone for _, gone in lied], dtype=float)
    if not released.any():
        return upper(0, len(set(groups)))
    high = interval(lambda at: float(released[at].mean()), len(lied), seed=0, groups=groups)["high"]
    return max(high or 0.0, upper(int(released.sum()), len(lied)) or 0.0)


def upper(events: int, of: int) -> float | None:
    """The share that lies above the true one 95 times in 100 (Clopper and Pearson)."""
    if not of:
        return None
    return round(float(beta.ppf(0.95, events + 1, of - events)), 5) if events < of else 1.0
