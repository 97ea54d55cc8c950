"""What a fact is, and how its place is emptied."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import ClassVar

MOST_DIGITS = 30  # more are a code, not a number


class Placed:
    """What stands in a text: `text` as it is written, from `start` on."""

    __slots__ = ()

    text: str
    start: int

    @property
    def end(self) -> int:
        """The character after the last."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Number(Placed):
    """A number with its unit.

    Attributes:
        value: in the base unit of its dimension, where it has one.
        unit: the dimension, such as ``mass``, or what is counted; empty without.
        text: as it is written.
        needed: whether evidence must have it; False for words such as ``a`` that only may stand for a number.
        held: whether evidence must not have another in its place, though it need not have this one.
        start: first character in the normalised sentence.
        written: the value in the unit that it is written with; None if that is the same.
    """

    rule: ClassVar[str] = "number"  # the kind of fault where evidence lacks it
    value: Fraction
    unit: str
    text: str
    start: int
    needed: bool = True
    written: Fraction | None = None
    held: bool = False

    def says(self, other: Number) -> bool:
        """Whether evidence with `other` says this; a number without unit is only met by one as it is written."""
        if self.unit == "ordinal" and not other.unit:
            return self.value == other.value  # "das fünfte Kapitel" and "Kapitel 5"
        if self.unit:
            return (self.value, self.unit) == (other.value, other.unit)
        return self.value == (other.value if other.written is None else other.written)

    def against(self, other: Number) -> bool:
        """Whether `other` is of the same kind."""
        return other.needed and (self.unit == other.unit or "" in (self.unit, other.unit) or self.value == other.value)


@dataclass(frozen=True, slots=True)
class Date(Placed):
    """A date or a part of one; what is not said is None.

    Attributes:
        parts: each reading as year, month and day; 3/4/2024 has two. A year before Christ is below 0.
        text: as it is written.
    """

    rule: ClassVar[str] = "date"
    parts: tuple[tuple[int | None, int | None, int | None], ...]
    text: str
    start: int

    def says(self, other: Date) -> bool:
        """Whether evidence with `other`, which may say more, says this.

        Two dates that can both be read in two ways are written alike, and compared reading by reading.
        """
        alike = len(self.parts) == len(other.parts)
        pairs = zip(self.parts, other.parts, strict=True) if alike else product(self.parts, other.parts)
        return any(
            all(mine in (None, theirs) for mine, theirs in zip(reading, known, strict=True)) for reading, known in pairs
        )

    def against(self, other: Date) -> bool:
        """Whether `other` is of the same kind: both name a year, or a month, or a day."""
        return any(
            mine is not None and theirs is not None for mine, theirs in zip(self.parts[0], other.parts[0], strict=True)
        )


@dataclass(frozen=True, slots=True)
class Term(Placed):
    """A fact that is a word of a closed kind: a time of day, a weekday, how often, a code.

    Attributes:
        kind: ``time``, ``weekday``, ``rate`` or ``code``.
        value: the same for every way to write it.
        text: as it is written.
    """

    kind: str
    value: str
    text: str
    start: int

    @property
    def rule(self) -> str:
        """The kind of fault where evidence lacks it."""
        return self.kind

    def says(self, other: Term) -> bool:
        """Whether evidence with `other` says this."""
        return (self.kind, self.value) == (other.kind, other.value)

    def against(self, other: Term) -> bool:
        """Whether `other` is of the same kind."""
        return self.kind == other.kind


def blank(text: str, start: int, end: int) -> str:
    """The text with white space in the place of a part, as long as it was."""
    return text[:start] + " " * (end - start) + text[end:]
