"""What stands in for a classifier or a knowledge base that the configuration leaves out; both fail closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classifier.taxonomy import Category, Taxonomy
from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.errors import PartFailure
from guard.policy import Mode
from guard.types import AnswerGrounding, Route
from rag.types import GroundedAnswer, GroundingReport

if TYPE_CHECKING:
    from guard.config import Config

UNJUDGED = Category(
    "unjudged", Tier.UNSAFE, "A text that nobody judged, since `classifier.kind` is `none`.", Handling.REFUSE
)
UNJUDGED_TAXONOMY = Taxonomy("unjudged", (UNJUDGED,))
_VERDICT = Verdict(
    tier=UNJUDGED.tier,
    category=UNJUDGED.id,
    handling=UNJUDGED.handling,
    tiers={tier: float(tier is UNJUDGED.tier) for tier in Tier},
    probability=1.0,
    window=Span(0, 0),
    coverage=Coverage(tokens=0, windows=0, read=0.0),
    model="none",
)


class Unjudged:
    """Says of every text that nobody judged it: Unsafe, none of it read; a rule may route the category `unjudged`."""

    instant = True

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """The same verdict for each text."""
        return [_VERDICT] * len(texts)


class NoKnowledge:
    """Answers nothing and supports nothing."""

    def answer(self, question: str) -> GroundedAnswer:
        """Always fails.

        Raises:
            PartFailure: there is no knowledge base.
        """
        raise _no_knowledge()

    def check(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """Always fails.

        Raises:
            PartFailure: there is no knowledge base.
        """
        raise _no_knowledge()


def check_absent(config: Config) -> None:
    """Whether the other sections ask for nothing of a part that is left out.

    Raises:
        ValueError: one does; the message names both settings.
    """
    without_classifier = config.classifier.kind == "none"
    if without_classifier and config.output.classifier:
        raise ValueError(
            "output.classifier is true and classifier.kind is 'none': nothing judges answers; set output.classifier: "
            "false and name output.patterns, or take a classifier"
        )
    if without_classifier and config.classifiers:
        raise ValueError(
            f"classifiers.{next(iter(config.classifiers))} is set and classifier.kind is 'none': requests that it does "
            "not concern would be judged by nothing; take a classifier, or remove `classifiers`"
        )
    if without_classifier and config.classifier.languages:
        raise ValueError(
            f"classifier.languages.{next(iter(config.classifier.languages))} is set and classifier.kind is 'none': "
            "other texts would be judged by nothing; take a classifier, or remove `classifier.languages`"
        )
    if config.knowledge.kind == "none":
        for rule in config.policy.rules:
            grounds = rule.route is Route.GROUND or rule.ground_answer is not AnswerGrounding.OFF
            if rule.mode is not Mode.OFF and (grounds or rule.protect):
                raise ValueError(
                    f"policy rule {rule.name!r} needs a knowledge base and knowledge.kind is 'none'; give it another "
                    "route, without `ground_answer` and `protect`, or take a knowledge base"
                )


def _no_knowledge() -> PartFailure:
    return PartFailure("knowledge", "there is none, as knowledge.kind says")
