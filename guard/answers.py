"""What Airlock says in its own words: by kind, category and the asker's language, with help lines filled in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import TypeAdapter

from guard.errors import ConfigError
from guard.texts import CLAIM, FALLBACK, LINE_KINDS, TITLE, Answers, HelpLines, Kind, LineKind, Shipped, Texts, fill
from guard.types import Decision, Note, Reply
from rag.types import GroundedAnswer

_BETWEEN = "\n\n"
_MADE = re.compile(r"<(?=[A-Za-z/!?])|\](?=[(\[:])")  # what would make a tag or a link of the asker's words
_TEXT = {"<": "＜", "]": "] "}


class AnswerTexts:
    """Looks texts up, and composes replies of them.

    The asker's language comes first, then `answers.language`, then English. Within each: the rule's own text, the
    category's (the operator's, then the shipped one), the default (likewise). A text without languages is for all.

    Args:
        own: the operator's settings.
        says: texts of policy rules, by the rule's name.

    Raises:
        ConfigError: `answers.language` has no text, or `answers.country` no help lines.
    """

    def __init__(self, own: Answers | None = None, says: Mapping[str, str | dict[str, str]] | None = None) -> None:
        self._own = own or Answers()
        self._says = says or {}
        texts = (self._own.default, *self._own.categories.values())
        wordings = [*(getattr(each, kind) for each in texts for kind in Texts.model_fields), *self._says.values()]
        given = {language for wording in wordings if isinstance(wording, dict) for language in wording}
        self.languages = frozenset(given | set(_shipped()))
        if self._own.language not in self.languages:
            raise ConfigError(
                f"answers.language = {self._own.language!r}: there is no text in it; there are texts in "
                f"{', '.join(sorted(self.languages))}; add some under answers.default, or name one of these"
            )
        self._lines = self._lines_of(self._own.country)
        self._values = {language: self._values_in(language) for language in self.languages}

    def text(self, kind: Kind, decision: Decision, names: Mapping[str, str] = MappingProxyType({})) -> str:
        """The text of a kind for a decision, with further placeholders filled in; empty where nothing is to be said."""
        return self._find(kind, decision.category or "", decision.language, decision.rule, names)

    def reply(self, kind: Kind, decision: Decision, *, refused: bool = False) -> Reply:
        """The text of a kind; a person in distress is told first where help is."""
        return Reply(_join(self.comfort(decision), self.text(kind, decision)), refused=refused)

    def grounded(self, decision: Decision, answer: GroundedAnswer) -> Reply:
        """An answer from the knowledge base with what Airlock adds before and after it; the citations keep step."""
        before = [("comfort", self.comfort(decision))]
        if answer.premises:
            claim = " / ".join(_quoted(premise.claim) for premise in answer.premises)
            before.append(("premise", self.text("premise", decision, {CLAIM: claim})))
        if answer.related:
            title = " / ".join(dict.fromkeys(_quoted(citation.title) for citation in answer.citations))
            before.append(("related", self.text("related", decision, {TITLE: title})))
        if answer.positions is not None:
            before.append(("opening", self.text("opening", decision)))
        return _around([*before, ("", answer.answer), ("condition", self.text("condition", decision))], answer)

    def protective(self, decision: Decision, answer: GroundedAnswer) -> Reply:
        """A refusal, and behind it what a protective document says; the citations keep step."""
        kinds: tuple[Kind, ...] = ("refuse", "protective")
        said = [(kind, self.text(kind, decision)) for kind in kinds]
        return replace(_around([*said, ("", answer.answer)], answer), refused=True)

    def comfort(self, decision: Decision) -> str:
        """What is said first to a person in distress; empty for everybody else."""
        return self._find("comfort", decision.distress, decision.language) if decision.distress else ""

    @property
    def refusals(self) -> frozenset[str]:
        """Every text that a refused request may be answered with, in every language, help lines filled in."""
        shipped = _shipped().values()
        categories = {"", *self._own.categories, *(name for each in shipped for name in each.categories)}
        rules = {"", *self._says, *(name for each in shipped for name in each.rules)}
        found = set()
        for language in self.languages:
            comforts = {"", *(self._find("comfort", category, language) for category in categories)}
            texts = {self._find("refuse", category, language) for category in categories}
            texts |= {self._find("refuse", "", language, rule) for rule in rules}
            found |= {_join(comfort, text).strip() for comfort in comforts for text in texts}
        return frozenset(found)

    def _find(
        self,
        kind: Kind,
        category: str,
        language: str | None,
        rule: str = "",
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        for name in dict.fromkeys((language or self._own.language, self._own.language, FALLBACK)):
            for wording in self._candidates(kind, category, rule, name):
                text = wording if isinstance(wording, str) else wording.get(name)
                if text is not None:
                    return fill(text, {**(self._values.get(name) or self._values[FALLBACK]), **names})
        return ""

    def _candidates(self, kind: Kind, category: str, rule: str, language: str) -> Iterator[str | dict[str, str]]:
        """The texts that may be said in a language, in the order in which one is taken."""
        shipped = _shipped().get(language)
        if kind in ("refuse", "hand_over") and rule in self._says:
            yield self._says[rule]
        elif kind == "refuse" and shipped and rule in shipped.rules:
            yield shipped.rules[rule]
        for texts in (
            self._own.categories.get(category),
            shipped.categories.get(category) if shipped else None,
            self._own.default,
            shipped.default if shipped else None,
        ):
            wording = getattr(texts, kind) if texts else None
            if wording is not None:
                yield wording

    def _lines_of(self, country: str | None) -> HelpLines:
        if country is None:
            return {}
        lines = _help_lines().get(country, {}) | self._own.help_lines.get(country, {})
        if not lines:
            raise ConfigError(
                f"answers.country = {country!r}: no help lines are known there; give them under "
                f"answers.help_lines.{country}, or leave the country out; known are {', '.join(sorted(_help_lines()))}"
            )
        return lines

    def _values_in(self, language: str) -> dict[str, str]:
        """What stands for each placeholder."""
        phrases = _shipped().get(language, _shipped()[FALLBACK]).phrases
        values: dict[str, str] = {}
        for kind in LINE_KINDS:
            separator = " / " if kind == "emergency" else phrases.separator
            said = separator.join(line.said for line in self._lines.get(kind, ()))
            values[kind] = said or str(getattr(phrases, kind))
        named: tuple[LineKind, ...] = tuple(kind for kind in LINE_KINDS if kind in self._lines)
        shown = dict.fromkeys(("emergency", "crisis", *(named or ("child",))))
        values["help_lines"] = "\n".join(f"{phrases.labels[kind]}: {values[kind]}" for kind in shown)
        return values


def _quoted(claim: str) -> str:
    """The asker's words as text: no line breaks, invisible characters, tags or links; joiners shape words and stay."""
    seen = [each for each in " ".join(claim.split()) if unicodedata.category(each)[0] != "C" or each in "\u200c\u200d"]
    return _MADE.sub(lambda mark: _TEXT[mark[0]], "".join(seen))


