"""Thresholds that keep to a budget of errors on rows that nobody has seen, with the guarantee that they give.

A threshold is an order statistic of calibration rows, which is split conformal prediction (Vovk 2012, "Conditional
validity of inductive conformal predictors"). If the next rows are drawn like these, the share of them beyond the k-th
lowest of n scores follows a beta(k, n - k + 1) distribution, and their number among m rows a beta-binomial one,
whatever the model and the scores; ties only make it smaller. So the largest k is taken for which both keep to the
budget with the wanted confidence: the rate itself, and what is counted in as many fresh rows as calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, betabinom, binomtest

from training.datasets import TrainingError

_DIGITS = 6  # of a threshold; it is rounded to the safe side
ALL = "all"
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Budget:
    """How many rows of a kind may go wrong.

    Attributes:
        name: the option that it comes from, for messages.
        rate: their share, above 0 and below 1.
        confidence: how often the budget holds, over draws of calibration rows and fresh rows.
    """

    name: str
    rate: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for what, value in ((f"--{self.name}", self.rate), ("--confidence", self.confidence)):
            if not 0.0 < value < 1.0:
                raise TrainingError(f"{what} = {value}: need a share above 0 and below 1, such as 0.01")

    def errors(self, rows: int) -> int | None:
        """How many of so many calibration rows may lie beyond the threshold; None where these rows are too few."""
        return _errors(self.rate, self.confidence, rows)

    @property
    def fewest(self) -> int:
        """Calibration rows without which no threshold can keep to it."""
        low, high = 0, 2
        while self.errors(high) is None:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.errors(middle) is None else (low, middle)
        while high > 1 and self.errors(high - 1) is not None:  # the count of fresh rows makes it uneven
            high -= 1
        return high

    def within(self, rows: int) -> float:
        """The lowest rate that so many rows can show, to two digits that matter; 1 where there is none below 1."""
        for rate in sorted(mantissa * 10.0**-power for power in range(1, 6) for mantissa in np.arange(1, 10, 0.1)):
            if Budget(self.name, float(rate), self.confidence).errors(rows) is not None:
                return float(rate)
        return 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a threshold does to one group of calibration rows.

    Attributes:
        group: ``all``, a tier or a language; several languages with few rows are one, joined by ``+``.
        rows: how many.
        allowed: how many may lie beyond a threshold that keeps to the budget; None where the rows are too few to say,
            and the guarantee for all rows is the only one.
        threshold: the group's own; None likewise.
        errors: how many lie beyond the threshold that was taken.
    """

    group: str
    rows: int
    allowed: int | None
    threshold: float | None
    errors: int

    @property
    def interval(self) -> tuple[float, float]:
        """Exact binomial interval of the rate, 95 %."""
        if not self.rows:
            return 0.0, 1.0
        found = binomtest(self.errors, self.rows).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        low, high = self.interval
        rate = self.errors / self.rows if self.rows else None
        return asdict(self) | {"rate": rate, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold that keeps to a budget in each group that has rows enough.

    Attributes:
        value: the strictest of the groups', or the limit that it was not to pass.
        budget: what it keeps to.
        groups: the first is all rows.
    """

    value: float
    budget: Budget
    groups: tuple[Held, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, **asdict(self.budget), "groups": [group.as_dict() for group in self.groups]}


def below(
    budget: Budget, scores: Values, groups: Sequence[Mapping[str, NDArray[np.bool_]]] = (), *, most: float = 1.0
) -> Threshold:
    """The highest threshold below which no more of the rows fall than the budget allows, in each group.

    Args:
        budget: of rows that fall below.
        scores: of the rows that must not, shape ``(rows,)``.
        groups: partitions of these rows, each from name to mask.
        most: the threshold is no higher than this, though the budget may allow it.

    Raises:
        TrainingError: the rows are too few, or so many of them score 0 that no threshold keeps to the budget.
    """
    members = [(ALL, np.ones(len(scores), bool)), *(group for each in groups for group in _merged(each, budget))]
    own = [_own(budget, scores[mask]) for _, mask in members]  # by place: a language may be named as all rows are
    if own[0] is None:
        raise TrainingError(
            f"--{budget.name} = {budget.rate:g}: {len(scores)} rows are too few to show it with a confidence of "
            f"{budget.confidence:g}; give at least {budget.fewest}, or allow {budget.within(len(scores)):.2g}"
        )
    value, at = min((found, at) for at, found in enumerate(own) if found is not None)
    if value <= 0.0:
        name, mask = members[at]
        lost, rows = int((scores[mask] < 10.0**-_DIGITS).sum()), int(mask.sum())
        raise TrainingError(
            f"--{budget.name} = {budget.rate:g}: no threshold meets it: the model is wholly sure of the wrong side on "
            f"{lost} of the {rows} rows of {name!r}; allow more than {lost / rows:.2g}, "
            "correct these labels, or train it on such rows"
        )
    value = min(value, most)
    held = (
        Held(name, int(mask.sum()), budget.errors(int(mask.sum())), found, int((scores[mask] < value).sum()))
        for (name, mask), found in zip(members, own, strict=True)
    )
    return Threshold(value, budget, tuple(held))


def above(
    budget: Budget, scores: Values, groups: Sequence[Mapping[str, NDArray[np.bool_]]] = (), *, least: float = 0.0
) -> Threshold:
    """The lowest threshold, from `least` on, that no more of the rows reach than the budget allows; as `below`."""
    mirrored = below(budget, 1.0 - scores, groups, most=_turned(least))
    held = (replace(group, threshold=_turned(group.threshold)) for group in mirrored.groups)
    return Threshold(_turned(mirrored.value), budget, tuple(held))


def carried(before: Values, threshold: float, after: Values) -> float:
    """The threshold that as many scores reach as reached another one before; that one itself where it still does."""
    count = int((before >= threshold).sum())
    ordered = np.sort(after)[::-1]
    if not len(ordered):
        return threshold
    over = ordered[count - 1] if count else 1.0
    under = ordered[count] if count < len(ordered) else 0.0
    if under < threshold <= over:
        return threshold
    return min(1.0, max(10.0**-_DIGITS, round(float(over + under) / 2, _DIGITS)))


@cache
def _errors(rate: float, confidence: float, rows: int) -> int | None:
    most = math.floor(rate * rows)
    k = np.arange(1, most + 2)
    rate_held = beta.cdf(rate, k, rows - k + 1)
    count_held = betabinom.cdf(most, rows, k, rows - k + 1)
    held = np.flatnonzero(np.minimum(rate_held, count_held) >= confidence)
    return int(held[-1]) if len(held) else None


def _own(budget: Budget, scores: Values) -> float | None:
    """The threshold that a group's scores choose; None where they are too few."""
    allowed = budget.errors(len(scores))
    return None if allowed is None else _floor(float(np.sort(scores)[allowed]))


def _merged(groups: Mapping[str, NDArray[np.bool_]], budget: Budget) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The groups that have rows enough, and the others as one."""
    few = [name for name, mask in groups.items() if budget.errors(int(mask.sum())) is None and mask.any()]
    for name, mask in groups.items():
        if mask.any() and name not in few:
            yield name, mask
    if few:
        yield "+".join(sorted(few)), np.any([groups[name] for name in few], axis=0)


@overload
def _turned(value: float) -> float: ...
@overload
def _turned(value: None) -> None: ...
def _turned(value: float | None) -> float | None:
    """Of a threshold below which mirrored scores fall, the one that scores beyond it reach, and no others."""
    return None if value is None else min(1.0, round(1.0 - value + 0.1**_DIGITS, _DIGITS))


def _floor(value: float) -> float:
    return math.floor(value * 10.0**_DIGITS) / 10.0**_DIGITS
