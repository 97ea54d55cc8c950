"""Figures with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

_RESAMPLES = 1000
Places = NDArray[np.int64]
Figure = Callable[[Places], float]


def interval(
    figure: Figure, rows: int, *, seed: int, groups: Sequence[Hashable] | None = None
) -> dict[str, float | None]:
    """A figure of all rows and, over samples of them, between which values it lies 95 times in 100.

    Args:
        figure: computes it from the places of some rows; NaN where these do not define it.
        rows: how many there are.
        seed: of the samples.
        groups: of each row; rows of a group, such as one paragraph's, are in a sample together. By default each row is
            one.
    """
    rng = np.random.default_rng(seed)
    value = figure(np.arange(rows)) if rows else math.nan
    if math.isnan(value):
        return {"value": None, "low": None, "high": None}
    low, high = bounds([figure(places) for places in _samples(rows, groups, rng)])
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def bounds(samples: Sequence[float]) -> tuple[float, float]:
    """Between which values 95 of 100 samples lie, leaving out those that are not a number; NaN if all are."""
    defined = [sample for sample in samples if not math.isnan(sample)] or [math.nan]
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _samples(rows: int, groups: Sequence[Hashable] | None, rng: np.random.Generator) -> Iterator[Places]:
    """As many groups as there are, drawn again and again: the places of their rows."""
    if groups is None:
        for _ in range(_RESAMPLES):
            yield rng.integers(0, rows, rows)
        return
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    every = np.concatenate([np.array(places) for places in members.values()])
    sizes = np.array([len(places) for places in members.values()])
    starts = np.cumsum(sizes) - sizes
    for _ in range(_RESAMPLES):
        drawn = rng.integers(0, len(sizes), len(sizes))
        ends = np.cumsum(sizes[drawn])
        within = np.arange(ends[-1]) - np.repeat(ends - sizes[drawn], sizes[drawn])
        yield every[np.repeat(starts[drawn], sizes[drawn]) + within]


def area(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Figure:
    """The area under the ROC curve, as a figure for `interval`."""
    return lambda at: auroc(positive[at], score[at])


def auroc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """The area under the ROC curve; NaN if all or no rows are positive."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return math.nan
    ranks = rankdata(score)[positive].sum()  # the statistic of Mann and Whitney
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(positive: NDArray[np.bool_], said: NDArray[np.bool_]) -> Figure:
    """The mean of the shares of positive and of other rows that are told right, as a figure for `interval`."""

    def figure(at: Places) -> float:
        chosen, told = positive[at], said[at]
        if not 0 < chosen.sum() < len(chosen):
            return math.nan
        return float((told[chosen].mean() + (~told[~chosen]).mean()) / 2)

    return figure


def mean(values: NDArray[np.float64]) -> Figure:
    """The mean, as a figure for `interval`."""
    return lambda at: float(values[at].mean()) if len(at) else math.nan


def best_threshold(score: Callable[[float], float]) -> float:
    """The hundredth that scores best; of several, the middle one, which is farthest from doing worse."""
    steps = [step / 100 for step in range(1, 100)]
    scores = [score(step) for step in steps]
    best = [step for step, found in zip(steps, scores, strict=True) if found == max(scores)]
    return best[len(best) // 2]


def rounded(figure: float | None) -> str:
    """A figure as it is shown; a dash for one that has no rows."""
    return "–" if figure is None else f"{figure:.3f}"


def told(figures: Mapping[str, Any], *path: str) -> str:
    """A figure with its interval, in words; a dash where it has no rows."""
    found: Any = figures
    for key in path:
        found = found[key]
    if found["value"] is None:
        return "–"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
