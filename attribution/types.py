"""Core types of the audit: heads, ways to ablate them, prompts, scores, and the tree of errors.

AttributionError
├── CheckpointError      no such model, a pickle, an encoder, NaN in the weights
├── UnsupportedModel     a family, or a feature of one, that could not be computed exactly
├── EngineMismatch       the engine's numbers are not the stock model's: nothing is reported
├── PromptError          a prompt file that cannot be used
└── ReportError          a report that cannot be read, or reports that cannot be compared
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Method = Literal["query", "key", "value", "mean", "mean_query"]
METHODS: tuple[Method, ...] = get_args(Method)


class AttributionError(Exception):
    """What stops an audit; its message names the setting, the value and the way out."""


class CheckpointError(AttributionError):
    """A checkpoint that cannot be audited."""


class UnsupportedModel(AttributionError):
    """A model whose heads cannot be ablated exactly."""


class EngineMismatch(AttributionError):
    """A self-check at the start of a run failed."""


class PromptError(AttributionError):
    """A set of prompts that cannot be used."""


class ReportError(AttributionError):
    """A report that cannot be read or compared."""


class HeadId(NamedTuple):
    """A query head; both numbers start at 0. Written `layer.head`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"

    @classmethod
    def parse(cls, text: str) -> HeadId:
        """Read `layer.head`.

        Raises:
            AttributionError: anything else.
        """
        if not (match := re.fullmatch(r"(\d+)\.(\d+)", text.strip())):
            raise AttributionError(f"head {text!r} is not of the form layer.head; write for example 2.26")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Ablation:
    """How a head is taken out (arXiv 2410.13708, section 3.2).

    Attributes:
        method: `query` or `key`: undifferentiated attention, softmax(ε·QKᵀ/√d)·V, for ε → 0 a running mean of V;
            `value`: scaling contribution, ε·softmax(QKᵀ/√d)·V; `mean`: the mean of the layer's heads in its place;
            `mean_query`: the mean of the layer's queries in place of its own.
        epsilon: ε; 0 is allowed. The means have none.
    """

    method: Method = "query"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise AttributionError(f"method {self.method!r} is not known; one of {', '.join(METHODS)}")
        if not 0.0 <= self.epsilon <= 1.0:
            raise AttributionError(f"epsilon {self.epsilon} is not between 0 and 1; the paper uses 1e-5")

    def __str__(self) -> str:
        return self.method if self.method.startswith("mean") else f"{self.method}/{self.epsilon:g}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        text: What a user asks, without a template.
        category: What it is about; empty if the file does not say.
        harmful: Whether an aligned model should refuse it; None if the file does not say.
    """

    text: str
    category: str = ""
    harmful: bool | None = None
