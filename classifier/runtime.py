"""What computes the logits of a classifier's windows: the one seam between verdicts and the library that multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """Encoder, adapter and head of one model, ready to run.

    Attributes:
        categories: outputs.
        longest: tokens of the longest row that it reads, special tokens included; None where there is no limit.
    """

    categories: int
    longest: int | None

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Category logits, shape ``(rows, categories)``, of rows of token ids without special tokens."""
        ...
