"""The support model: whether a passage supports a claim, contradicts it, or does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rag.pairs import Base, Pair, PairReader, Task, logits, room
from rag.segments import segments
from rag.types import Support

SHIPPED = Path(__file__).parent / "assets" / "support-minilm"
SHIPPED_LARGE = Path(__file__).parent / "assets" / "support-mpnet"  # on an encoder that has to be fetched
SUPPORTED, CONTRADICTED, NOT_STATED = range(3)  # outputs of the head
CLAIM = 1  # the span that is judged


class SupportReader(PairReader):
    """Pairs of passage and claim in, judgements out; an `rag.types.SupportModel`.

    A claim of several sentences holds if each does, and is contradicted if one is. A sentence is read up to half a
    window. A passage that is longer than a window is read in several, which overlap by a quarter, and the one
    that says most about the sentence decides: where *not stated* is least likely.
    """

    task: ClassVar[Task] = "support"

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[Support]:
        """One judgement for each pair of passage and claim, in order."""
        windows = [
            [support_windows(self._base, passage, said, self.settings.window) for said in claim_sentences(claim)]
            for passage, claim in pairs
        ]
        read = [window for claim in windows for sentence in claim for window in sentence]
        found = logits(self.model, self._base, read, self._batch)
        judged = []
        for claim in windows:
            probabilities = [[next(found)[CLAIM].softmax(-1).tolist() for _ in sentence] for sentence in claim]
            decisive = [min(sentence, key=lambda values: values[NOT_STATED]) for sentence in probabilities]
            supported = min(values[SUPPORTED] for values in decisive)
            contradicted = max(values[CONTRADICTED] for values in decisive)
            judged.append(Support(supported, contradicted, max(0.0, 1 - supported - contradicted)))
        return judged


def claim_sentences(claim: str) -> list[str]:
    """The sentences of a claim; the claim itself if it has one at most."""
    found = segments(claim)
    return [claim[each.start : each.end] for each in found] if len(found) > 1 else [claim]


def support_windows(base: Base, passage: str, claim: str, window: int) -> list[Pair]:
    """The windows of a passage, each with the claim; at least one."""
    size = room(base, window)
    said, asked = base.tokenize([passage, claim])["input_ids"]
    asked = asked[: size // 2] or [base.tokenizer.pad_token_id]  # the span has a token, also that of an odd claim
    left = size - len(asked)
    starts = [0]
    while starts[-1] + left < len(said):
        starts.append(min(starts[-1] + left - left // 4, len(said) - left))
    return [Pair(said[start : start + left], asked, [CLAIM] * len(asked)) for start in starts]
