"""Measure the support model: by source, on sources it was not trained on, and on each kind of edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.grounding import check_answer
from rag.support import SupportReader
from rag.types import Encoder, Support
from training.grounding.edits import SOURCE, overlap
from training.grounding.rows import ClaimRow, Label, is_of
from training.intervals import area, balanced_accuracy, best_threshold, interval, mean

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
_TOLD = 256  # rows: rows of like length are read together, and of fewer there are fewer alike
_TWO_WAY = ("balanced_accuracy", "auroc")
_ORDER = (Label.SUPPORTED, Label.CONTRADICTED, Label.NOT_STATED)


def judge_rows(
    reader: SupportReader, rows: Sequence[ClaimRow], told: Callable[[int], None] = lambda rows: None
) -> list[Support]:
    """What the model says of each row, some hundred at a time; how many these were is told."""
    judged: list[Support] = []
    for start in range(0, len(rows), _TOLD):
        some = rows[start : start + _TOLD]
        judged += reader.support([(row.passage, row.claim) for row in some])
        told(len(some))
    return judged


def supported(judged: Sequence[Support]) -> Values:
    """The probabilities of *supported*."""
    return np.array([each.supported for each in judged])


def threshold_of(scores: Values, rows: Sequence[ClaimRow]) -> float:
    """The score from which supported rows are told best: by the mean balanced accuracy of labelled and of built rows.

    Args:
        scores: at least 0, at most 1; higher for supported rows.
        rows: of split `dev`.
    """
    truth, built = _truth(rows), np.array([row.source == SOURCE for row in rows])
    parts = [part for part in (built, ~built) if part.any()]

    def accuracy(threshold: float) -> float:
        said = scores >= threshold
        found = [balanced_accuracy(truth[part], said[part])(np.arange(part.sum())) for part in parts]
        return float(np.nanmean(found)) if not np.isnan(found).all() else 0.0

    return best_threshold(accuracy)


def evaluate_support(
    reader: SupportReader,
    rows: Sequence[ClaimRow],
    *,
    seed: int,
    judged: Sequence[Support] | None = None,
    held_out: Sequence[str] = (),
    others: Sequence[str] = (),
    encoder: Encoder | None = None,
    dev: Sequence[ClaimRow] = (),
) -> dict[str, Any]:
    """Figures ready for JSON, with 95 % bootstrap intervals over the paragraphs or passages.

    In each group `balanced_accuracy` is that between supported and other rows, `auroc` the area under the ROC curve of
    the same; `three_way` the mean recall of the three labels, where rows have them. `by_edit` gives for each kind of
    built pair the share that is told right, `behind_the_gate` the same of the citation gate with this model, whose hard
    rules come first: a claim counts as supported if the gate would keep it.

    Args:
        reader: the model.
        rows: that it was not trained on.
        seed: of the bootstrap.
        judged: what the model says of the rows, if it was asked before.
        held_out: sources that were kept out of its training; they, and pairs built of them, are a group of their own.
        others: further sources that it was not trained on; another group, `others`, in which each source counts the
            same: `by_source` averaged over those that have rows of both labels, of which `sources` is the number.
        encoder: with `dev` it gives the baselines: the share of the claim's words that the passage has, and the
            similarity of both.
        dev: rows on which the thresholds of the baselines are chosen.
    """
    judged = judge_rows(reader, rows) if judged is None else judged
    scores = {"model": (supported(judged), reader.settings.threshold("supported"))}
    if encoder and dev:
        for name, score in (("word_overlap", _overlaps), ("similarity", _similarities(encoder))):
            scores[name] = (score(rows), threshold_of(score(dev), dev))
    apart = np.array([is_of(row, held_out) for row in rows], dtype=bool)
    built = np.array([row.source == SOURCE for row in rows], dtype=bool)
    unknown = np.array([row.source in others for row in rows], dtype=bool)
    groups = {"edits": built & ~apart, "held_out": apart, "labelled": ~built & ~apart & ~unknown}
    sources = {source: np.array([row.source == source for row in rows]) for source in sorted({r.source for r in rows})}

    def figures(mask: Mask) -> dict[str, Any]:
        some = [row for row, inside in zip(rows, mask, strict=True) if inside]
        found = {
            name: _two_way(some, values[mask], threshold, seed=seed) for name, (values, threshold) in scores.items()
        }
        return {
            "rows": len(some),
            **found.pop("model"),
            "three_way": _three_way(some, [j for j, inside in zip(judged, mask, strict=True) if inside], seed=seed),
            **({"baselines": found} if found else {}),
        }

    of_groups = {name: figures(mask) for name, mask in groups.items() if mask.any()}
    by_source = {source: figures(mask) for source, mask in sources.items()}
    said = scores["model"][0] >= scores["model"][1]
    right = said == _truth(rows)
    kinds = sorted({row.kind for row in rows if row.kind})
    return {
        "thresholds": {name: threshold for name, (_, threshold) in scores.items()},
        **{f"{name}_balanced_accuracy": group["balanced_accuracy"] for name, group in of_groups.items()},
        **of_groups,
        "held_out_sources": sorted(held_out),
        **({"others": _averaged([by_source[name] for name in sorted(by_source) if name in others])} if others else {}),
        "by_edit": {kind: _share(rows, right, kind, seed) for kind in kinds},
        **(
            {"behind_the_gate": _gated(reader, [r for r in rows if r.source == SOURCE], seed=seed)}
            if built.any()
            else {}
        ),
        "by_source": by_source,
    }


def _averaged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the sources' figures, of the model and of the baselines; a source of one label only has none."""
    some = [each for each in found if all(each[name]["value"] is not None for name in _TWO_WAY)]

    def means(figures: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        return {
            name: round(float(np.mean([each[name]["value"] for each in figures])), 4) if figures else None
            for name in _TWO_WAY
        }

    names = found[0].get("baselines", {}) if found else {}
    baselines = {name: means([each["baselines"][name] for each in some]) for name in names}
    return {"sources": len(some), **means(some), **({"baselines": baselines} if baselines else {})}


def _truth(rows: Sequence[ClaimRow]) -> Mask:
    return np.array([row.label is Label.SUPPORTED for row in rows], dtype=bool)


def _two_way(rows: Sequence[ClaimRow], values: Values, threshold: float, *, seed: int) -> dict[str, Any]:
    truth = _truth(rows)
    accuracy, ranked = balanced_accuracy(truth, values >= threshold), area(truth, values)
    return {
        "balanced_accuracy": interval(accuracy, len(rows), seed=seed, groups=_groups(rows)),
        "auroc": interval(ranked, len(rows), seed=seed, groups=_groups(rows)),
    }


def _three_way(rows: Sequence[ClaimRow], judged: Sequence[Support], *, seed: int) -> dict[str, Any]:
    """The mean recall of the labels, over rows that have one of three; of no value where a label has no rows."""
    some = [(row, found) for row, found in zip(rows, judged, strict=True) if row.label in _ORDER]
    truth = np.array([_ORDER.index(row.label) for row, _ in some])
    told = np.array([np.argmax([f.supported, f.contradicted, f.not_stated]) for _, f in some])

    def recall(at: NDArray[np.int64]) -> float:
        of = [(told[at] == label)[truth[at] == label] for label in range(len(_ORDER))]
        return float(np.mean([each.mean() for each in of])) if all(len(each) for each in of) else float("nan")

    return interval(recall, len(some), seed=seed, groups=_groups([row for row, _ in some]))


def _gated(reader: SupportReader, rows: Sequence[ClaimRow], *, seed: int) -> dict[str, Any]:
    kept = np.array([check_answer(row.claim, [row.passage], support=reader).supported for row in rows], dtype=bool)
    truth, right = _truth(rows), kept == _truth(rows)
    return {
        "rows": len(rows),
        "balanced_accuracy": interval(balanced_accuracy(truth, kept), len(rows), seed=seed, groups=_groups(rows)),
        "by_edit": {kind: _share(rows, right, kind, seed) for kind in sorted({row.kind for row in rows if row.kind})},
    }


def _share(rows: Sequence[ClaimRow], right: Mask, kind: str, seed: int) -> dict[str, Any]:
    of = [row for row in rows if row.kind == kind]
    found = right[[row.kind == kind for row in rows]].astype(float)
    return {"rows": len(found), **interval(mean(found), len(found), seed=seed, groups=_groups(of))}


def _groups(rows: Sequence[ClaimRow]) -> list[str]:
    """What rows have in common that are not independent of each other: the paragraph, or else the passage."""
    return [row.paragraph or row.passage for row in rows]


def _overlaps(rows: Sequence[ClaimRow]) -> Values:
    return np.array([overlap(row.claim, row.passage) for row in rows])


def _similarities(encoder: Encoder) -> Callable[[Sequence[ClaimRow]], Values]:
    """Scores claims by their similarity to their passages, none below 0."""

    def scores(rows: Sequence[ClaimRow]) -> Values:
        texts = list(dict.fromkeys(text for row in rows for text in (row.passage, row.claim)))
        vectors = dict(zip(texts, encoder.encode(texts), strict=True))
        return np.array([max(0.0, float(vectors[row.passage] @ vectors[row.claim])) for row in rows])

    return scores
