"""Choose the sentences of the evidence that a claim may rest on, by shared words and their rarity."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from rag.facts.comparison import READ
from rag.facts.words import words
from rag.quotes import Quotable
from rag.types import Source

_NEAR = 2  # sentences before and after one
_COMMON = 1000  # sentences that a word may stand in to be looked up


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of the evidence, and the share of the claim's words, weighted by rarity, that it has."""

    place: Source
    score: float


class Aligner:
    """Sentences of the evidence by their words.

    Args:
        evidence: the passages.
    """

    def __init__(self, evidence: Quotable) -> None:
        self._places = [
            Source(number, start, min(start + READ, segment.end))
            for number, found in enumerate(evidence.segments)
            for segment in found
            for start in range(segment.start, segment.end, READ)
        ]
        self._at = {place: at for at, place in enumerate(self._places)}
        self._postings: dict[str, list[int]] = defaultdict(list)
        for at, place in enumerate(self._places):
            for word in set(words(evidence.normal(place))):
                self._postings[word].append(at)

    def candidates(self, claim: str, most: int = 5) -> list[Candidate]:
        """The sentences that share most with a normalised claim, best first; none if no word is shared."""
        weights = {word: self._weight(word) for word in dict.fromkeys(words(claim))}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1.0)  # all are common
        total = sum(weights.values())
        scores: dict[int, float] = defaultdict(float)
        for word, weight in weights.items():
            if weight:
                for at in self._postings.get(word, ()):
                    scores[at] += weight / total
        best = sorted(scores, key=lambda at: (-scores[at], at))[:most]
        return [Candidate(self._places[at], min(scores[at], 1.0)) for at in best]

    def around(self, candidate: Candidate) -> list[Source]:
        """The sentences that stand near a candidate in its passage, where what it only hints at may be said."""
        at = self._at[candidate.place]
        near = self._places[max(0, at - _NEAR) : at + _NEAR + 1]
        return [place for place in near if place.passage == candidate.place.passage and place != candidate.place]

    def _weight(self, word: str) -> float:
        """Rarity; 0 for a word that is in too many sentences to tell them apart."""
        known = len(self._postings.get(word, ()))
        return 0.0 if known > _COMMON else math.log(1 + len(self._places) / (known or 0.5))
