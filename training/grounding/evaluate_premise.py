"""Measure false premises: found in the question, contradicted by the evidence, put right with the right sentence."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.answer import Answerer
from rag.chunking import passages, sentences
from rag.documents import read_documents, version
from rag.premise import false_premises
from rag.presupposition import presuppositions
from rag.types import Document, Evidence, Gate, Premise, SupportModel
from training.datasets import TrainingError
from training.grounding.edits import EDITS, SAME, Paragraph, build_edits, overlap
from training.grounding.rows import lines
from training.intervals import interval, mean

_FRAMES = (
    "Given that {}, what should I do?",
    "How come {}?",
    "I read that {}. What follows from that?",
    "Since {}, what happens next?",
    "Why is it that {}?",
)
_OPENING = frozenset("The A An In On At For By From To It There This These Those When While After Before Most".split())


@dataclass(frozen=True, slots=True)
class PremiseRow:
    """A question with a false premise, and the same with a true one.

    Attributes:
        question: takes something for granted that the evidence contradicts.
        true_question: takes for granted what the evidence says; empty if there is none.
        corrects: parts of sentences, of which one in the citation makes it the right one.
        passage: the evidence; empty where it is the knowledge base.
        groups: names of the figures that it counts in.
        paragraph: rows of one are not independent.
    """

    question: str
    true_question: str
    corrects: tuple[str, ...]
    passage: str = ""
    groups: tuple[str, ...] = ()
    paragraph: str = ""


def read_premises(path: Path, folder: Path | None = None) -> list[PremiseRow]:
    """Authored rows: `question`, `true_question`, `corrects`, `kind`, `wording`, `language`, `passage` or `document`.

    Args:
        path: JSONL.
        folder: of documents, which then are the evidence of the rows that name one; by default the knowledge base is.

    Raises:
        TrainingError: the file is missing or a row malformed.
    """
    texts = {document.id: document.text for document in read_documents(folder).documents} if folder else {}
    try:
        return [
            PremiseRow(
                row["question"],
                row["true_question"],
                tuple(row["corrects"]),
                row.get("passage", "") or texts.get(row["document"], ""),
                (f"wording_{row['wording']}", f"kind_{row['kind']}", f"language_{row['language']}"),
            )
            for row in lines(path)
        ]
    except (KeyError, TypeError) as exc:
        raise TrainingError(
            f"{path}: each row needs question, true_question, corrects, kind, wording ({exc!r})"
        ) from exc


def built_premises(paragraphs: Sequence[Paragraph], most: int, *, seed: int) -> list[PremiseRow]:
    """Questions around claims that `edits` builds of English paragraphs, the edited ones and the others."""
    rng = random.Random(seed)
    rows = [row for row in build_edits(paragraphs, seed=seed) if row.lang == "en" and row.kind in (*EDITS, SAME)]
    pairs = [
        (said, other)
        for said, other in itertools.pairwise(rows)
        if said.kind == SAME and other.kind in EDITS and said.paragraph == other.paragraph
    ]
    found = []
    for said, other in rng.sample(pairs, min(most, len(pairs))):
        frame = rng.choice(_FRAMES)
        original = max(_sentences(other.passage), key=lambda sentence: overlap(other.claim, sentence))
        groups = (f"edit_{other.kind}",)
        question, true_question = (frame.format(_inside(row.claim)) for row in (other, said))
        if said.passage == other.passage:
            found.append(PremiseRow(question, true_question, (original,), other.passage, groups, other.paragraph))
        else:  # the passage was edited, and the true claim goes with the other one
            found.append(PremiseRow(question, "", (original,), other.passage, groups, other.paragraph))
            found.append(PremiseRow("", true_question, (), said.passage, groups, said.paragraph))
    return found


def evaluate_authored(
    answerer: Answerer | None, rows: Sequence[PremiseRow], *, support: SupportModel | None, gate: Gate, seed: int
) -> dict[str, Any]:
    """Figures over all rows and by group.

    Rows are asked of the knowledge base, those with a passage of that. Of false premises: `detected` (some statement is
    found in the question), `contradicted` (a premise is called false), `corrected` (with the right sentence, cited
    where it stands). `false_alarms`: true premises called false.
    """
    return _figures(
        [
            (row, _outcome(answerer, row, False, support, gate), _outcome(answerer, row, True, support, gate))
            for row in rows
        ],
        seed,
    )


def evaluate_apart(
    answerer: Answerer | None, path: Path, *, support: SupportModel | None, gate: Gate, seed: int
) -> dict[str, Any]:
    """A set of questions whose evidence is not in the knowledge base (`question`, `premise_ok`, `correction`).

    `detected` by label; `called_false`: by the knowledge base, which speaks of none of them; where rows have a
    correction, what it does as the evidence of its own question (`corrected`), and as that of the question with a true
    premise that is most like it (`false_alarms`).
    """
    rows = lines(path)
    truth = [bool(row["premise_ok"]) for row in rows]
    claims = [presuppositions(row["question"]) for row in rows]
    found = np.array([bool(claim) for claim in claims], dtype=float)
    notes = [(row["question"], row["correction"]) for row in rows if row.get("correction")]
    good = [row["question"] for row, ok in zip(rows, truth, strict=True) if ok]
    ok = np.array(truth)
    figures = {
        "false_premises": int((~ok).sum()),
        "true_premises": int(ok.sum()),
        "detected_of_false": _share(found[~ok], seed),
        "detected_of_true": _share(found[ok], seed),
    }
    if answerer:
        figures["called_false"] = _share([bool(answerer.answer(row["question"]).premises) for row in rows], seed)
    if notes:
        own = [bool(_of_passage(question, note, support, gate)) for question, note in notes]
        near = [max(good, key=lambda question, note=note: overlap(note, question)) for _, note in notes]  # type: ignore[misc]
        alarms = [
            bool(_of_passage(question, note, support, gate)) for question, (_, note) in zip(near, notes, strict=True)
        ]
        figures |= {"corrected": _share(own, seed), "false_alarms": _share(alarms, seed), "corrections": len(notes)}
    return figures


def called_false(answerer: Answerer, questions: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Of questions that nobody wrote for this: the share of which a premise is called false, and which those are."""
    answers = [(question, answerer.answer(question).premises) for question in questions]
    return {
        "questions": len(answers),
        "called_false": _share([bool(premises) for _, premises in answers], seed),
        "which": [
            {"question": question, "claim": premise.claim, "rule": premise.rule, "quote": premise.citation.quote}
            for question, premises in answers
            for premise in premises
        ],
    }


