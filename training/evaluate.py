"""Measure the tier classifier: confusion, macro-F1, risk recall, share of Safe rows flagged, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.model import OperatingPoint, TierClassifier
from classifier.types import Tier, Verdict
from training.datasets import Row, TrainingError

_LABELS = [tier.label for tier in Tier]
Counts = NDArray[np.int64]


def evaluate_classifier(
    classifier: TierClassifier, rows: Sequence[Row], *, seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """Figures on labelled rows, ready for JSON; intervals are 95 % bootstrap percentiles over the rows.

    A figure without rows to count, such as the Unsafe recall of data without Unsafe rows, is None.

    `risk_recall` is the share of rows of any tier but Safe that are not classified Safe (arXiv 2511.03138, section 4);
    `safe_flagged` the share of Safe rows that are not classified Safe; `safe_refused` those classified Unsafe.

    Raises:
        TrainingError: there are no rows.
    """
    if not rows:
        raise TrainingError("no rows to evaluate on; name a split that the data file has")
    truth = np.array([int(classifier.taxonomy.category(row.category).tier) for row in rows])
    verdicts = classify_rows(classifier, rows)
    predicted = np.array([int(verdict.tier) for verdict in verdicts])
    confusion = _confusion(truth, predicted)
    rng = np.random.default_rng(seed)
    samples = [
        _confusion(truth[index], predicted[index])
        for index in (rng.integers(0, len(rows), len(rows)) for _ in range(resamples))
    ]
    figures = {
        "macro_f1": _macro_f1,
        "accuracy": lambda c: _ratio(np.trace(c), c.sum()),
        "risk_recall": lambda c: _ratio(c[1:, 1:].sum(), c[1:].sum()),
        "safe_flagged": lambda c: _ratio(c[0, 1:].sum(), c[0].sum()),
        "safe_refused": lambda c: _ratio(c[0, 3], c[0].sum()),
        "unsafe_recall": lambda c: _ratio(c[3, 3], c[3].sum()),
    }
    result = {
        "rows": len(rows),
        "model": verdicts[0].model,
        **{name: _with_interval(figure, confusion, samples) for name, figure in figures.items()},
        "category_accuracy": float(
            np.mean([v.category == row.category for v, row in zip(verdicts, rows, strict=True)])
        ),
        "tiers": _LABELS,
        "confusion": confusion.tolist(),
        "by_tier": {label: _tier_figures(confusion, index) for index, label in enumerate(_LABELS)},
        "by_source": _by_source(truth, predicted, rows),
    }
    return {key: _without_nan(value) for key, value in result.items()}


def classify_rows(classifier: TierClassifier, rows: Sequence[Row], chunk: int = 256) -> list[Verdict]:
    """Verdicts of the rows' texts, in order."""
    texts = [row.text for row in rows]
    return [v for start in range(0, len(texts), chunk) for v in classifier.classify(texts[start : start + chunk])]


def choose_operating_point(classifier: TierClassifier, rows: Sequence[Row], max_flagged: float) -> OperatingPoint:
    """The lowest risk threshold, in steps of 0.01, that flags at most `max_flagged` of the Safe rows.

    `unsafe` stays where Unsafe outweighs everything else together; rows that it flags count too. When they alone exceed
    the budget, only they are flagged. Without Safe rows, the default.
    """
    safe = [
        verdict.tiers
        for verdict, row in zip(classify_rows(classifier, rows), rows, strict=True)
        if classifier.taxonomy.category(row.category).tier is Tier.SAFE
    ]
    if not safe:
        return OperatingPoint()
    for step in range(5, 100):
        point = OperatingPoint(risk=step / 100)
        if np.mean([point.tier(tiers) is not Tier.SAFE for tiers in safe]) <= max_flagged:
            return point
    return OperatingPoint(risk=1.0)


def _confusion(truth: Counts, predicted: Counts) -> Counts:
    """Rows: truth; columns: prediction; shape ``(4, 4)``."""
    return np.bincount(truth * len(Tier) + predicted, minlength=len(Tier) ** 2).reshape(len(Tier), len(Tier))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _tier_figures(confusion: Counts, tier: int) -> dict[str, float]:
    hit = confusion[tier, tier]
    recall, precision = _ratio(hit, confusion[tier].sum()), _ratio(hit, confusion[:, tier].sum())
    f1 = _ratio(2 * hit, confusion[tier].sum() + confusion[:, tier].sum())
    return {"rows": int(confusion[tier].sum()), "precision": precision, "recall": recall, "f1": f1}


def _macro_f1(confusion: Counts) -> float:
    return float(np.nanmean([_tier_figures(confusion, tier)["f1"] for tier in range(len(Tier))]))


def _with_interval(figure: Callable[[Counts], float], whole: Counts, samples: Sequence[Counts]) -> dict[str, float]:
    defined = [value for value in map(figure, samples) if not math.isnan(value)] or [math.nan]
    low, high = np.percentile(defined, [2.5, 97.5])
    return {"value": figure(whole), "low": float(low), "high": float(high)}


def _by_source(truth: Counts, predicted: Counts, rows: Sequence[Row]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    sources = np.array([row.source for row in rows])
    for source in sorted(set(sources.tolist())):
        confusion = _confusion(truth[sources == source], predicted[sources == source])
        result[source] = {
            "rows": int(confusion.sum()),
            "accuracy": _ratio(np.trace(confusion), confusion.sum()),
            "risk_recall": _ratio(confusion[1:, 1:].sum(), confusion[1:].sum()),
            "safe_flagged": _ratio(confusion[0, 1:].sum(), confusion[0].sum()),
        }
    return result


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same structure with None in the place of each figure that has no rows: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
