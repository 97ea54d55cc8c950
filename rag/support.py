"""The support model: whether a passage supports a claim, contradicts it, or does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rag.pairs import Base, Pair, PairReader, Task, logits, room
from rag.types import Support

SHIPPED = Path(__file__).parent / "assets" / "support-minilm"
SHIPPED_LARGE = Path(__file__).parent / "assets" / "support-mpnet"  # on an encoder that has to be fetched
SUPPORTED, CONTRADICTED, NOT_STATED = range(3)  # outputs of the head
CLAIM = 1  # the span that is judged


class SupportReader(PairReader):
    """Pairs of passage and claim in, judgements out; an `rag.types.SupportModel`.

    A passage that is longer than a window is read in several, which overlap by a quarter. The window that says most
    about the claim decides: the one where *not stated* is least likely. A claim is read up to half a window.
    """

    task: ClassVar[Task] = "support"

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[Support]:
        """One judgement for each pair of passage and claim, in order."""
        windows = [support_windows(self._base, *pair, self.settings.window) for pair in pairs]
        found = logits(self.model, self._base, [window for each in windows for window in each], self._batch)
        judged = []
        for each in windows:
            probabilities = [next(found)[CLAIM].softmax(-1).tolist() for _ in each]
            decisive = min(probabilities, key=lambda values: values[NOT_STATED])
            judged.append(Support(decisive[SUPPORTED], decisive[CONTRADICTED], decisive[NOT_STATED]))
        return judged


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
