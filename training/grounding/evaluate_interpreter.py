"""Measure an interpretation model on rows whose right answer is known: what it writes, and what the gate lets out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.grounding import check_answer, ground
from rag.interpret import InterpretationModel
from rag.types import Citation, GroundedAnswer, Status
from training.grounding.interpreter_kinds import Example, Kind, Quote, counts
from training.intervals import Places, interval


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one row.

    Attributes:
        example: the row.
        written: sentences that the model wrote.
        supported: those of them that the gate supports.
        proposed: whether the model proposed an answer.
        released: sentences that the gate let out.
        cited: those of them whose own mark names the passage that they stand in.
        right: sentences let out that answer.
        wrong: quotes let out that do not.
    """

    example: Example
    written: int
    supported: int
    proposed: bool
    released: int
    cited: int
    right: int
    wrong: int


def evaluate_interpreter(
    interpreter: InterpretationModel,
    examples: Sequence[Example],
    *,
    seed: int,
) -> dict[str, Any]:
    """Figures ready for JSON, with 95 % bootstrap intervals over the passages that rows are built of.

    The gate has no support model: it lets out quotes only.

    `supported` is the share of the sentences that the model wrote which the gate supports: all others are taken out.
    `cited` is the share of the sentences let out whose mark names the passage that says it.
    `answer_f1` compares the sentences let out with those that answer, over all rows but the unanswerable; `answered`
    is the share of these rows that get any. Of the unanswerable, `abstained` is the share that get none, and
    `declined` the share for which the model itself proposed none. `premises_corrected` are the rows with a false
    premise of which the sentence that corrects it is let out, `contradictions_shown` those with contradictory passages
    of which both sides are.

    Args:
        interpreter: the model.
        examples: rows that it was not trained on.
        seed: of the bootstrap.
    """
    told = [_tell(example, interpreter) for example in examples]
    answerable = [each for each in told if each.example.quotes]
    unanswerable = [each for each in told if not each.example.quotes]
    premises = [each for each in told if each.example.kind is Kind.FALSE_PREMISE]
    contradictions = [each for each in told if each.example.kind is Kind.CONTRADICTORY]

    def share(rows: Sequence[Told], part: Sequence[int], whole: Sequence[int]) -> dict[str, float | None]:
        parts, wholes = np.array(part), np.array(whole)

        def figure(at: Places) -> float:
            return float(parts[at].sum() / wholes[at].sum()) if wholes[at].sum() else math.nan

        return interval(figure, len(rows), seed=seed, groups=[row.example.group for row in rows])

    def of(rows: Sequence[Told], holds: Sequence[bool]) -> dict[str, float | None]:
        return share(rows, [int(each) for each in holds], [1] * len(rows))

    wanted = [len(row.example.quotes) for row in answerable]
    said = [row.right + row.wrong for row in answerable]
    return {
        "rows": len(told),
        "kinds": counts(examples),
        "sentences_written": sum(row.written for row in told),
        "supported": share(told, [row.supported for row in told], [row.written for row in told]),
        "cited": share(told, [row.cited for row in told], [row.released for row in told]),
        "answer_f1": share(
            answerable, [2 * row.right for row in answerable], [a + b for a, b in zip(wanted, said, strict=True)]
        ),
        "answered": of(answerable, [row.released > 0 for row in answerable]),
        "abstained": of(unanswerable, [row.released == 0 for row in unanswerable]),
        "declined": of(unanswerable, [not row.proposed for row in unanswerable]),
        "premises_corrected": of(premises, [_all_said(row) for row in premises]),
        "contradictions_shown": of(contradictions, [_all_said(row) for row in contradictions]),
    }


def _all_said(row: Told) -> bool:
    return row.right == len(row.example.quotes)


def _tell(example: Example, interpreter: InterpretationModel) -> Told:
    proposal = interpreter.answer(example.question, example.evidence, example.documents)
    written = supported = 0
    if not proposal.abstained:
        passages = [item.passage for item in example.evidence]
        report = check_answer(proposal.answer, passages, documents=example.documents)
        written = len(report.sentences)
        supported = sum(sentence.status is Status.SUPPORTED for sentence in report.sentences)
    out = ground(proposal, example.evidence, example.documents, lambda _: True)
    right = sum(any(_says(citation, quote) for citation in out.citations) for quote in example.quotes)
    wrong = sum(not any(_says(citation, quote) for quote in example.quotes) for citation in out.citations)
    released, cited = len(out.citations), _cited(proposal, out)
    return Told(example, written, supported, not proposal.abstained, released, cited, right, wrong)


def _says(citation: Citation, quote: Quote) -> bool:
    """Whether more than half of a sentence is cited."""
    if citation.document != quote.document:
        return False
    return 2 * (min(citation.end, quote.end) - max(citation.start, quote.start)) > quote.end - quote.start


def _cited(proposal: GroundedAnswer, out: GroundedAnswer) -> int:
    """The sentences let out that the model's own marks trace to the passage that they stand in."""
    marked = {
        (citation.passage, proposal.answer[citation.answer_start : citation.answer_end])
        for citation in proposal.citations
    }
    return sum(
        (citation.passage, out.answer[citation.answer_start : citation.answer_end]) in marked
        for citation in out.citations
    )
