"""The response check of the output door: an answer is held against what was asked, and against the system message."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import regex
from pydantic import Field

from classifier.decoding import decoded
from classifier.types import Exchange, Tier
from guard.errors import ConfigError
from guard.fields import SHIPPED, Count, Section
from guard.policy import Mode
from guard.rules import YAML_OFF
from guard.sound import sound_verdicts
from guard.types import Asked, ExchangeJudge, Finding

LEAK = "prompt_leak"  # the label that a copied system message is one of
COPIED = "output_copied_words"
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\p{L}\p{M}\p{N}]+")

LabelMode = Annotated[Mode, YAML_OFF]


class Responses(Section):
    """Answers of the application's model, judged together with what was asked; see `airlock train responses`."""

    mode: LabelMode = Field(
        Mode.OFF,
        description="Of the harmful labels: `shadow` writes down what `enforce` would stop; `off` judges nothing.",
    )
    labels: dict[str, LabelMode] = Field(
        default_factory=dict, description="A mode for single labels, such as {prompt_leak: shadow, refusal: shadow}."
    )
    model: Path | None = Field(
        SHIPPED,
        description="Folder written by `airlock train responses`, or `shipped`; null looks for copied words only.",
    )
    encoder: str | None = Field(
        None, description="Folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    copied_words: Annotated[int, Field(ge=0)] = Field(
        12, description="So many words in a row of a system message are a leak (`prompt_leak`); 0 allows any number."
    )
    context: Count = Field(
        1000, description="Characters of a stream's text before each new stretch that are judged with it."
    )

    @property
    def asked(self) -> bool:
        """Whether any label has a mode."""
        return self.mode is not Mode.OFF or any(mode is not Mode.OFF for mode in self.labels.values())


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the response check says of answers.

    Attributes:
        finding: why one of them must not leave; None where all may.
        shadow: rules that would have stopped one, were they enforced; the finding's is not among them.
    """

    finding: Finding | None
    shadow: tuple[str, ...]


class AnswerCheck:
    """Judges answers by a model and by copied words; synchronous, called in a worker thread.

    Args:
        settings: modes by label.
        judge: the model; None judges by copied words alone.

    Raises:
        ConfigError: a mode is set for a label that the model does not have.
    """

    def __init__(self, settings: Responses, judge: ExchangeJudge | None) -> None:
        self._settings = settings
        self._judge = judge
        known = judge.labels if judge else {LEAK: True}
        unknown = sorted(set(settings.labels) - set(known))
        if unknown:
            raise ConfigError(
                f"output.responses.labels names {unknown[0]!r}, which the model does not have; "
                f"it has: {', '.join(known)}"
            )
        harmful = {label: settings.mode for label, stops in known.items() if stops}
        self._modes = harmful | settings.labels
        self._copying = settings.labels.get(LEAK, settings.mode) if settings.copied_words else Mode.OFF

    @property
    def instant(self) -> bool:
        """Whether no model is asked."""
        return self._judge is None

    def check(self, answers: Sequence[str], asked: Asked) -> Noticed:
        """What there is to say of answers, or stretches of them, to one request.

        Raises:
            PartFailure: the model answered rubbish.
        """
        found = {rule: mode for rule, mode in self._found(answers, asked) if mode is not Mode.OFF}
        enforced = next((rule for rule, mode in found.items() if mode is Mode.ENFORCE), None)
        shadow = tuple(rule for rule, mode in found.items() if mode is Mode.SHADOW)
        return Noticed(Finding(enforced) if enforced else None, shadow)

    def _found(self, answers: Sequence[str], asked: Asked) -> Iterator[tuple[str, Mode]]:
        if self._copying is not Mode.OFF and asked.system:
            words = asked.words(normal_words)
            readings = [reading for answer in answers for reading in (answer, *decoded(answer))]
            if any(copies(reading, words, self._settings.copied_words) for reading in readings):
                yield COPIED, self._copying
        if self._judge is None:
            return
        exchanges = [Exchange(answer, asked.prompt, asked.system) for answer in answers]
        for verdict in sound_verdicts(self._judge.classify(exchanges), len(exchanges)):
            harmful = verdict.tier is Tier.UNSAFE
            if harmful or verdict.category in self._settings.labels:
                yield f"output_response:{verdict.category}", self._modes.get(verdict.category, Mode.OFF)


def normal_words(text: str) -> list[str]:
    """A text's words without capitals, marks and punctuation; of scripts without blanks, its characters."""
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def copies(answer: str, system: Sequence[str], words: int) -> bool:
    """Whether so many words in a row of a system message stand in an answer; two Chinese characters count as a word.

    Args:
        answer: the whole of it, or a stretch.
        system: the words of the system message, as `normal_words` gives them.
        words: how many; at least 1.
    """
    vocabulary, known = frozenset(system), f" {' '.join(system)} "
    said = normal_words(answer)
    weights = [1 if _is_character(word) else 2 for word in said]
    start, weight = 0, 0
    for end, (word, each) in enumerate(zip(said, weights, strict=True)):
        if word not in vocabulary:
            start, weight = end + 1, 0
            continue
        weight += each
        while weight - weights[start] >= 2 * words:
            weight -= weights[start]
            start += 1
        if weight >= 2 * words and f" {' '.join(said[start : end + 1])} " in known:
            return True
    return False


def _is_character(word: str) -> bool:
    return len(word) == 1 and not word.isascii()