@dataclass(frozen=True, slots=True)
class _Outcome:
    detected: bool
    contradicted: bool
    corrected: bool


def _outcome(
    answerer: Answerer | None, row: PremiseRow, true: bool, support: SupportModel | None, gate: Gate
) -> _Outcome | None:
    question = row.true_question if true else row.question
    if not question:
        return None
    claims = bool(presuppositions(question))
    if row.passage or answerer is None:
        premises: Sequence[Premise] = _of_passage(question, row.passage, support, gate)
        first = [premise.citation for premise in premises]
    else:
        answer = answerer.answer(question)
        premises = answer.premises
        first = [
            citation
            for citation in answer.citations[: len(premises)]
            if answerer.knowledge.check(citation)
            and answer.answer[citation.answer_start : citation.answer_end] == citation.quote
        ]
    right = any(
        part in premise.citation.quote for part in row.corrects for premise in premises if premise.citation in first
    )
    return _Outcome(claims, bool(premises), right)


def _of_passage(question: str, passage: str, support: SupportModel | None, gate: Gate) -> list[Premise]:
    document = Document("passage", version("passage", {}, passage), "passage", passage, {})
    evidence = [Evidence(each, 1.0) for each in passages(document)]
    claims = presuppositions(question)
    return false_premises(claims, evidence, {document.id: document}, support=support, gate=gate)


def _figures(rows: Sequence[tuple[PremiseRow, _Outcome | None, _Outcome | None]], seed: int) -> dict[str, Any]:
    of: dict[str, list[tuple[PremiseRow, _Outcome | None, _Outcome | None]]] = defaultdict(list)
    for entry in rows:
        for group in ("all", *entry[0].groups):
            of[group].append(entry)
    return {group: _group(found, seed) for group, found in of.items()}


def _group(rows: Sequence[tuple[PremiseRow, _Outcome | None, _Outcome | None]], seed: int) -> dict[str, Any]:
    false = [(row.paragraph or row.question, outcome) for row, outcome, _ in rows if outcome]
    true = [(row.paragraph or row.true_question, outcome) for row, _, outcome in rows if outcome]
    keys, other = [key for key, _ in false], [key for key, _ in true]
    return {
        "false_premises": len(false),
        "true_premises": len(true),
        "detected": _share([outcome.detected for _, outcome in false], seed, keys),
        "contradicted": _share([outcome.contradicted for _, outcome in false], seed, keys),
        "corrected": _share([outcome.corrected for _, outcome in false], seed, keys),
        "false_alarms": _share([outcome.contradicted for _, outcome in true], seed, other),
    }


def _share(
    values: Sequence[bool] | np.ndarray[Any, Any], seed: int, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    found = np.array(values, dtype=float)
    return interval(mean(found), len(found), seed=seed, groups=groups)


def _sentences(passage: str) -> list[str]:
    return [passage[each.start : each.end] for each in sentences(passage)]


def _inside(claim: str) -> str:
    """A sentence as it stands within another."""
    first = claim.split(maxsplit=1)[0] if claim.split() else ""
    return (claim[:1].lower() + claim[1:] if first in _OPENING else claim).rstrip(" .!")
