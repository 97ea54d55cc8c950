"""Cross-validation of a classifier: each row is judged by the model of those that were trained without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.model_selection import StratifiedGroupKFold

from classifier.model import TierClassifier
from classifier.settings import OperatingPoint
from classifier.taxonomy import Taxonomy
from classifier.types import Tier, Verdict
from training.datasets import Row, TrainingError
from training.near import near_groups
from training.tiers.evaluate import Judged


def parts_of(rows: Sequence[Row], folds: int, seed: int) -> dict[str, int]:
    """The part of each text, near-duplicates together, each category spread over all as well as that allows.

    Raises:
        TrainingError: there are too few rows, or fewer of each category than parts.
    """
    groups = near_groups([row.text for row in rows])
    if len(set(groups)) < folds:
        raise TrainingError(f"{len(rows)} rows, {len(set(groups))} that differ: too few for {folds} parts; add rows")
    categories = [row.category for row in rows]
    sizes = Counter(categories)
    largest, most = sizes.most_common(1)[0]
    if most < folds:
        raise TrainingError(
            f"--folds {folds}: more parts than the largest category, {largest}, has rows ({most}); give {most} or fewer"
        )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rows, categories, groups)
    return {rows[at].text: part for part, (_, held) in enumerate(split) for at in held.tolist()}


class Crossed:
    """In the place of a classifier, for the rows of training: the model of a part judges the texts of that part.

    Args:
        classifiers: one for each part, trained without its rows.
        parts: the part of each text.
    """

    def __init__(self, classifiers: Sequence[TierClassifier], parts: Mapping[str, int]) -> None:
        self._classifiers = tuple(classifiers)
        self._parts = parts
        self._known: dict[str, Verdict] = {}

    @property
    def taxonomy(self) -> Taxonomy:
        """What the verdicts mean."""
        return self._classifiers[0].taxonomy

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text of training, in order."""
        for part, classifier in enumerate(self._classifiers):
            new = [text for text in texts if self._parts[text] == part and text not in self._known]
            if new:
                self._known.update(zip(new, classifier.classify(new), strict=True))
        return [self._known[text] for text in texts]

    def at(self, points: Sequence[OperatingPoint]) -> Crossed:
        """The same at other operating points, one for each part."""
        moved = [
            TierClassifier(each.runtime, each.tokenizer, each.taxonomy, replace(each.settings, operating_point=point))
            for each, point in zip(self._classifiers, points, strict=True)
        ]
        return Crossed(moved, self._parts)


def expected_errors(judged: Judged) -> dict[str, Any]:
    """What goes wrong in how many of how many rows, with 95 % intervals (Wilson 1927), which hold for few rows too.

    `missed` are rows of any tier but Safe that pass as Safe; `false_alarms` Safe rows that do not, `refused` those that
    are taken for Unsafe; `milder` unsafe rows that are not; `wrong_tier` by tier.
    """
    truth, said = judged.truth, judged.predicted
    risky, safe, unsafe = truth != Tier.SAFE, truth == Tier.SAFE, truth == Tier.UNSAFE
    return {
        "missed": _share(said == Tier.SAFE, risky),
        "false_alarms": _share(said != Tier.SAFE, safe),
        "refused": _share(said == Tier.UNSAFE, safe),
        "milder": _share(said != Tier.UNSAFE, unsafe),
        "wrong_tier": {tier.label: _share(said != truth, truth == tier) for tier in Tier},
    }


def in_words(errors: Mapping[str, Any]) -> list[str]:
    """The errors of a classifier in plain sentences, one for each kind that has rows."""
    kinds = (
        ("missed", "that need care", "passed as Safe"),
        ("false_alarms", "that are harmless", "were taken to need care"),
        ("refused", "that are harmless", "were taken for Unsafe, and so refused"),
        ("milder", "that are unsafe", "were taken for something milder"),
    )
    return [
        f"Of {errors[kind]['of']} rows {of}, {errors[kind]['count']} {what}: {errors[kind]['value']:.1%}, and with "
        f"95 % confidence between {errors[kind]['low']:.1%} and {errors[kind]['high']:.1%}."
        for kind, of, what in kinds
        if errors[kind]["of"]
    ]


def _share(wrong: Any, among: Any) -> dict[str, float | int | None]:  # noqa: ANN401 - masks
    count, of = int(np.sum(wrong & among)), int(np.sum(among))
    if not of:
        return {"count": 0, "of": 0, "value": None, "low": None, "high": None}
    bounds = binomtest(count, of).proportion_ci(method="wilson")
    return {
        "count": count,
        "of": of,
        "value": round(count / of, 4),
        "low": round(float(bounds.low), 4),
        "high": round(float(bounds.high), 4),
    }
