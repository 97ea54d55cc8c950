"""From logits to probabilities that mean what they say: a temperature, fitted on rows that training did not see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.types import ClassifierError


@dataclass(frozen=True, slots=True)
class Calibration:
    """What logits are divided by before they become probabilities (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Above 1 a model was too sure of itself, below 1 not sure enough; 1 leaves it as it was trained.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise ClassifierError(f"calibration temperature = {self.temperature}: need a number above 0")

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities over the last axis, of the same shape."""
        scaled = logits / self.temperature
        powers: NDArray[np.float64] = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        powers /= powers.sum(axis=-1, keepdims=True)
        return powers


AS_TRAINED = Calibration()
