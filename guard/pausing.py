"""A support model that can be stopped: an answer of thousands of short sentences takes it an hour."""

from __future__ import annotations

from collections.abc import Sequence

from classifier.pace import pause
from rag.types import Support, SupportModel

PAIRS = 16  # of a slice; a few seconds of a core


class PausingSupport:
    """Hands pairs to a model in slices of like lengths, and pauses in between; an `rag.types.SupportModel`.

    Args:
        model: judges the pairs.
    """

    def __init__(self, model: SupportModel) -> None:
        self._model = model

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[Support]:
        """One judgement for each pair of passage and claim, in order."""
        order = sorted(range(len(pairs)), key=lambda at: len(pairs[at][0]) + len(pairs[at][1]))
        found: dict[int, Support] = {}
        for start in range(0, len(order), PAIRS):
            if start:
                pause(1 - start / len(order))
            indices = order[start : start + PAIRS]
            judged = self._model.support([pairs[at] for at in indices])
            found.update(zip(indices, judged, strict=True))
        return [found[at] for at in range(len(pairs))]
