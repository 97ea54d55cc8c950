"""Measure whether the words that are said to have decided did: without them the verdict moves, more than by chance."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from classifier.model import TierClassifier
from classifier.why import Decided
from classifier.word_weights import Weights
from training.datasets import Row, TrainingError
from training.intervals import interval, mean
from training.tiers.word_weights import Method

TOP = (1, 3)  # words
_DRAWS = 8
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Moved:
    """By how much the probability of the verdict's tier falls.

    Attributes:
        without: when the words are taken away.
        random: when as many random words are, on average.
        alone: when nothing but the words is left.
        random_alone: when nothing but as many random words is, on average.
    """

    without: float
    random: float
    alone: float
    random_alone: float


def evaluate_why(
    classifier: TierClassifier,
    rows: Sequence[Row],
    methods: Mapping[str, Method],
    *,
    compared: int,
    seed: int = 0,
) -> dict[str, Any]:
    """How faithful the weights of words are, ready for JSON.

    For each row the words with the greatest weights are deleted from the window that decided, and, as a control, as
    many random words of it, the mean over eight draws. `deletion` is by how much more the probability of the verdict's
    tier falls without the words than without random ones; `sufficiency` how much less it falls when nothing else is
    left. Both are paired, row by row, with 95 % bootstrap intervals and Wilcoxon's signed-rank test.

    Args:
        classifier: whose verdicts are explained.
        rows: texts; their labels play no part.
        methods: by name; the first is measured on all rows, and all of them are compared on some.
        compared: how many of the rows that are.
        seed: of the draws and the bootstrap.

    Raises:
        TrainingError: no row has more words than are taken away.
    """
    rng = np.random.default_rng(seed)
    moved: dict[tuple[str, int], list[tuple[str, Moved]]] = {(name, top): [] for name in methods for top in TOP}
    seconds: dict[str, float] = dict.fromkeys(methods, 0.0)
    explained: Counter[str] = Counter()
    first = next(iter(methods))
    for at, row in enumerate(rows):
        found = Decided.of(classifier, row.text)
        says = np.flatnonzero([word.says for word in found.words])
        if len(says) <= max(TOP):
            continue
        draws = {top: [rng.choice(says, top, replace=False) for _ in range(_DRAWS)] for top in TOP}
        controls = {top: _fall(found, draws[top]).mean(1) for top in TOP}
        for name in methods if at < compared else [first]:
            started = time.perf_counter()
            weights = methods[name](found)
            seconds[name] += time.perf_counter() - started
            explained[name] += 1
            for top in TOP:
                without, alone = _fall(found, [_heaviest(weights, says, top)])[:, 0]
                control = controls[top]
                one = Moved(float(without), float(control[0]), float(alone), float(control[1]))
                moved[name, top].append((row.lang, one))
    if not explained:
        raise TrainingError(f"no row has more than {max(TOP)} words; give longer texts")
    return {
        "rows": explained[first],
        "languages": dict(Counter(language for language, _ in moved[first, TOP[0]]).most_common()),
        "all": {f"top_{top}": _figures([one for _, one in moved[first, top]], seed) for top in TOP},
        "methods": {
            name: {
                "seconds_each": round(seconds[name] / explained[name], 4),
                **{
                    f"top_{top}": _figures([one for _, one in moved[name, top][: min(explained.values())]], seed)
                    for top in TOP
                },
            }
            for name in methods
            if explained[name]
        },
        "by_language": {
            language: {
                f"top_{top}": _figures([one for said, one in moved[first, top] if _group(said) == language], seed)
                for top in TOP
            }
            for language in sorted({_group(said) for said, _ in moved[first, TOP[0]]})
        },
    }


def _fall(found: Decided, choices: Sequence[Places]) -> Weights:
    """By how much the probability falls without each choice of words, and with nothing else: ``(2, choices)``."""
    inside = np.zeros((len(choices), len(found.words)), dtype=bool)
    for mask, choice in zip(inside, choices, strict=True):
        mask[choice] = True
    whole = np.ones((1, len(found.words)), dtype=bool)
    likely = found.probability(np.concatenate([whole, ~inside, inside]))
    falls: Weights = likely[0] - likely[1:].reshape(2, len(choices))
    return falls


def _heaviest(weights: Weights, says: Places, top: int) -> Places:
    order: Places = says[np.argsort(-weights[says], kind="stable")[:top]]
    return order


def _figures(moved: Sequence[Moved], seed: int) -> dict[str, Any]:
    deletion = np.array([one.without - one.random for one in moved])
    sufficiency = np.array([one.random_alone - one.alone for one in moved])
    return {
        "rows": len(moved),
        "fall": round(float(np.mean([one.without for one in moved])), 4),
        "fall_random": round(float(np.mean([one.random for one in moved])), 4),
        **{
            name: {
                **interval(mean(values), len(values), seed=seed),
                "more_than_random": round(float((values > 0).mean()), 4),
                "p": float(wilcoxon(values, alternative="greater").pvalue) if np.any(values) else 1.0,
            }
            for name, values in (("deletion", deletion), ("sufficiency", sufficiency))
        },
    }


def _group(language: str) -> str:
    return language if language in ("en", "zh") else "other"
