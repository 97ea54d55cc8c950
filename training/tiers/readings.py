"""What a classifier reads in labelled rows, kept as logits: verdicts at any calibration and operating point follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from classifier.calibration import Calibration
from classifier.settings import OperatingPoint
from classifier.taxonomy import Taxonomy
from classifier.types import Tier
from training.datasets import LOOK_ALIKES, Row, TrainingError
from training.tiers.scores import Logits

_TEMPERATURES = (0.05, 20.0)
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


class NothingToFitError(TrainingError):
    """Rows that cannot tell a temperature; the message says why."""


class Readings:
    """Rows with the logits of their texts' windows.

    Attributes:
        rows: as given.
        truth: tier of each row, shape ``(rows,)``.
        risky: the rows of any tier but Safe, a mask.
        ordinary: the Safe rows that do not look harmful, a mask (see `training.datasets.LOOK_ALIKES`).
        look_alikes: the other Safe rows, a mask.
        logits: of each row's windows, shape ``(windows, categories)``.

    Args:
        rows: labelled.
        logits: of each row's windows, shape ``(windows, categories)``.
        taxonomy: gives categories their tiers.
    """

    def __init__(self, rows: Sequence[Row], logits: Sequence[Logits], taxonomy: Taxonomy) -> None:
        if not rows:
            raise TrainingError("no rows to calibrate on; give rows that the model was not trained on")
        self.rows = list(rows)
        self.taxonomy = taxonomy
        self.truth = np.array([int(taxonomy.category(row.category).tier) for row in rows])
        self.risky = self.truth != Tier.SAFE
        self.look_alikes = ~self.risky & np.array([row.category == LOOK_ALIKES for row in rows])
        self.ordinary = ~self.risky & ~self.look_alikes
        self.logits = list(logits)

    def part(self, mask: Mask) -> Readings:
        """Some of the rows."""
        at = np.flatnonzero(mask)
        return Readings([self.rows[i] for i in at], [self.logits[i] for i in at], self.taxonomy)

    def at(self, calibration: Calibration) -> Calibrated:
        """The probabilities that a calibration makes of the logits."""
        flat = calibration.probabilities(np.concatenate(self.logits)) @ self._tiers
        starts = np.cumsum([0, *map(len, self.logits)])
        return Calibrated(flat, starts)

    def temperature(self) -> float:
        """The temperature of the least log loss over tiers, on the rows that are read in one window.

        Raises:
            NothingToFitError: all of these are judged right, so that the loss falls with the temperature without an
                end, or the least loss is at a bound.
            TrainingError: there are none.
        """
        single = np.array([len(each) == 1 for each in self.logits])
        if not single.any():
            raise TrainingError("no row is short enough to be read in one window, which the temperature is fitted on")
        logits = np.concatenate([each for each in self.logits if len(each) == 1])
        places = np.arange(len(logits)), self.truth[single]
        if (np.array(self.taxonomy.tier_indices)[logits.argmax(1)] == self.truth[single]).all():
            raise NothingToFitError(f"all {len(logits)} rows that would fit it are judged right")

        def loss(log_temperature: float) -> float:
            found = Calibration(float(np.exp(log_temperature))).probabilities(logits) @ self._tiers
            return float(-np.log(np.maximum(found[places], 1e-12)).mean())

        best = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
        if not _TEMPERATURES[0] * 1.01 < np.exp(best.x) < _TEMPERATURES[1] / 1.01:
            raise NothingToFitError(f"the fit on {len(logits)} rows ends at its bound, {np.exp(best.x):.2g}")
        return round(float(np.exp(best.x)), 4)

    @property
    def _tiers(self) -> Numbers:
        return np.eye(len(Tier))[list(self.taxonomy.tier_indices)]


@dataclass(frozen=True)
class Calibrated:
    """Probabilities of the tiers in each window of each row.

    Attributes:
        windows: shape ``(windows, 4)``, all rows' windows behind one another.
        starts: where each row's windows start, and the end; shape ``(rows + 1,)``.
    """

    windows: Numbers
    starts: NDArray[np.int64]

    @cached_property
    def risk(self) -> Numbers:
        """How risky each row's riskiest window is, shape ``(rows,)``."""
        found: Numbers = np.maximum.reduceat(1.0 - self.windows[:, Tier.SAFE], self.starts[:-1])
        return found

    @cached_property
    def unsafe(self) -> Numbers:
        """The probability of Unsafe of the window where it is highest, shape ``(rows,)``."""
        found: Numbers = np.maximum.reduceat(self.windows[:, Tier.UNSAFE], self.starts[:-1])
        return found

    def decided(self, point: OperatingPoint) -> tuple[NDArray[np.int64], Mask, Numbers]:
        """Of each row the tier, whether it is sure, and the probabilities of the tiers in the window that decides.

        Whether a row's windows are those of a long text, or other readings of a short one, logits do not tell: here
        both go by the point of texts of several windows, while the classifier judges a short text by that of one.
        """
        told: list[Any] = []
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            tiers = [dict(zip(Tier, window, strict=True)) for window in self.windows[start:end].tolist()]
            at, tier, sure = point.decide(tiers, several=end - start > 1)
            told.append((int(tier), sure, self.windows[start + at]))
        tiers_, sure_, deciding = zip(*told, strict=True)
        return np.array(tiers_), np.array(sure_), np.array(deciding)
