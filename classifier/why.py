"""Why: the window that decided on a text, the words in it that weighed most, and labelled examples that are like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from classifier.examples import Example, Examples
from classifier.model import TierClassifier
from classifier.types import Span, Verdict
from classifier.word_weights import Masks, Weights, weigh
from classifier.words import Word, words

BUDGET = 8_192
_SURE = 1e-9  # of a probability, so that its log-odds are finite
_TOGETHER = 64  # readings that are put together at a time


@dataclass(frozen=True, slots=True)
class WeighedWord:
    """A word of the window.

    Attributes:
        text: as the classifier read it.
        start: its first character in `Why.text`.
        end: the character after its last.
        weight: how far it moves the log-odds of the verdict's tier; above 0, towards that tier.
    """

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class Why:
    """Why a text has its verdict.

    Attributes:
        verdict: what is explained.
        text: the window that decided, as the classifier read it.
        encoded: whether that stood encoded in the text, in base64 for example.
        words: the words that weighed most towards the verdict's tier, the weightiest first.
        readings: how often the window was read to find them.
        tokens: that were read in all, those of the text itself included.
        alone: whether each word was weighed by itself, or, in a long window, most of them with their neighbours.
        examples: the most alike of the model's labelled examples; empty where it has none.
    """

    verdict: Verdict
    text: str
    encoded: bool
    words: tuple[WeighedWord, ...]
    readings: int
    tokens: int
    alone: bool
    examples: tuple[Example, ...]

    def as_dict(self) -> dict[str, Any]:
        """The form of the command line and the API."""
        return {
            "tier": self.verdict.tier.label,
            "category": self.verdict.category,
            "window": {"text": self.text, "start": self.verdict.window.start, "end": self.verdict.window.end},
            "encoded": self.encoded,
            "words": [
                {"word": each.text, "start": each.start, "end": each.end, "weight": round(each.weight, 4)}
                for each in self.words
            ],
            "words_alone": self.alone,
            "readings": self.readings,
            "usage": {"total_tokens": self.tokens},  # what `limits` counts (`guard.metering`)
            "examples": [
                {
                    "id": each.id,
                    "text": each.text,
                    "category": each.category,
                    "tier": each.tier.label,
                    "similarity": round(each.similarity, 4),
                }
                for each in self.examples
            ],
        }


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains what a classifier says.

    Attributes:
        classifier: whose verdicts are explained.
        examples: its labelled examples; None where it has none.
        budget: tokens that it reads for one text beside those of the text itself.
        most: words and examples that are named.
    """

    classifier: TierClassifier
    examples: Examples | None = None
    budget: int = BUDGET
    most: int = 5

    def explain(self, text: str) -> Why:
        """Why a text has its verdict.

        Raises:
            TextTooLong: as `TierClassifier.classify`.
        """
        looked = Decided.of(self.classifier, text)
        weighed = weigh(looked.score, [len(word.tokens) for word in looked.words], self.budget)
        begin = looked.span.start
        weighty = [
            WeighedWord(looked.text[word.start : word.end], word.start - begin, word.end - begin, float(weight))
            for word, weight in zip(looked.words, weighed.weights, strict=True)
            if word.says and weight > 0
        ]
        like = self.examples.nearest(looked.verdict, self.most) if self.examples else []
        return Why(
            looked.verdict,
            looked.text[begin : looked.span.end],
            looked.encoded,
            tuple(sorted(weighty, key=lambda word: (-word.weight, word.start))[: self.most]),
            weighed.readings,
            looked.verdict.coverage.tokens + weighed.tokens,
            weighed.alone,
            tuple(like),
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """The window that decided, in words.

    Attributes:
        classifier: whose it is.
        verdict: on the whole text.
        text: the reading that the window is from.
        encoded: whether that stood encoded in the text.
        span: the window's characters in it.
        ids: its tokens.
        words: its words, which hold each of the tokens.
    """

    classifier: TierClassifier
    verdict: Verdict
    text: str
    encoded: bool
    span: Span
    ids: tuple[int, ...]
    words: tuple[Word, ...]

    @classmethod
    def of(cls, classifier: TierClassifier, text: str) -> Decided:
        """The one that decides on a text."""
        (verdict,) = classifier.classify([text])
        found = classifier.windows_at(text, verdict.window)
        said = classifier.probabilities([window.ids for _, window in found])
        like = np.abs(said - list(verdict.categories.values())).sum(1)
        reading, window = found[int(like.argmin())]
        offsets = reading.offsets[window.start : window.start + len(window.ids)]
        span = Span(offsets[0][0], offsets[-1][1]) if offsets else Span(0, 0)
        parts = tuple(words(reading.text, offsets))
        return cls(classifier, verdict, reading.text, reading.encoded, span, window.ids, parts)

    def probability(self, masks: Masks) -> Weights:
        """Probability of the verdict's tier when only some words are kept, shape ``(masks,)``."""
        inside = np.equal(self.classifier.taxonomy.tier_indices, self.verdict.tier)
        parts = [masks[start : start + _TOGETHER] for start in range(0, len(masks), _TOGETHER)]
        found = [self.classifier.probabilities([self._kept(mask) for mask in part])[:, inside].sum(1) for part in parts]
        return np.concatenate([np.zeros(0), *found])

    def score(self, masks: Masks) -> Weights:
        """The same as log-odds, which move also where the probability is near its end."""
        found = np.clip(self.probability(masks), _SURE, 1 - _SURE)
        odds: Weights = np.log(found / (1 - found))
        return odds

    def _kept(self, mask: Masks) -> list[int]:
        return [self.ids[token] for word, kept in zip(self.words, mask, strict=True) if kept for token in word.tokens]
