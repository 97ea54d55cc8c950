"""The texts that Airlock says in place of the model, by category; shipped in `assets/answers.yaml`, replaceable."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

from guard.config import Answers, Texts
from guard.types import Decision


class AnswerTexts:
    """Looks up a text: the rule's, the operator's for the category, the shipped one for it, then the defaults.

    Args:
        own: the operator's texts.
        says: texts of policy rules, by the rule's name.
    """

    def __init__(self, own: Answers | None = None, says: Mapping[str, str] | None = None) -> None:
        self._says = says or {}
        self._layers = [answers for answers in (own, _shipped()) if answers is not None]

    def text(self, kind: str, decision: Decision) -> str:
        """The text of a kind (`refuse`, `hand_over`, `abstain`, `stopped`) for a decision."""
        if kind in ("refuse", "hand_over") and decision.rule in self._says:
            return self._says[decision.rule]
        category = decision.verdict.category if decision.verdict else None
        for layer in self._layers:
            found = getattr(layer.categories.get(category or "", Texts()), kind)
            if found:
                return str(found)
        return next(str(text) for layer in self._layers if (text := getattr(layer.default, kind)))

    @property
    def refusals(self) -> frozenset[str]:
        """Every text that a refused request may be answered with."""
        layers = [texts for layer in self._layers for texts in (layer.default, *layer.categories.values())]
        return frozenset(text.strip() for text in (*self._says.values(), *(t.refuse for t in layers)) if text)


@cache
def _shipped() -> Answers:
    text = resources.files("guard").joinpath("assets/answers.yaml").read_text(encoding="utf-8")
    return Answers.model_validate(yaml.safe_load(text))
