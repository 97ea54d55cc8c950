"""How far probabilities of tiers are to be believed: calibration errors and the reliability diagram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    probability, right = tiers.max(1), tiers.argmax(1) == truth
    found = _bins(probability, equal_mass=equal_mass)
    return float(sum(len(at) * abs(right[at].mean() - probability[at].mean()) for at in found) / max(1, len(truth)))


def reliability(tiers: Tiers, truth: Places) -> list[dict[str, float]]:
    """Of each bin that has rows: how many, how sure the model is of them, and how often it is right."""
    probability, right = tiers.max(1), tiers.argmax(1) == truth
    return [
        {"rows": len(at), "probability": float(probability[at].mean()), "right": float(right[at].mean())}
        for at in _bins(probability, equal_mass=False)
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
    return {
        "rows": rows,
        "ece": interval(lambda at: calibration_error(tiers[at], truth[at]), rows, seed=seed),
        "ece_equal_mass": interval(
            lambda at: calibration_error(tiers[at], truth[at], equal_mass=True), rows, seed=seed
        ),
        "log_loss": float(-np.log(np.maximum(tiers[np.arange(rows), truth], 1e-12)).mean()),
        "bins": reliability(tiers, truth),
    }


def _bins(probability: NDArray[np.float64], *, equal_mass: bool) -> Iterator[Places]:
    """The places of the rows of each bin that has any."""
    if equal_mass:
        parts = np.array_split(np.argsort(probability, kind="stable"), _BINS)
    else:
        index = np.minimum((probability * _BINS).astype(int), _BINS - 1)
        parts = [np.flatnonzero(index == number) for number in range(_BINS)]
    return (part for part in parts if len(part))
