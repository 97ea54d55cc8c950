"""Measure the tier classifier: its two errors at its operating point and at others, by kind of text, with intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from classifier.responses import ResponseClassifier
from classifier.taxonomy import Taxonomy
from classifier.types import Exchange, Tier, Verdict
from training.datasets import Row, TrainingError
from training.intervals import area, auroc, bounds
from training.tiers.disguise import DISGUISES
from training.tiers.reliability import calibration_error, reliability

_LABELS = [tier.label for tier in Tier]
_FLAGGED_AT = (0.01, 0.02, 0.05, 0.10)
_REFUSED_AT = (0.01, 0.03, 0.05)
_LENGTHS = ((0, 40), (40, 120), (120, 400), (400, None))
Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


class Judge(Protocol):
    """What can be measured: a `classifier.model.TierClassifier`, or what answers in its place."""

    @property
    def taxonomy(self) -> Taxonomy:
        """What its verdicts mean."""
        ...

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order."""
        ...


Trained = Judge | ResponseClassifier


class Judged:
    """Rows with what a classifier made of them.

    Attributes:
        rows: as given.
        taxonomy: of the classifier.
        truth: tier of each row's category, shape ``(rows,)``.
        predicted: tier of each verdict, shape ``(rows,)``.
        tiers: probabilities of the tiers, shape ``(rows, 4)``.
        verdicts: in order.

    Raises:
        TrainingError: there are no rows.
    """

    def __init__(self, classifier: Trained, rows: Sequence[Row]) -> None:
        if not rows:
            raise TrainingError("no rows to evaluate on; name a split that the data file has")
        self.rows = list(rows)
        self.taxonomy = classifier.taxonomy
        self.verdicts = classify_rows(classifier, rows)
        self.truth = np.array([int(classifier.taxonomy.category(row.category).tier) for row in rows])
        self.predicted = np.array([int(verdict.tier) for verdict in self.verdicts])
        self.tiers = np.array([[verdict.tiers[tier] for tier in Tier] for verdict in self.verdicts])

    def figures(self, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
        """Figures ready for JSON; intervals are 95 % bootstrap percentiles over the rows.

        A figure without rows to count, such as the Unsafe recall of data without Unsafe rows, is None.

        `risk_recall` is the share of rows of any tier but Safe that are not classified Safe (arXiv 2511.03138, section
        4); `safe_flagged` the share of Safe rows that are not classified Safe; `safe_refused` those classified Unsafe.
        `risk_recall_at_flagged` and `unsafe_recall_at_refused` move the threshold to where that share of the Safe rows
        is flagged or refused. `ece` is the expected calibration error of the likeliest tier's probability, in ten bins.
        The intervals of these and of the `auroc_…` come from a fifth of the resamples.
        """
        confusion = _confusion(self.truth, self.predicted)
        rng = np.random.default_rng(seed)
        samples = [rng.integers(0, len(self.rows), len(self.rows)) for _ in range(resamples)]
        confusions = self.confusions(samples)
        result = {
            "rows": len(self.rows),
            "model": self.verdicts[0].model,
            **{
                name: _with_interval(float(figure(confusion)), figure(confusions).tolist())
                for name, figure in FIGURES.items()
            },
            **self._swept(samples[: max(1, resamples // 5)]),
            "category_accuracy": float(
                np.mean([v.category == row.category for v, row in zip(self.verdicts, self.rows, strict=True)])
            ),
            "tiers": _LABELS,
            "confusion": confusion.tolist(),
            "by_tier": {label: _tier_figures(confusion, index) for index, label in enumerate(_LABELS)},
            "by_source": self._by([row.source for row in self.rows]),
            "by_category": self._by([row.category for row in self.rows]),
            "by_language": self._by([row.lang for row in self.rows]),
            "by_length": self._by([_length(row.text) for row in self.rows]),
            "reliability": reliability(self.tiers, self.truth),
        }
        return {key: _without_nan(value) for key, value in result.items()}

    def confusions(self, samples: Sequence[Counts]) -> Counts:
        """The confusion of each sample of the rows: shape ``(samples, 4, 4)``."""
        return np.array([_confusion(self.truth[index], self.predicted[index]) for index in samples])

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The rows that were judged wrong with most certainty."""
        wrong = np.flatnonzero(self.truth != self.predicted)
        sureness = self.tiers[wrong, self.predicted[wrong]] - self.tiers[wrong, self.truth[wrong]]
        return [
            {
                "text": self.rows[at].text,
                "source": self.rows[at].source,
                "category": self.rows[at].category,
                "verdict": self.verdicts[at].category,
                "tier": _LABELS[self.truth[at]],
                "verdict_tier": _LABELS[self.predicted[at]],
                "probability": round(float(self.tiers[at, self.predicted[at]]), 3),
            }
            for at in wrong[np.argsort(-sureness)[:count]]
        ]

    def _swept(self, samples: Sequence[Counts]) -> dict[str, Any]:
        """Figures that hold at no one operating point: at budgets, and over all thresholds."""
        risk, refused = 1 - self.tiers[:, Tier.SAFE], self.tiers[:, Tier.UNSAFE]
        safe, unsafe = self.truth == Tier.SAFE, self.truth == Tier.UNSAFE
        every, extremes = np.arange(len(self.rows)), safe | unsafe

        def over(figure: Callable[[Counts], float]) -> dict[str, float]:
            return _with_interval(figure(every), [figure(index) for index in samples])

        def at(score: Shares, positive: Any, budget: float) -> dict[str, float]:  # noqa: ANN401 - mask
            return over(lambda i: recall_at(score[i][safe[i]], score[i][positive[i]], budget))

        return {
            "risk_recall_at_flagged": {str(budget): at(risk, ~safe, budget) for budget in _FLAGGED_AT},
            "unsafe_recall_at_refused": {str(budget): at(refused, unsafe, budget) for budget in _REFUSED_AT},
            "auroc_risk": over(area(~safe, risk)),
            "auroc_unsafe": over(lambda i: auroc(unsafe[i][extremes[i]], refused[i][extremes[i]])),
            "ece": over(lambda i: calibration_error(self.tiers[i], self.truth[i])),
        }

    def _by(self, groups: Sequence[str]) -> dict[str, Any]:
        names = np.array(groups)
        return {
            name: {
                "rows": int((names == name).sum()),
                **_short(_confusion(self.truth[names == name], self.predicted[names == name])),
            }
            for name in sorted(set(groups))
        }


def classify_rows(classifier: Trained, rows: Sequence[Row], chunk: int = 256) -> list[Verdict]:
    """Verdicts of the rows, in order: of their texts, or of these as answers to what the rows say was asked."""
    parts = (rows[start : start + chunk] for start in range(0, len(rows), chunk))
    if isinstance(classifier, ResponseClassifier):
        return [verdict for part in parts for verdict in classifier.classify([exchange_of(row) for row in part])]
    return [verdict for part in parts for verdict in classifier.classify([row.text for row in part])]


def exchange_of(row: Row) -> Exchange:
    """The exchange that a row's answer is part of."""
    return Exchange(row.text, row.prompt, row.system)


def recall_at(negatives: Shares, positives: Shares, budget: float) -> float:
    """Share of the positives above the lowest threshold that at most `budget` of the negatives exceed, or NaN."""
    if not len(negatives) or not len(positives):
        return math.nan
    ordered = np.sort(negatives)[::-1]
    threshold = ordered[min(int(budget * len(negatives)), len(negatives) - 1)]
    return float(np.mean(positives > threshold))


def evaluate_disguises(classifier: Judge, rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """What each disguise costs, on the rows that it changes: a disguise of Latin letters leaves Chinese as it is.

    Args:
        classifier: at its operating point.
        rows: of any tier but Safe.
        seed: of the disguises.

    Returns:
        For each disguise how many rows it `changed`, and of these the shares flagged and refused, as they are and
        disguised; `loss` is what is not flagged any more.

    Raises:
        TrainingError: there are no rows.
    """
    if not rows:
        raise TrainingError("no rows to disguise; name a split that the data file has")
    texts = [row.text for row in rows]
    plain = classifier.classify(texts)
    by_disguise: dict[str, dict[str, Any]] = {}
    for named in DISGUISES:
        disguised = [named.apply(text, random.Random(f"{seed}/{text}")) for text in texts]
        changed = [at for at, text in enumerate(texts) if disguised[at] != text]
        before = shares([plain[at] for at in changed])
        after = shares(classifier.classify([disguised[at] for at in changed]))
        by_disguise[named.name] = {
            "trained": named.trained,
            "changed": len(changed),
            "plain": before,
            **after,
            "loss": before["flagged"] - after["flagged"],
        }
    losses: dict[str, float] = {name: found["loss"] for name, found in by_disguise.items() if found["changed"]}
    worst = max(losses, key=lambda name: losses[name])
    untrained = [losses[name] for name in losses if not by_disguise[name]["trained"]]
    return {
        "rows": len(rows),
        "plain": shares(plain),
        "mean_loss": float(np.mean(list(losses.values()))),
        "mean_loss_untrained": float(np.mean(untrained)) if untrained else None,
        "worst_loss": {"disguise": worst, "loss": losses[worst]},
        "by_disguise": by_disguise,
    }


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How many of some verdicts flag and refuse; 0 of none."""
    return {
        "flagged": float(np.mean([v.tier is not Tier.SAFE for v in verdicts])) if verdicts else 0.0,
        "refused": float(np.mean([v.tier is Tier.UNSAFE for v in verdicts])) if verdicts else 0.0,
    }


def compare(first: Judged, second: Judged, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Two models on the same rows: differences of the figures, second minus first, with paired bootstrap intervals.

    `mcnemar_p` is the exact two-sided p-value for the tier being right (McNemar 1947).

    Raises:
        TrainingError: the rows are not the same, or the models' taxonomies do not give them the same tiers.
    """
    if first.rows != second.rows:
        raise TrainingError("two models are compared on the same rows only")
    refuse_other_tiers(first.rows, [(each.verdicts[0].model, each.taxonomy) for each in (first, second)])
    rng = np.random.default_rng(seed)
    samples = [rng.integers(0, len(first.rows), len(first.rows)) for _ in range(resamples)]
    ours, theirs = (judged.confusions([np.arange(len(first.rows)), *samples]) for judged in (second, first))

    right_first, right_second = first.predicted == first.truth, second.predicted == second.truth
    only_first = int((right_first & ~right_second).sum())
    only_second = int((right_second & ~right_first).sum())
    result = {
        "rows": len(first.rows),
        "models": [first.verdicts[0].model, second.verdicts[0].model],
        "differences": {
            name: _with_interval(whole, sampled)
            for name, figure in FIGURES.items()
            for whole, *sampled in [(figure(ours) - figure(theirs)).tolist()]
        },
        "right_in_first_only": only_first,
        "right_in_second_only": only_second,
        "mcnemar_p": _mcnemar(only_first, only_second),
    }
    return {key: _without_nan(value) for key, value in result.items()}


def refuse_other_tiers(rows: Sequence[Row], models: Sequence[tuple[str, Taxonomy]]) -> None:
    """Raise TrainingError where the taxonomies of two models, each with its name, put a row into different tiers."""
    (one, first), (other, second) = models
    for category in {row.category: None for row in rows}:
        if first.category(category).tier is not second.category(category).tier:
            raise TrainingError(
                f"{one} and {other} have different taxonomies, which put {category!r} into different tiers; only "
                "models of one can be compared"
            )


def _mcnemar(first: int, second: int) -> float:
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


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


def _shares(part: Counts, whole: Counts) -> Shares:
    """`_ratio` of many."""
    found: Shares = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return found


def _macro_f1(confusions: Counts) -> Shares:
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    f1 = _shares(2 * hits, confusions.sum(-1) + confusions.sum(-2))
    found: Shares = np.nanmean(f1, axis=-1)
    return found


FIGURES: Mapping[str, Callable[[Counts], Shares]] = {  # of confusions, shape ``(…, 4, 4)``
    "macro_f1": _macro_f1,
    "accuracy": lambda c: _shares(np.trace(c, axis1=-2, axis2=-1), c.sum((-2, -1))),
    "risk_recall": lambda c: _shares(c[..., 1:, 1:].sum((-2, -1)), c[..., 1:, :].sum((-2, -1))),
    "safe_flagged": lambda c: _shares(c[..., 0, 1:].sum(-1), c[..., 0, :].sum(-1)),
    "safe_refused": lambda c: _shares(c[..., 0, 3], c[..., 0, :].sum(-1)),
    "unsafe_recall": lambda c: _shares(c[..., 3, 3], c[..., 3, :].sum(-1)),
}
_SHORT = ("accuracy", "risk_recall", "safe_flagged", "safe_refused", "unsafe_recall")


def _short(confusion: Counts) -> dict[str, float]:
    return {name: float(FIGURES[name](confusion)) for name in _SHORT}


def _with_interval(value: float, samples: Sequence[float]) -> dict[str, float]:
    low, high = bounds(samples)
    return {"value": value, "low": low, "high": high}


def _length(text: str) -> str:
    low, high = next((low, high) for low, high in _LENGTHS if high is None or len(text) < high)
    return f"{low}-{high - 1} characters" if high else f"{low} characters and more"


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same structure with None in the place of each figure that has no rows: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
