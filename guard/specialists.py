"""Classifiers for texts of one language, each beside the one that reads every language and judges all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from classifier.decoding import decoded
from classifier.normalize import normalize
from classifier.types import Tier, Verdict
from guard.language import Detector
from guard.types import Explainer, Explanation

if TYPE_CHECKING:
    from classifier.model import TierClassifier, Windowed

_WHOLE = 1.0  # share of a text that a specialist must be able to read


class ByLanguage:
    """Judges a text by the specialist of its language, if it is in that language from beginning to end.

    What a specialist cannot wholly read, what is of another language or of none that can be told, and what holds a
    stretch of another language, plain or encoded, the default judges; so it does what it finds too little risk in for
    a specialist to be asked.

    Args:
        default: reads every language.
        specialists: by language (ISO 639-1), of the default's taxonomy; the first that a text is of judges it.
        asked_from: by language, the risk (1 less the probability of Safe) that the default must find in a text for
            the specialist to be asked; 0, and a language that is not named, asks it of every text, and the default
            of none.

    Raises:
        ConfigError: a language cannot be told.
    """

    def __init__(
        self,
        default: TierClassifier,
        specialists: Mapping[str, TierClassifier],
        asked_from: Mapping[str, float] | None = None,
    ) -> None:
        self.default = default
        self.specialists = specialists
        self._asked_from = asked_from or {}
        self._detector = Detector(())
        self._detector.load()

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order; its `model` says which classifier judged.

        Raises:
            TextTooLong: the texts that one of the classifiers reads have more than `max_tokens` tokens.
        """
        read = self._read(texts)
        first = read.pop(None, {})
        of_specialists = {language: found for language, found in read.items() if language}
        looked_at = [
            place for language, found in of_specialists.items() if self._asked_from.get(language) for place in found
        ]
        first |= zip(looked_at, self.default.read([texts[place] for place in looked_at]), strict=True)
        verdicts = dict(zip(first, self.default.judge(list(first.values())), strict=True)) if first else {}
        for language, found in read.items():
            if language is not None:
                left = {
                    place: each for place, each in found.items() if not self._settled(language, verdicts.get(place))
                }
                verdicts |= zip(left, self.specialists[language].judge(list(left.values())), strict=True)
        return [verdicts[place] for place in range(len(texts))]

    def chosen(self, text: str) -> str | None:
        """The language of the specialist that judges a text; None where the default does.

        Raises:
            TextTooLong: the text has more characters than `max_tokens` tokens could hold, or more tokens.
        """
        language = next(iter(self._read([text])))
        if language and self._asked_from.get(language):
            return None if self._settled(language, *self.default.classify([text])) else language
        return language

    def _settled(self, language: str, verdict: Verdict | None) -> bool:
        """Whether the default's verdict, if it has given one, leaves nothing to ask the specialist."""
        return verdict is not None and 1.0 - verdict.tiers[Tier.SAFE] < self._asked_from.get(language, 0.0)

    def _read(self, texts: Sequence[str]) -> dict[str | None, dict[int, Windowed]]:
        """What each classifier is to judge, as it reads it, by the places of the texts."""
        self.default.check_characters(texts)
        found: dict[str | None, dict[int, Windowed]] = {}
        left = dict(enumerate(texts))
        for language, specialist in self.specialists.items():
            asked = {place: text for place, text in left.items() if self._is_of(text, language)}
            if not asked:
                continue
            read = dict(zip(asked, specialist.read(list(asked.values())), strict=True))
            whole = {place: each for place, each in read.items() if each[1].read >= _WHOLE}
            if whole:
                found[language] = whole
                left = {place: text for place, text in left.items() if place not in whole}
        if left:
            found[None] = dict(zip(left, self.default.read(list(left.values())), strict=True))
        return found

    def _is_of(self, text: str, language: str) -> bool:
        """Whether all of a text is, as it is written, as it is read, and as what stands encoded in it."""
        return all(self._detector.is_wholly(each, language) for each in {text, normalize(text), *decoded(text)})


class ExplainerByLanguage:
    """Explains a verdict by the classifier that gave it.

    Args:
        judge: says which that is.
        default: explains what no specialist judges.
        specialists: by language.
    """

    def __init__(self, judge: ByLanguage, default: Explainer, specialists: Mapping[str, Explainer]) -> None:
        self._judge = judge
        self._default = default
        self._specialists = specialists

    def explain(self, text: str) -> Explanation:
        """Why a text has its verdict.

        Raises:
            TextTooLong: as `ByLanguage.classify`.
        """
        language = self._judge.chosen(text)
        return (self._default if language is None else self._specialists[language]).explain(text)