def _around(parts: Sequence[tuple[str, str]], answer: GroundedAnswer) -> Reply:
    """Texts with their kinds, that of the answer empty, as one reply."""
    text, notes, shift = "", [], 0
    for kind, said in parts:
        if not said:
            continue
        text = _join(text, said)
        start = len(text) - len(said)
        if kind:
            notes.append(Note(kind, start, len(text)))
        else:
            shift = start
    moved = (
        replace(each, answer_start=each.answer_start + shift, answer_end=each.answer_end + shift)
        for each in answer.citations
    )
    return Reply(text, citations=tuple(moved), notes=tuple(notes))


def _join(*texts: str) -> str:
    return _BETWEEN.join(text for text in texts if text)


@cache
def _shipped() -> dict[str, Shipped]:
    """The shipped texts by language."""
    folder = resources.files("guard").joinpath("assets/answers")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {
        file.name.removesuffix(".yaml"): Shipped.model_validate(_read(file.read_text(encoding="utf-8")))
        for file in files
    }


@cache
def _help_lines() -> dict[str, HelpLines]:
    """The shipped help lines by country."""
    text = resources.files("guard").joinpath("assets/help_lines.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, HelpLines]).validate_python(_read(text))


def _read(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """YAML of Airlock's own, by libyaml where PyYAML has it: a tenth of the time."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
