"""Choose rows: some at random, a few of each kind, and those of an epoch, so that no set teaches its own habits."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from training.datasets import Row, TrainingError

T = TypeVar("T")


def some(rows: Sequence[T], count: int, seed: int) -> list[T]:
    """As many of the rows, at most, chosen at random."""
    return random.Random(seed).sample(rows, min(count, len(rows)))


def few_of_each(rows: Sequence[T], each: int, group: Callable[[T], Hashable], seed: int) -> list[T]:
    """At most `each` rows of a group, chosen at random, in random order."""
    kept: Counter[Hashable] = Counter()
    chosen = []
    for row in random.Random(seed).sample(rows, len(rows)):
        if kept[group(row)] < each:
            kept[group(row)] += 1
            chosen.append(row)
    return chosen


def check_whole(whole: Collection[str], sources: Collection[str], caps: Mapping[str, int | None]) -> None:
    """Whether there is something to spare.

    Args:
        whole: sources that no cap touches.
        sources: of the rows to train on.
        caps: by option.

    Raises:
        TrainingError: there is no cap, or no row of one of the sources.
    """
    if not any(caps.values()):
        verb = "does" if len(caps) == 1 else "do"
        raise TrainingError(f"--whole: names what {' and '.join(caps)} {verb} not touch; give a cap, or leave it out")
    if unknown := {*whole}.difference(sources):
        raise TrainingError(f"--whole {', '.join(sorted(unknown))}: no row to train on is of that source")


def draw(
    rows: Sequence[Row],
    rng: random.Random,
    *,
    source_cap: int | None = None,
    category_cap: int | None = None,
    whole: Collection[str] = (),
) -> list[Row]:
    """The rows of one epoch, in random order, drawn anew each time.

    Args:
        rows: of training.
        rng: decides.
        source_cap: rows of one source at most, evenly over its categories; None sets no limit.
        category_cap: of what is left, rows of one category at most; None sets no limit.
        whole: sources that neither cap touches.
    """
    shuffled = rng.sample(rows, len(rows))
    spared = [row for row in shuffled if row.source in whole]
    within = [row for row in shuffled if row.source not in whole]
    if source_cap:
        within = _capped(within, source_cap, lambda row: row.source)
    if category_cap:
        within = _capped(within, category_cap, lambda row: row.category)
    together = [*spared, *within]
    rng.shuffle(together)
    return together


def _capped(rows: Sequence[Row], cap: int, group: Callable[[Row], str]) -> list[Row]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[group(row)].append(row)
    kept = {id(row) for members in groups.values() for row in _evenly(members, cap)}
    return [row for row in rows if id(row) in kept]


def _evenly(rows: Sequence[Row], cap: int) -> list[Row]:
    """At most `cap` rows, the smaller categories whole before the larger ones take the rest."""
    if len(rows) <= cap:
        return list(rows)
    by_category: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_category[row.category, row.source].append(row)
    kept: list[Row] = []
    waiting = [by_category[key] for key in sorted(by_category, key=lambda key: (len(by_category[key]), key))]
    while waiting:
        share = (cap - len(kept)) // len(waiting)
        kept += waiting.pop(0)[:share]
    return kept
