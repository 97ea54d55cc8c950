"""The safety score Σs/2n: ask a gateway the high-risk questions and sum what its answers are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markdown_it import MarkdownIt
from numpy.typing import NDArray

from guard.config import NO_JOURNAL
from guard.engine import Guard
from guard.errors import BadRequest
from guard.types import Decision, Reply, Route, Turn
from rag.types import Citation, Document
from training.safety.judge import FAILED, Answer, Cited, Judgement, Outcome, judge
from training.safety.rows import HighRiskRow

# Nothing is written down, and no row fails because a machine is slow.
UNHURRIED: Mapping[str, Any] = {**NO_JOURNAL, "classifier.deadline_s": 600.0, "knowledge.deadline_s": 600.0}
# Gateways that look at nothing: what a score has to be compared with.
CONTROLS = {
    "refuse_everything": Answer(Outcome.REFUSED),
    "forward_everything": Answer(Outcome.FORWARDED),
    "abstain_everything": Answer(Outcome.ABSTAINED),
}
_OUTCOMES = {Route.FORWARD: Outcome.FORWARDED, Route.REFUSE: Outcome.REFUSED, Route.HAND_OVER: Outcome.HANDED_OVER}
_MARKDOWN = MarkdownIt("commonmark").disable("inline")


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its answer and what that is worth.

    Attributes:
        row: the question.
        judgement: its worth.
        answer: None where the gateway failed.
        decision: the gateway's; None where it could not judge the question at all.
        failure: why the gateway failed, or None.
    """

    row: HighRiskRow
    judgement: Judgement
    answer: Answer | None = None
    decision: Decision | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form of the result file: enough to disagree with the judgement."""
        row, answer = self.row, self.answer
        verdict = self.decision.verdict if self.decision else None
        return {
            "id": row.id,
            "question": row.question,
            "language": row.language,
            "tier": row.tier.label,
            "category": row.category,
            "kind": row.kind,
            "why": row.why,
            "outcome": answer.outcome.value if answer else "failed",
            "score": self.judgement.score,
            "score_same_language": self.judgement.same_language,
            "line": self.judgement.line,
            "decided_tier": verdict.tier.label if verdict else None,
            "decided_category": verdict.category if verdict else None,
            "rule": self.decision.rule if self.decision else None,
            "documents": list(dict.fromkeys(cited.document for cited in answer.citations)) if answer else [],
            "text": answer.text if answer else "",
            "failure": self.failure,
        }


async def measure(guard: Guard, rows: Sequence[HighRiskRow], document: Callable[[str], Document]) -> list[Item]:
    """Ask each question as a conversation of its own, one after the other, and judge the answers.

    What is forwarded ends there: no model stands behind.

    Args:
        guard: the engine; with the settings `UNHURRIED`, unless deadlines are what is measured.
        rows: the questions.
        document: the knowledge base's document of an id.
    """
    return [await _ask(guard, row, document) for row in rows]


async def _ask(guard: Guard, row: HighRiskRow, document: Callable[[str], Document]) -> Item:
    try:
        decision, reply = await guard.admit([Turn("user", row.question)])
    except BadRequest as exc:
        return Item(row, FAILED, failure=str(exc))
    if decision.cause is not None:
        return Item(row, FAILED, decision=decision, failure=decision.cause)
    answer = _answer(decision, reply, document)
    return Item(row, judge(row, answer), answer, decision)


def _answer(decision: Decision, reply: Reply | None, document: Callable[[str], Document]) -> Answer:
    if reply is None:
        return Answer(Outcome.FORWARDED)
    grounded = Outcome(decision.grounded or Outcome.ABSTAINED)
    cited = tuple(_cited(citation, document(citation.document)) for citation in reply.citations)
    return Answer(_OUTCOMES.get(decision.route, grounded), _judged(reply), cited)


def _sure(answer: Answer) -> Answer:
    return Answer(Outcome.ABSTAINED) if answer.outcome is Outcome.RELATED else answer


def _judged(reply: Reply) -> str:
    """The text without what Airlock says with every answer on a category, since that answers no question."""
    text = reply.text
    for note in sorted(reply.notes, key=lambda note: -note.start):
        if note.kind not in ("comfort", "refuse"):
            text = text[: note.start] + text[note.end :]
    return text.strip()


def _cited(citation: Citation, document: Document) -> Cited:
    return Cited(
        document=document.id,
        language=str(document.metadata.get("language", "en")),
        disputed=document.disputed,
        section=level_2_heading(document.text, citation.start),
    )


def level_2_heading(text: str, start: int) -> str | None:
    """The level-2 heading that a character of a Markdown text lies under, or None."""
    line = text.replace("\r", "\n").count("\n", 0, start)
    heading = None
    for opened, content in pairwise(_MARKDOWN.parse(text.replace("\r", "\n"))):
        if opened.tag in ("h1", "h2") and opened.nesting == 1 and opened.map and opened.map[0] <= line:
            heading = content.content.strip() if opened.tag == "h2" else None
    return heading


def figures(items: Sequence[Item], *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Scores ready for JSON: over all, by tier, language and kind; and those of the `CONTROLS` on the same rows.

    Each has its number of `rows`, the `score` Σs/2n and `score_same_language` with 95 % bootstrap percentiles over
    these rows, and `counts` of 0, 1 and 2; a failed row is among the 0. Beside them stand the number of `failed` rows,
    how many rows each outcome and each line of the table has, and the scores `without_related`, with an abstention in
    place of each answer that is no sure one.
    """

    def by(of: Callable[[HighRiskRow], str]) -> dict[str, Any]:
        groups: dict[str, list[Judgement]] = {}
        for item in items:
            groups.setdefault(of(item.row), []).append(item.judgement)
        return {name: score(group, seed=seed, resamples=resamples) for name, group in groups.items()}

    lines = Counter(item.judgement.line for item in items)
    return {
        **score([item.judgement for item in items], seed=seed, resamples=resamples),
        "failed": sum(item.answer is None for item in items),
        "by_tier": by(lambda row: row.tier.label),
        "by_language": by(lambda row: row.language),
        "by_kind": by(lambda row: row.kind),
        "by_outcome": dict(Counter(item.answer.outcome.value for item in items if item.answer)),
        "without_related": score(
            [judge(item.row, _sure(item.answer)) if item.answer else item.judgement for item in items],
            seed=seed,
            resamples=resamples,
        ),
        "by_line": {str(line): lines[line] for line in sorted(line for line in lines if line)},
        "controls": {
            name: score([judge(item.row, answer) for item in items], seed=seed, resamples=resamples)
            for name, answer in CONTROLS.items()
        },
    }


def score(judgements: Sequence[Judgement], *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Both scores of at least one row, with intervals, and the counts of 0, 1 and 2."""
    counts = Counter(judgement.score for judgement in judgements)
    drawn = np.random.default_rng(seed).integers(0, len(judgements), (resamples, len(judgements)))
    return {
        "rows": len(judgements),
        "score": _share(np.array([judgement.score for judgement in judgements]), drawn),
        "score_same_language": _share(np.array([judgement.same_language for judgement in judgements]), drawn),
        "counts": {str(points): counts[points] for points in (0, 1, 2)},
    }


def _share(points: NDArray[np.int64], drawn: NDArray[np.int64]) -> dict[str, float]:
    low, high = np.percentile(points[drawn].mean(axis=1) / 2, [2.5, 97.5])
    return {"value": float(points.mean() / 2), "low": float(low), "high": float(high)}
