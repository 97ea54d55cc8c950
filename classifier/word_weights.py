"""How much each word of a window weighs in its verdict, found by reading the window again without some of its words.

Nothing is asked of the model but its probabilities, so this works with every runtime. Decision record 31 says how it
was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
Weights = NDArray[np.float64]
Score = Callable[[Masks], Weights]
"""Log-odds of what is explained, shape ``(masks,)``, of which words are kept, shape ``(masks, words)``."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What was found, and at what cost.

    Attributes:
        weights: of each word; those of one that was only weighed together with its neighbours are equal shares.
        readings: how often the window was read.
        tokens: that were read in all.
        alone: whether every word was weighed by itself.
    """

    weights: Weights
    readings: int
    tokens: int
    alone: bool


def weigh(score: Score, lengths: Sequence[int], budget: int) -> Weighed:
    """The weight of each word, within a budget.

    Where the budget does not reach for each word, half of it weighs stretches of neighbouring words, and the rest the
    words of the stretches that weigh most.

    Args:
        score: of words that are kept.
        lengths: tokens of each word.
        budget: tokens that may be read, special tokens aside; the whole window is read four times at least.
    """
    words = len(lengths)
    total = sum(lengths)
    each = [[at] for at in range(words)]
    if not words or _cost(words, total) <= budget:
        return Weighed(both_ends(score, each, words), 2 + 2 * words, _cost(words, total), alone=True)
    stretches = _stretches(words, max(2, budget // 2 // total - 1))
    of_stretches = both_ends(score, stretches, words)
    weights = np.concatenate([np.full(len(s), w / len(s)) for s, w in zip(stretches, of_stretches, strict=True)])
    left = budget - _cost(len(stretches), total)
    chosen: list[list[int]] = []
    for at in np.argsort(-np.abs(of_stretches), kind="stable"):
        found = [[word] for word in stretches[at]]
        if _cost(len(chosen) + len(found), total) > left:
            break
        chosen += found
    if chosen:
        weights[[word for (word,) in chosen]] = both_ends(score, chosen, words)
    rounds = [len(units) for units in (stretches, chosen) if units]
    readings, tokens = sum(2 + 2 * units for units in rounds), sum(_cost(units, total) for units in rounds)
    return Weighed(weights, readings, tokens, alone=False)


def both_ends(score: Score, units: Sequence[Sequence[int]], words: int) -> Weights:
    """What each unit of words adds to all others, and what it adds to no words at all: the mean of both.

    The first and the last step of a Shapley value. Of two words that say the same, neither adds anything to all
    others; each still does to none.
    """
    if not words:
        return np.zeros(len(units))
    one = np.zeros((len(units), words), dtype=bool)
    for row, unit in enumerate(units):
        one[row, list(unit)] = True
    whole, none = np.ones((1, words), dtype=bool), np.zeros((1, words), dtype=bool)
    found = score(np.concatenate([whole, none, ~one, one]))
    without, alone = found[2 : 2 + len(units)], found[2 + len(units) :]
    added: Weights = (found[0] - without + alone - found[1]) / 2
    return added


def _cost(units: int, total: int) -> int:
    """Tokens that `both_ends` reads: the whole, and for each unit what is without it and what is in it."""
    return total * (units + 1)


def _stretches(words: int, count: int) -> list[list[int]]:
    """Neighbouring words, as even as can be."""
    return [list(map(int, part)) for part in np.array_split(np.arange(words), min(count, words))]
