"""What a classifier needs to know of tokens and of logits: the seam between verdicts and the libraries that compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """Encoder, adapter and head of one model, ready to run.

    Attributes:
        name: which library and precision.
        categories: outputs.
        longest: tokens of the longest row that it reads, special tokens included; None where there is no limit.
    """

    name: str
    categories: int
    longest: int | None

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Category logits, shape ``(rows, categories)``, of rows of token ids without special tokens."""
        ...


class Tokenizer(Protocol):
    """Cuts texts into the tokens of an encoder.

    Attributes:
        name: the encoder's setting.
        before: ids of the special tokens that the encoder expects before a text.
        after: those after it.
        unknown: id of what the vocabulary does not know; None where there is no such token.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class says it

    @property
    def before(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def after(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def unknown(self) -> int | None: ...  # noqa: D102

    def split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a whole text and the characters of each, no special tokens among them: what looks like one is text."""
        ...
