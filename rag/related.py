"""Where nothing answers for sure: what the document that stands out among those found says on the topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.interpret import InterpretationModel
from rag.types import Evidence

AROUND = 20  # passages among which a document may stand out
RELATED_FROM = 0.36  # similarity of a sentence from which it is on the topic, measured on ``data/questions``


@dataclass(frozen=True, slots=True)
class Related:
    """Finds the document on the topic of a question; what it says is quoted as no more than that.

    That a document is near does not tell that it is on the topic: of neighbours, each is near. One that is nearer than
    every other nearly always is (see ``docs/log.md``).

    Attributes:
        interpreter: chooses its sentences, and finds them too far from the question or not; asks less of them than
            the one that answers.
        lead: how far the similarity of its best passage is above that of any other document's.
        lead_with_asks: the same of a document with asks, none of which was near enough for a sure answer.
    """

    interpreter: InterpretationModel
    lead: float = 0.05
    lead_with_asks: float = 0.0725

    def of(self, found: Sequence[Evidence]) -> list[Evidence]:
        """The passages of the document that stands out; none where none does.

        Args:
            found: what was found for the question, some `AROUND` passages.
        """
        if not found:
            return []
        best = max(found, key=lambda item: item.score)
        others = [item.score for item in found if item.passage.document != best.passage.document]
        lead = self.lead if best.asked is None else self.lead_with_asks
        if best.score <= 0.0 or best.score - max([*others, 0.0]) < lead:
            return []
        return [item for item in found if item.passage.document == best.passage.document]
