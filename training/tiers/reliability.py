"""How far probabilities of tiers are to be believed: calibration errors and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.intervals import interval
from training.tiers.conformal import ALL

_BINS = 10
_FEWEST = 100  # rows of a language that its figure needs; a calibration error of fewer is mostly noise
Places = NDArray[np.int64]
Tiers = NDArray[np.float64]


def calibration_error(tiers: Tiers, truth: Places, *, equal_mass: bool = False) -> float:
    """Expected calibration error of the likeliest tier's probability, in ten bins (Naeini et al. 2015).

    Args:
        tiers: probabilities, shape ``(rows, tiers)``.
        truth: tier of each row, shape ``(rows,)``.
        equal_mass: bins of as many rows each, rather than of tenths of the probability.
    """
    probability, right = _likeliest(tiers, truth)
    return _error(probability, right - probability, equal_mass=equal_mass)


def reliability(tiers: Tiers, truth: Places) -> list[dict[str, float]]:
    """Of each bin that has rows: how many, how sure the model is of them, and how often it is right."""
    probability, right = _likeliest(tiers, truth)
    parts = [np.flatnonzero(_tenth(probability) == number) for number in range(_BINS)]
    return [
        {"rows": len(at), "probability": float(probability[at].mean()), "right": float(right[at].mean())}
        for at in parts
        if len(at)
    ]


def calibration_figures(tiers: Tiers, truth: Places, languages: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Calibration errors with bootstrap intervals, log loss and bins; of all rows and of each language with enough.

    Rows whose language is said to be `all` count among all rows only.
    """
    names = np.array(languages)
    counts = {name: int((names == name).sum()) for name in sorted(set(languages) - {ALL})}
    groups = {ALL: np.ones(len(truth), bool)}
    groups |= {name: names == name for name, rows in counts.items() if rows >= _FEWEST}
    return {name: _figures(tiers[mask], truth[mask], seed) for name, mask in groups.items()}


def _figures(tiers: Tiers, truth: Places, seed: int) -> dict[str, Any]:
    rows = len(truth)
    probability, right = _likeliest(tiers, truth)
    gap = right - probability
    return {
        "rows": rows,
        "ece": interval(lambda at: _error(probability[at], gap[at], equal_mass=False), rows, seed=seed),
        "ece_equal_mass": interval(lambda at: _error(probability[at], gap[at], equal_mass=True), rows, seed=seed),
        "log_loss": float(-np.log(np.maximum(tiers[np.arange(rows), truth], 1e-12)).mean()),
        "bins": reliability(tiers, truth),
    }


def _likeliest(tiers: Tiers, truth: Places) -> tuple[Tiers, Tiers]:
    """Of each row the probability of its likeliest tier, and 1 where that is right."""
    return tiers.max(1), (tiers.argmax(1) == truth).astype(float)


def _error(probability: Tiers, gap: Tiers, *, equal_mass: bool) -> float:
    """The calibration error, of probabilities and how far below what came true each is; called thousands of times."""
    rows = len(gap)
    if not rows:
        return 0.0
    if equal_mass:
        sizes = rows // _BINS + (np.arange(min(rows, _BINS)) < rows % _BINS)
        sums = np.add.reduceat(gap[np.argsort(probability, kind="stable")], np.cumsum(sizes) - sizes)
    else:
        sums = np.bincount(_tenth(probability), gap)
    return float(np.abs(sums).sum() / rows)


def _tenth(probability: Tiers) -> Places:
    """Of each probability the bin."""
    found: Places = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    return found
