"""Measure grounded answers on questions that the knowledge base can answer, and on questions that it cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.answer import Answerer
from rag.types import GroundedAnswer
from training.datasets import TrainingError

SAMPLE = (Path("data/questions/sample_knowledge.jsonl"), Path("data/questions/as_asked.jsonl"))
"""Questions on the sample knowledge base."""
_KEYS = ("question", "answerable", "document", "answer_contains")
_APART = ("en", "zh")  # languages with enough questions for figures of their own
_HALVES = {"chosen_on": slice(0, None, 2), "reported_on": slice(1, None, 2)}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what its answer must hold.

    Attributes:
        question: as a user would put it.
        answerable: whether the knowledge base holds the answer.
        document: id of the document that holds it, or None.
        answer_contains: words of it, verbatim, or None.
        topic: documents on the topic of a question that none answers.
        language: ISO 639-1.
        origin: name of the file it is from.
    """

    question: str
    answerable: bool
    document: str | None
    answer_contains: str | None
    topic: tuple[str, ...] = ()
    language: str = "en"
    origin: str = ""

    @property
    def on_topic(self) -> tuple[str | None, ...]:
        """The documents that may be quoted as related."""
        return (self.document, *self.topic)


def read_questions(path: Path) -> list[Question]:
    """Read JSONL rows with `question`, `answerable`, `document` and `answer_contains`, maybe `topic` and `language`.

    Raises:
        TrainingError: the file is missing, a line is malformed, or there are none.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        questions = [
            Question(
                **{key: row[key] for key in _KEYS},
                topic=tuple(row.get("topic", ())),
                language=row.get("language", "en"),
                origin=path.stem,
            )
            for row in rows
        ]
    except FileNotFoundError as exc:
        raise TrainingError(f"question file {path} does not exist; give JSON lines with {', '.join(_KEYS)}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise TrainingError(f"{path}: each line must be an object with {', '.join(_KEYS)} ({exc!r})") from exc
    if not questions:
        raise TrainingError(f"{path} holds no questions; give JSON lines with {', '.join(_KEYS)}")
    return questions


Pairs = Sequence[tuple[Question, GroundedAnswer]]


def evaluate_rag(answerer: Answerer, questions: Sequence[Question]) -> dict[str, Any]:
    """Figures ready for JSON, over the odd rows, on which thresholds are chosen, and the even ones, which report.

    Of the answerable: `answered`; of those, `right_document` has the right document's sentence as the highest-scored,
    `right_answer` contains the words asked for, `cited_right` is the share of citations of the right document. Of the
    unanswerable: `answered_falsely`. What is `related` is not among the answers: `related_answerable` and
    `related_unanswerable` say how many of each get it, `related_right_document` and `related_right_answer` of the first
    what these names say, and `related_off_topic` of both how many are of a document that is neither the right one nor
    named as on the topic. `unsupported` counts citations that do not verify, and must be 0. The same stand
    `by_file` and `by_language`.
    """
    answers = [answerer.answer(question.question) for question in questions]
    pairs = list(zip(questions, answers, strict=True))
    return {
        "corpus": answerer.knowledge.manifest.corpus,
        "encoder": answerer.knowledge.manifest.encoder,
        "unsupported": sum(not answerer.knowledge.check(c) for answer in answers for c in answer.citations),
        **{name: _figures(pairs[half]) for name, half in _HALVES.items()},
        "by_file": _grouped(pairs, lambda question: question.origin),
        "by_language": _grouped(pairs, lambda each: each.language if each.language in _APART else "other"),
    }


def _grouped(pairs: Pairs, group: Callable[[Question], str]) -> dict[str, Any]:
    names = dict.fromkeys(group(question) for question, _ in pairs)
    halves = {name: _parts(pairs[half], group) for name, half in _HALVES.items()}
    return {name: {half: _figures(parts.get(name, [])) for half, parts in halves.items()} for name in names}


def _parts(pairs: Pairs, group: Callable[[Question], str]) -> dict[str, list[tuple[Question, GroundedAnswer]]]:
    parts: dict[str, list[tuple[Question, GroundedAnswer]]] = {}
    for pair in pairs:
        parts.setdefault(group(pair[0]), []).append(pair)
    return parts


def _figures(pairs: Pairs) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for question, answer in pairs:
        known = "answerable" if question.answerable else "unanswerable"
        counts[known] += 1
        if answer.abstained:
            continue
        best = max(answer.citations, key=lambda citation: citation.score)
        right = {
            "right_document": question.answerable and best.document == question.document,
            "right_answer": question.answerable and (question.answer_contains or "") in answer.answer,
        }
        if answer.related:
            counts.update({f"related_{name}": value for name, value in right.items()})
            counts.update({f"related_{known}": 1, "related_off_topic": best.document not in question.on_topic})
        elif question.answerable:
            counts.update(
                **right,
                answered=1,
                citations=len(answer.citations),
                cited_right=sum(citation.document == question.document for citation in answer.citations),
            )
        else:
            counts.update(answered_falsely=1)
    related = counts["related_answerable"] + counts["related_unanswerable"]
    return {
        "counts": {name: int(counts[name]) for name in _COUNTS},
        "answered": _share(counts["answered"], counts["answerable"]),
        "right_document": _share(counts["right_document"], counts["answered"]),
        "right_answer": _share(counts["right_answer"], counts["answered"]),
        "right_answer_of_all": _share(counts["right_answer"], counts["answerable"]),
        "cited_right": _share(counts["cited_right"], counts["citations"]),
        "answered_falsely": _share(counts["answered_falsely"], counts["unanswerable"]),
        "related_answerable": _share(counts["related_answerable"], counts["answerable"]),
        "related_right_document": _share(counts["related_right_document"], counts["related_answerable"]),
        "related_right_answer": _share(counts["related_right_answer"], counts["related_answerable"]),
        "related_unanswerable": _share(counts["related_unanswerable"], counts["unanswerable"]),
        "related_off_topic": _share(counts["related_off_topic"], related),
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
    "related_answerable",
    "related_right_document",
    "related_right_answer",
    "related_unanswerable",
    "related_off_topic",
)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
