"""The language that somebody writes in, told in under a millisecond; None where it is not known or mixed."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

import regex

from guard.errors import ConfigError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_READ = 400  # characters
_SURE = 0.5  # probability from which a language in Latin letters is taken
_SURE_OF_SCRIPT = 0.45  # in other letters; below, the likeliest that there is a text in: English would be further off
_ALONE = 0.6  # share of the letters that must be of one script
_STRETCH = 60  # characters that are told apart in a text that is read from beginning to end; each lies in two of them
TOLD = (  # are told apart from those with a text, so that Italian is not answered in Spanish
    "en", "zh", "de", "fr", "es", "pt", "ja", "ar", "ru", "hi",
    "it", "nl", "pl", "tr", "sv", "da", "ro", "cs", "id", "vi", "ko", "fa", "ur", "uk", "bg", "mr", "ne",
)  # fmt: skip
_LOADING = threading.Lock()
_LETTER = regex.compile(r"(?V1)[\p{L}--\p{Script=Common}]")
# The languages of a script, and how many Latin letters one of its characters is worth.
_LATIN = regex.compile(r"\p{Script=Latin}")
_SCRIPTS = {
    _LATIN: ((), 1),
    regex.compile(r"\p{Script=Cyrillic}"): (("ru", "uk", "bg"), 1),
    regex.compile(r"\p{Script=Arabic}"): (("ar", "fa", "ur"), 1),
    regex.compile(r"\p{Script=Devanagari}"): (("hi", "mr", "ne"), 1),
    regex.compile(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]"): (("zh", "ja"), 3),
    regex.compile(r"\p{Script=Hangul}"): (("ko",), 3),
}
_UKRAINIAN = regex.compile("[іїєґ]", regex.IGNORECASE)  # nearly every sentence has one, and no Russian one does


class Detector:
    """Tells languages apart.

    Args:
        languages: those that there are texts in (ISO 639-1).

    Raises:
        ConfigError: one of them cannot be told.
    """

    def __init__(self, languages: Collection[str]) -> None:
        self._with_text = frozenset(languages)
        self._known = self._with_text | frozenset(TOLD)
        if self._known > frozenset(TOLD):
            self.load()

    def load(self) -> None:
        """Load the model, which takes half a second, before the first question."""
        _model(self._known)

    def language(self, text: str) -> str | None:
        """Of a text, of which the beginning is read; None where it is not known, or mixed."""
        text = text[:_READ]
        weights = {script: weight * len(script.findall(text)) for script, (_, weight) in _SCRIPTS.items()}
        main = max(weights, key=lambda script: weights[script])
        if not weights[main] or weights[main] < _ALONE * sum(weights.values()):
            return None
        languages, _ = _SCRIPTS[main]
        ranked = [each for each in _model(self._known).rank(text) if each[0] != "uk" or _UKRAINIAN.search(text)]
        found, probability = ranked[0]
        if probability >= (_SURE_OF_SCRIPT if languages else _SURE):
            return str(found)
        return next((name for name, _ in ranked if name in languages and name in self._with_text), None)

    def asked_in(self, text: str) -> str | None:
        """Of what somebody asks: letters of another width are read as the plain ones that they stand for."""
        return self.language(unicodedata.normalize("NFKC", text[:_READ]))

    def is_english(self, text: str) -> bool:
        """Whether a text is in English, or may be: its language is not known, and it has no other letters."""
        language = self.language(text)
        return language == "en" or (language is None and text.isascii())

    def is_wholly(self, text: str, language: str) -> bool:
        """Whether a text is in a language of `TOLD`, and no stretch of it in another one or in other letters.

        Of what cannot be told, such as one or two words, it is not.
        """
        own = next((script for script, (languages, _) in _SCRIPTS.items() if language in languages), _LATIN)
        if _LETTER.search(_LATIN.sub("", own.sub("", text))) or self.language(text) != language:
            return False
        starts = range(0, max(1, len(text) - _STRETCH // 2), _STRETCH // 2)
        return all(self.language(text[start : start + _STRETCH]) in (None, language) for start in starts)


def _model(languages: frozenset[str]) -> LanguageIdentifier:
    """One model for all who ask; who comes while it is loaded waits for it."""
    with _LOADING:
        return _loaded(languages)


@cache
def _loaded(languages: frozenset[str]) -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    unknown = sorted(languages - set(model.labels))
    if unknown:
        raise ConfigError(
            f"answers: there is a text in the language {unknown[0]!r}, which cannot be recognised; known: "
            f"{', '.join(sorted(label for label in model.labels if len(label) == 2))}"
        )
    model.set_languages(languages)
    return model
