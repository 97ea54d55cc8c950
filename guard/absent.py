"""What stands in for a classifier or a knowledge base that the configuration leaves out; both fail closed."""

from __future__ import annotations

from collections.abc import Sequence

from classifier.taxonomy import Category, Taxonomy
from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.errors import PartFailure
from rag.types import GroundedAnswer, GroundingReport

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


def _no_knowledge() -> PartFailure:
    return PartFailure("knowledge", "there is none, as knowledge.kind says")
