"""Measure grounded answers on questions that the knowledge base can answer, and on questions that it cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.answer import Answerer
from rag.types import GroundedAnswer
from training.datasets import TrainingError

_KEYS = ("question", "answerable", "document", "answer_contains")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what its answer must hold.

    Attributes:
        question: as a user would put it.
        answerable: whether the knowledge base holds the answer.
        document: id of the document that holds it, or None.
        answer_contains: words of it, verbatim, or None.
    """

    question: str
    answerable: bool
    document: str | None
    answer_contains: str | None


def read_questions(path: Path) -> list[Question]:
    """Read JSONL rows with `question`, `answerable`, `document` and `answer_contains`.

    Raises:
        TrainingError: the file is missing, a line is malformed, or there are none.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        questions = [Question(**{key: row[key] for key in _KEYS}) for row in rows]
    except FileNotFoundError as exc:
        raise TrainingError(f"question file {path} does not exist; give JSON lines with {', '.join(_KEYS)}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise TrainingError(f"{path}: each line must be an object with {', '.join(_KEYS)} ({exc!r})") from exc
    if not questions:
        raise TrainingError(f"{path} holds no questions; give JSON lines with {', '.join(_KEYS)}")
    return questions


def evaluate_rag(answerer: Answerer, questions: Sequence[Question]) -> dict[str, Any]:
    """Figures ready for JSON, over the odd rows, on which thresholds are chosen, and the even ones, which report.

    Of the answerable: `answered`; of those, `right_document` has the right document's sentence as the highest-scored,
    `right_answer` contains the words asked for, `cited_right` is the share of citations of the right document. Of the
    unanswerable: `answered_falsely`. `unsupported` counts citations that do not verify, and must be 0.
    """
    answers = [answerer.answer(question.question) for question in questions]
    pairs = list(zip(questions, answers, strict=True))
    return {
        "corpus": answerer.knowledge.manifest.corpus,
        "encoder": answerer.knowledge.manifest.encoder,
        "unsupported": sum(not answerer.knowledge.check(c) for answer in answers for c in answer.citations),
        "chosen_on": _figures(pairs[::2]),
        "reported_on": _figures(pairs[1::2]),
    }


def _figures(pairs: Sequence[tuple[Question, GroundedAnswer]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for question, answer in pairs:
        if not question.answerable:
            counts.update(unanswerable=1, answered_falsely=not answer.abstained)
            continue
        counts.update(answerable=1, answered=not answer.abstained)
        if not answer.abstained:
            best = max(answer.citations, key=lambda citation: citation.score)
            counts.update(
                right_document=best.document == question.document,
                right_answer=(question.answer_contains or "") in answer.answer,
                citations=len(answer.citations),
                cited_right=sum(citation.document == question.document for citation in answer.citations),
            )
    return {
        "counts": {name: int(counts[name]) for name in _COUNTS},
        "answered": _share(counts["answered"], counts["answerable"]),
        "right_document": _share(counts["right_document"], counts["answered"]),
        "right_answer": _share(counts["right_answer"], counts["answered"]),
        "right_answer_of_all": _share(counts["right_answer"], counts["answerable"]),
        "cited_right": _share(counts["cited_right"], counts["citations"]),
        "answered_falsely": _share(counts["answered_falsely"], counts["unanswerable"]),
    }


_COUNTS = (
    "answerable",
    "answered",
    "right_document",
    "right_answer",
    "citations",
    "cited_right",
    "unanswerable",
    "answered_falsely",
)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
