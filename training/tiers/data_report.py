"""What the training data gives away: noise, near-duplicates, and shortcuts that no model should live by."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from classifier.taxonomy import Taxonomy
from classifier.types import Tier
from training.datasets import Row, TrainingError, text_key
from training.near import bare, near

_WORDS = r"[\u3040-\u30ff\u4e00-\u9fff]|\w+"  # a Han or Kana character is a word
_SURE = 0.9
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row that a cross-validated bag of words puts into another tier, surely; to be read again."""

    row: Row
    tier: Tier
    probability: float


def suspects(rows: Sequence[Row], taxonomy: Taxonomy, *, seed: int = 0) -> list[Suspect]:
    """The rows that a bag of words, trained on the other two thirds, puts with probability ≥ 0.9 into another tier.

    Raises:
        TrainingError: too few rows of a tier to cross-validate.
    """
    truth = _tiers(rows, taxonomy)
    tiers = np.unique(truth)
    if len(tiers) < 2 or np.bincount(truth)[tiers].min() < _FOLDS:
        raise TrainingError(f"need {_FOLDS} training rows of each of at least two tiers; add rows")
    bag = _words().fit_transform([row.text for row in rows])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(_regression(), bag, truth, cv=folds, method="predict_proba")
    likeliest, sure = tiers[probabilities.argmax(1)], probabilities.max(1)
    odd = np.flatnonzero((likeliest != truth) & (sure >= _SURE)).tolist()
    return [Suspect(rows[at], Tier(int(likeliest[at])), float(sure[at])) for at in odd]


def write_suspects(path: Path, found: Sequence[Suspect]) -> None:
    """Write suspects as CSV, the surest first: hash of the text, source, category, the tier it looks like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["key", "source", "category", "looks_like", "probability"])
        for each in sorted(found, key=lambda each: -each.probability):
            row = each.row
            table.writerow([text_key(row.text), row.source, row.category, each.tier.label, round(each.probability, 4)])


def report(
    rows: Sequence[Row], test: Sequence[Row], taxonomy: Taxonomy, *, suspected: Sequence[Suspect]
) -> dict[str, Any]:
    """Counts and shortcuts of training rows, and what little of them carries over to a test.

    Args:
        rows: of training.
        test: rows that no training sees; a bag of words and the length alone must do badly on them.
        taxonomy: gives tiers.
        suspected: what `suspects` found in the rows.

    Returns:
        Counts by tier, category, source, language; `near_duplicates` inside the rows and between rows and test (cosine
        of hashed character 5-grams ≥ 0.7); macro-F1 on the test of a bag of words, of the length, and of the commonest
        tier given to all; `tier_is_that_of_the_source`: share of rows that have the commonest tier of their source,
        which a model that knows sources by their style can live by; `suspects` by source.

    Raises:
        TrainingError: no test rows, or training rows of one tier only.
    """
    truth, unseen = _tiers(rows, taxonomy), _tiers(test, taxonomy)
    if not test or len(np.unique(truth)) < 2:
        raise TrainingError("need test rows, and training rows of at least two tiers; add rows")
    words, model = _words(), _regression()
    bag, bag_test = words.fit_transform([row.text for row in rows]), words.transform([row.text for row in test])
    lengths, lengths_test = _lengths(rows), _lengths(test)
    by_source = Counter((row.source, int(tier)) for row, tier in zip(rows, truth, strict=True))
    commonest = {source: count for (source, _), count in sorted(by_source.items(), key=lambda item: item[1])}
    return {
        "rows": len(rows),
        "test_rows": len(test),
        "by_tier": dict(Counter(taxonomy.category(row.category).tier.label for row in rows)),
        "by_category": dict(Counter(row.category for row in rows).most_common()),
        "by_source": dict(Counter(row.source for row in rows).most_common()),
        "by_language": dict(Counter(row.lang for row in rows).most_common()),
        "repeated_texts": len(rows) - len({bare(row.text) for row in rows}),
        "near_duplicates": {
            "in_training": len(near([row.text for row in rows])),
            "of_test_in_training": len(near_duplicates(test, rows)),
        },
        "macro_f1_on_test": {
            "bag_of_words": _f1(unseen, model.fit(bag, truth).predict(bag_test)),
            "length_only": _f1(unseen, model.fit(lengths, truth).predict(lengths_test)),
            "one_tier_for_all": _f1(unseen, np.full(len(test), np.bincount(truth).argmax())),
        },
        "tier_is_that_of_the_source": round(sum(commonest.values()) / len(rows), 4),
        "median_characters_by_tier": {
            tier.label: float(np.median([len(row.text) for row, t in zip(rows, truth, strict=True) if t == tier]))
            for tier in Tier
            if tier in truth
        },
        "suspects": dict(Counter(each.row.source for each in suspected).most_common()),
    }


def near_duplicates(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """Keys (`training.datasets.text_key`) of the rows that nearly equal one of the others."""
    found = near([row.text for row in rows], [row.text for row in others])
    return [text_key(rows[at].text) for at in sorted(found)]


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(token_pattern=_WORDS, min_df=2, sublinear_tf=True, max_features=60_000)


def _regression() -> LogisticRegression:
    return LogisticRegression(C=4.0, max_iter=1000, tol=1e-3, class_weight="balanced")


def _tiers(rows: Sequence[Row], taxonomy: Taxonomy) -> np.ndarray:
    return np.array([int(taxonomy.category(row.category).tier) for row in rows])


def _lengths(rows: Sequence[Row]) -> np.ndarray:
    """Characters, words and lines of each text, in logarithms; shape ``(rows, 3)``."""
    return np.log1p([[len(row.text), len(row.text.split()), row.text.count("\n")] for row in rows])


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    return round(float(f1_score(truth, predicted, average="macro")), 4)
