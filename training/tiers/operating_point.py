"""Choose the thresholds of a classifier by budgets: how many harmless texts it may flag and refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from classifier.settings import OperatingPoint
from classifier.types import Tier
from training.datasets import LOOK_ALIKES, Row
from training.tiers.evaluate import Trained, classify_rows

_STEPS = range(5, 100)  # hundredths
LOWEST = _STEPS[0] / 100


@dataclass(frozen=True, slots=True)
class Budgets:
    """Shares of the Safe rows that an operating point may get wrong.

    Ordinary rows and look-alikes have budgets of their own. Few of the texts that people send look harmful and are not,
    but two in five of the Safe training rows: one budget over both is spent on these, and risk is missed for it.

    Attributes:
        flagged: of the ordinary rows, those that may be judged not Safe.
        refused: of the ordinary rows, those that may be judged Unsafe.
        look_alikes_flagged: the same of the look-alikes, the Safe rows of `training.datasets.LOOK_ALIKES`.
        look_alikes_refused: the same.
    """

    flagged: float
    refused: float
    look_alikes_flagged: float = 1.0
    look_alikes_refused: float = 1.0


def choose_operating_point(classifier: Trained, rows: Sequence[Row], budgets: Budgets) -> OperatingPoint:
    """The lowest thresholds, in steps of 0.01, that keep to all budgets on the Safe rows.

    `unsafe` is the lowest that keeps to both budgets of what is refused; then `risk` the lowest that keeps, with that,
    to both of what is flagged. Neither goes below 0.05. When no threshold keeps to them, the highest. Without Safe
    rows, the default. A taxonomy without the category of the look-alikes has ordinary rows only.
    """
    safe = [row for row in rows if classifier.taxonomy.category(row.category).tier is Tier.SAFE]
    if not safe:
        return OperatingPoint()
    judged = [
        (row.category == LOOK_ALIKES, verdict.tiers)
        for row, verdict in zip(safe, classify_rows(classifier, safe), strict=True)
    ]

    def within(point: OperatingPoint, wrong: Callable[[Tier], bool], ordinary: float, look_alikes: float) -> bool:
        groups = ((False, ordinary), (True, look_alikes))
        found = ([wrong(point.tier(tiers)) for alike, tiers in judged if alike is group] for group, _ in groups)
        return all(not each or np.mean(each) <= most for each, (_, most) in zip(found, groups, strict=True))

    def lowest(make: Callable[[float], OperatingPoint], wrong: Callable[[Tier], bool], *most: float) -> OperatingPoint:
        points = (make(step / 100) for step in _STEPS)
        return next((point for point in points if within(point, wrong, *most)), make(1.0))

    unsafe = lowest(
        lambda step: OperatingPoint(risk=1.0, unsafe=step),
        lambda tier: tier is Tier.UNSAFE,
        budgets.refused,
        budgets.look_alikes_refused,
    ).unsafe
    if not {category.tier for category in classifier.taxonomy.categories} - {Tier.SAFE, Tier.UNSAFE}:
        return OperatingPoint(risk=1.0, unsafe=unsafe)  # there is no tier between them
    return lowest(
        lambda step: OperatingPoint(risk=step, unsafe=unsafe),
        lambda tier: tier is not Tier.SAFE,
        budgets.flagged,
        budgets.look_alikes_flagged,
    )
