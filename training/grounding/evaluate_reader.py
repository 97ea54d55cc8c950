"""Measure the evidence reader: the sentences it finds, and whether it knows that a passage does not answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.reader import EvidenceReader, Excerpt, Reading, weighed
from rag.types import Encoder, similarity
from training.grounding.negatives import swapped
from training.grounding.rows import EvidenceRow
from training.intervals import area, best_threshold, interval, mean

Values = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


def excerpt(row: EvidenceRow) -> Excerpt:
    """A row as the reader reads it."""
    return Excerpt(row.question, row.sentences, row.topic)


def chosen(reading: Reading, threshold: float) -> set[int]:
    """The sentences from the threshold on; without one, the best."""
    sure = {at for at, found in enumerate(reading.sentences) if found >= threshold}
    return sure or {_best(reading.sentences)}


def f1(found: Collection[int], right: Collection[int]) -> float:
    """Of the sentences found for one question."""
    return 2 * len(set(found) & set(right)) / (len(found) + len(right))


def choose_thresholds(reader: EvidenceReader, rows: Sequence[EvidenceRow], *, seed: int) -> dict[str, float]:
    """The thresholds that do best on these rows.

    `sentence` gives the best mean F1 on answerable rows whose passage has several sentences; `passage` the best
    balanced accuracy between answerable rows, and rows without an answer or with another passage.
    """
    answerable = [row for row in rows if row.answers]
    readings = reader.read([excerpt(row) for row in answerable])
    others = [row for row in rows if not row.answers] + swapped(rows, seed=seed, near=1)
    no = np.array([reading.answers for reading in reader.read([excerpt(row) for row in others])])
    yes = np.array([reading.answers for reading in readings])
    pairs = list(zip(answerable, readings, strict=True))
    counted = [(row, reading) for row, reading in pairs if len(row.sentences) > 1] or pairs

    def sentences(threshold: float) -> float:
        return float(np.mean([f1(chosen(reading, threshold), row.answers) for row, reading in counted]))

    def passages(threshold: float) -> float:
        return float((yes >= threshold).mean() + ((no < threshold).mean() if len(no) else 0.0))

    return {"passage": best_threshold(passages), "sentence": best_threshold(sentences)}


def evaluate_reader(
    reader: EvidenceReader,
    rows: Sequence[EvidenceRow],
    *,
    seed: int,
    encoder: Encoder | None = None,
    weighing: Encoder | None = None,
) -> dict[str, Any]:
    """Figures ready for JSON, with 95 % bootstrap intervals over the questions.

    `sentence_f1` is the mean over answerable rows whose passage has several sentences; `best_sentence` the share of
    them where the best one answers. `unanswerable` is the area under the ROC curve between answerable and unanswerable
    rows of the sources that have both; `passage_taken_out` that between answerable rows and the same questions with the
    most similar other passage of their source and split. The shares that are answered are those at the threshold.

    Args:
        reader: the model.
        rows: of a split that it was not trained on.
        seed: of the bootstrap.
        encoder: gives the baselines: the most similar sentence and the first one; for abstention, the similarity of
            the most similar sentence.
        weighing: weighs similarity in, as answers do with the encoder of the knowledge base; `encoder` by default.
            Without either the reader is measured alone.
    """
    asked = _judge(reader, rows, encoder, weighing or encoder)
    elsewhere = _judge(reader, swapped(rows, seed=seed, near=1), encoder, weighing or encoder)
    figures = _figures(asked, elsewhere, seed=seed)
    for key in ("source", "lang"):
        figures[f"by_{key}"] = {
            str(name): _figures(_only(asked, key, name), _only(elsewhere, key, name), seed=seed)
            for name in np.unique(asked[key])
        }
    return {"thresholds": dict(reader.settings.thresholds), **figures}


def _judge(
    reader: EvidenceReader, rows: Sequence[EvidenceRow], encoder: Encoder | None, weighing: Encoder | None
) -> Columns:
    """What the reader makes of each row and, where there is an encoder, the baselines; a column for each kind."""
    readings = reader.read([excerpt(row) for row in rows])
    similar = _similarities(encoder, rows) if encoder and rows else None
    if weighing and rows:  # as `rag.reader.ReaderInterpreter` does
        alike = similar if similar is not None and weighing is encoder else _similarities(weighing, rows)
        readings = [
            replace(reading, sentences=tuple(weighed(reading.sentences, of)))
            for reading, of in zip(readings, alike, strict=True)
        ]
    pairs = list(zip(rows, readings, strict=True))
    sure = reader.settings.threshold("sentence")
    columns: Columns = {
        "source": np.array([row.source for row in rows], dtype=object),
        "lang": np.array([row.lang for row in rows], dtype=object),
        "question": np.array([row.question for row in rows], dtype=object),
        "answerable": np.array([bool(row.answers) for row in rows], dtype=bool),
        "counted": np.array([bool(row.answers) and len(row.sentences) > 1 for row in rows], dtype=bool),
        "f1": np.array([f1(chosen(reading, sure), row.answers) for row, reading in pairs]),
        "best": np.array([float(_best(reading.sentences) in row.answers) for row, reading in pairs]),
        "answers": np.array([reading.answers for reading in readings]),
        "answered": np.array([float(reading.answers >= reader.settings.threshold("passage")) for reading in readings]),
    }
    if similar is not None:
        columns["most_similar"] = np.array(
            [f1({_best(row)}, of.answers) for row, of in zip(similar, rows, strict=True)]
        )
        columns["first"] = np.array([f1({0}, row.answers) for row in rows])
        columns["similarity"] = np.array([max(row) for row in similar])
    return columns


def _figures(asked: Columns, elsewhere: Columns, *, seed: int) -> dict[str, Any]:
    counted, yes = asked["counted"], asked["answerable"]
    both = np.isin(asked["source"], np.intersect1d(asked["source"][yes], asked["source"][~yes]))

    def over(column: Values, mask: Values, of: Columns = asked) -> dict[str, float | None]:
        return interval(mean(column[mask]), int(mask.sum()), seed=seed, groups=list(of["question"][mask]))

    def abstention(column: str) -> dict[str, Any]:
        mine, theirs = asked[column], elsewhere[column]
        truth = np.concatenate([yes[yes], np.zeros(len(theirs), dtype=bool)])
        unanswerable = area(yes[both], mine[both])
        questions = [*asked["question"][yes], *elsewhere["question"]]
        taken_out = area(truth, np.concatenate([mine[yes], theirs]))
        return {
            "unanswerable": interval(unanswerable, int(both.sum()), seed=seed, groups=list(asked["question"][both])),
            "passage_taken_out": interval(taken_out, len(truth), seed=seed, groups=questions),
        }

    result: dict[str, Any] = {
        "rows": {"all": len(yes), "answerable": int(yes.sum()), "sentences_counted": int(counted.sum())},
        "sentence_f1": over(asked["f1"], counted),
        "best_sentence": over(asked["best"], counted),
        **abstention("answers"),
        "answered": over(asked["answered"], yes),
        "answered_falsely": over(asked["answered"], ~yes),
        "answered_falsely_elsewhere": over(elsewhere["answered"], ~elsewhere["answerable"], elsewhere),
    }
    if "similarity" in asked and "similarity" in elsewhere:
        result["baselines"] = {name: over(asked[name], counted) for name in ("most_similar", "first")}
        result["margins"] = {name: over(asked["f1"] - asked[name], counted) for name in ("most_similar", "first")}
        result["baselines"]["abstention"] = abstention("similarity")
    return result


def _only(columns: Columns, key: str, name: str) -> Columns:
    mask = columns[key] == name
    return {column: values[mask] for column, values in columns.items()}


def _similarities(encoder: Encoder, rows: Sequence[EvidenceRow]) -> list[list[float]]:
    """Of each row's question to each of its sentences."""
    texts = list(dict.fromkeys(text for row in rows for text in row.sentences))
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    questions = encoder.encode_queries([row.question for row in rows])
    return [
        [similarity(float(question @ vectors[text]), encoder.floor) for text in row.sentences]
        for question, row in zip(questions, rows, strict=True)
    ]


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)
