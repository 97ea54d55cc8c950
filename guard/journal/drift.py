"""Drift: whether what is asked, and what is said of it, differs between two periods of the journal by more than chance.

Tiers, categories, routes, languages, lengths and how sure the classifier was need no prompts; words do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import regex
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from guard.errors import BadRequest
from guard.journal.prompts import READABLE
from guard.journal.records import Record

FEWEST = 50  # decisions of a period below which nothing can be said
_BINS = 10
_SHOWN = 10
_WORDS = 5_000  # different words that are counted
_DOCUMENTS = 20_000  # prompts of a period whose words are counted
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]{2}|[\p{L}\p{N}]{2,}", regex.V1)
_CATEGORICAL = ("tier", "category", "route", "language", "tenant")


@dataclass(slots=True)
class Period:
    """Decisions of a stretch of time, as far as drift looks at them.

    Attributes:
        decisions: how many.
        labels: of each decision, what was said: tier, category, route, language, tenant.
        numbers: of each decision, its `confidence` (the probability of its tier), `coverage` and `tokens`.
        prompts: texts that were kept in a form that can be read.
    """

    decisions: int = 0
    labels: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _CATEGORICAL})
    numbers: dict[str, list[float]] = field(default_factory=lambda: {"confidence": [], "coverage": [], "tokens": []})
    prompts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moved:
    """How one measure differs.

    Attributes:
        measure: its name.
        psi: population stability index; below 0.1 little, from 0.25 on a lot.
        divergence: Jensen–Shannon divergence, in bits, 0 to 1.
        p: share of random splits of the same decisions that differ as much (permutation test).
        adjusted: the same, held against the number of measures (Holm 1979).
        alarm: whether it moved by more than chance, and by enough.
        shares: what moved most: its share before and after.
    """

    measure: str
    psi: float
    divergence: float
    p: float
    adjusted: float
    alarm: bool
    shares: Mapping[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        shares = {name: {"before": before, "after": after} for name, (before, after) in self.shares.items()}
        named = {name: getattr(self, name) for name in ("measure", "psi", "divergence", "p", "adjusted", "alarm")}
        return {**named, "shares": shares}


def read_period(records: Iterable[Record]) -> Period:
    """The decisions among records that a model judged."""
    period = Period()
    for record in records:
        said = record.content
        tiers, tier = said.get("tiers"), said.get("tier")
        if not tier or not isinstance(tiers, Mapping):
            continue
        period.decisions += 1
        for name in _CATEGORICAL:
            period.labels[name].append(str(said.get(name) or "–"))
        period.numbers["confidence"].append(float(tiers.get(tier, 0.0)))
        for name in ("coverage", "tokens"):
            period.numbers[name].append(float(said.get(name) or 0.0))
        if said.get("prompts") in READABLE and said.get("prompt"):
            period.prompts.append(str(said["prompt"]))
    return period


def drift(
    before: Period,
    after: Period,
    *,
    alpha: float = 0.01,
    least: float = 0.1,
    permutations: int = 999,
    seed: int = 0,
) -> list[Moved]:
    """How each measure moved, the surest first.

    Args:
        before: the period to hold against.
        after: the one in question.
        alpha: chance of any alarm at all where nothing changed, at most.
        least: PSI from which a change that is no chance is an alarm: of many decisions, each trifle is sure.
        permutations: random splits of a test.
        seed: of the splits.

    Raises:
        BadRequest: a period has too few decisions that were judged, or `alpha` is below what so many splits can show.
    """
    for name, period in (("before", before), ("after", after)):
        if period.decisions < FEWEST:
            raise BadRequest(
                f"the period {name} has {period.decisions} judged decisions; {FEWEST} are needed: take a longer one"
            )
    has_words = min(len(before.prompts), len(after.prompts)) >= FEWEST
    measures = len(_CATEGORICAL) + len(before.numbers) + has_words
    surest = measures / (permutations + 1)
    if alpha < surest:
        raise BadRequest(
            f"--alpha {alpha:g}: with {permutations} random splits and {measures} measures nothing could be an alarm; "
            f"take at least {surest:g}"
        )
    rng = np.random.default_rng(seed)
    found = [
        *(_labels(name, before.labels[name], after.labels[name], permutations, rng) for name in _CATEGORICAL),
        *(_binned(name, values, after.numbers[name], permutations, rng) for name, values in before.numbers.items()),
    ]
    if has_words:
        found.append(_words(before.prompts, after.prompts, permutations, rng))
    adjusted = _holm([each.p for each in found])
    judged = [
        replace(each, adjusted=p, alarm=p <= alpha + 1e-12 and each.psi >= least)
        for each, p in zip(found, adjusted, strict=True)
    ]
    return sorted(judged, key=lambda each: (each.adjusted, -each.psi))


def _labels(
    name: str, before: Sequence[str], after: Sequence[str], permutations: int, rng: np.random.Generator
) -> Moved:
    known = sorted({*before, *after})
    place = {label: at for at, label in enumerate(known)}
    table = _table(len(known), [[place[label] for label in side] for side in (before, after)])
    return _counted(name, known, table, permutations, rng)


def _binned(
    name: str, before: Sequence[float], after: Sequence[float], permutations: int, rng: np.random.Generator
) -> Moved:
    """Numbers, in bins that hold a tenth of both periods each."""
    edges = np.unique(np.quantile([*before, *after], np.linspace(0, 1, _BINS + 1)[1:-1]))
    table = _table(len(edges) + 1, [np.searchsorted(edges, values) for values in (before, after)])
    return _counted(name, [*(f"up to {edge}" for edge in _told_apart(edges)), "more"], table, permutations, rng)


def _told_apart(edges: NDArray[np.float64]) -> list[str]:
    """Different numbers with as few digits as tell them apart, four at least."""
    return next(
        shown for digits in range(4, 18) if len(set(shown := [f"{edge:.{digits}g}" for edge in edges])) == len(edges)
    )


def _table(columns: int, sides: Iterable[ArrayLike]) -> NDArray[np.int64]:
    """How often each number from 0 on is in each of both sides, (2, columns)."""
    return np.array([np.bincount(side, minlength=columns) for side in sides], dtype=np.int64)


def _counted(
    name: str, known: Sequence[str], table: NDArray[np.int64], permutations: int, rng: np.random.Generator
) -> Moved:
    """Counts, by a test that draws the tables that random splits would give: there is no need to shuffle."""
    found = table.sum(0) > 0
    known, table = [label for label, there in zip(known, found, strict=True) if there], table[:, found]
    drawn = rng.multivariate_hypergeometric(table.sum(0), int(table[1].sum()), size=permutations)
    chance = _psi(table.sum(0) - drawn, drawn)
    return _moved(name, known, table[0], table[1], chance)


def _words(before: Sequence[str], after: Sequence[str], permutations: int, rng: np.random.Generator) -> Moved:
    """In how many prompts each word is; whole prompts change sides, since the words of one come together."""
    sides = [_some(prompts, rng) for prompts in (before, after)]
    documents = [set(_WORD.findall(prompt.lower())) for side in sides for prompt in side]
    common = Counter(word for words in documents for word in words).most_common(_WORDS)
    places = {word: at for at, (word, count) in enumerate(common) if count > 1}
    pairs = [(row, places[word]) for row, words in enumerate(documents) for word in words if word in places]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(documents), len(places)))
    total = np.asarray(counts.sum(0)).ravel()
    second = np.arange(len(documents)) >= len(sides[0])
    chance = []
    for _ in range(permutations):
        drawn = rng.permutation(second) @ counts
        chance.append(_psi(total - drawn, drawn))
    seen = second @ counts
    return _moved("words", list(places), total - seen, seen, np.array(chance))


def _some(prompts: Sequence[str], rng: np.random.Generator) -> list[str]:
    if len(prompts) <= _DOCUMENTS:
        return list(prompts)
    return [prompts[at] for at in rng.choice(len(prompts), _DOCUMENTS, replace=False)]


def _moved(
    name: str, known: Sequence[str], before: NDArray[Any], after: NDArray[Any], chance: NDArray[np.float64]
) -> Moved:
    psi = float(_psi(before, after))
    first, second = before / max(1, before.sum()), after / max(1, after.sum())
    most = np.argsort(-np.abs(second - first), kind="stable")[:_SHOWN]
    shares = {known[at]: (round(float(first[at]), 4), round(float(second[at]), 4)) for at in most}
    p = float((1 + (chance >= psi - 1e-12).sum()) / (1 + len(chance)))
    return Moved(name, round(psi, 4), round(_divergence(first, second), 4), p, p, False, shares)


def _psi(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    """Population stability index of counts, over the last axis; half a count more of each, so that none is zero."""
    first = (before + 0.5) / (before + 0.5).sum(-1, keepdims=True)
    second = (after + 0.5) / (after + 0.5).sum(-1, keepdims=True)
    found: NDArray[np.float64] = ((second - first) * np.log(second / first)).sum(-1)
    return found


def _divergence(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    middle = (first + second) / 2

    def from_middle(shares: NDArray[np.float64]) -> float:
        there = shares > 0
        return float((shares[there] * np.log2(shares[there] / middle[there])).sum())

    return (from_middle(first) + from_middle(second)) / 2


def _holm(values: Sequence[float]) -> list[float]:
    """P-values such that any is below a level by chance no more often than that level says."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[at]))
        adjusted[at] = largest
    return adjusted
