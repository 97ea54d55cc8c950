"""Cut the tokens of a text into overlapping windows, so that a model with a short memory reads every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from classifier.types import Span


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive tokens of one text.

    Attributes:
        ids: token ids, without the model's special tokens.
        span: the characters they stand for.
        start: which token of the text the first one is.
    """

    ids: tuple[int, ...]
    span: Span
    start: int = 0


def windows(ids: Sequence[int], offsets: Sequence[tuple[int, int]], *, size: int, overlap: int) -> Iterator[Window]:
    """Cut `ids` into windows of at most `size` tokens, each sharing `overlap` tokens with the one before.

    The last window is filled from the left, so that a short rest is still read with its context. No ids give one
    empty window, so that every text has a verdict.

    Args:
        ids: the text's token ids, shape ``(tokens,)``.
        offsets: each token's character range.
        size: tokens in a window, at least 1.
        overlap: tokens shared by neighbours, 0 to ``size - 1``.

    Raises:
        ValueError: `size` or `overlap` is out of range.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f"window size {size} with overlap {overlap}: need size >= 1 and 0 <= overlap < size")
    if not ids:
        yield Window((), Span(0, 0))
        return
    start = 0
    while True:
        end = min(start + size, len(ids))
        start = max(0, min(start, end - size))
        yield Window(tuple(ids[start:end]), Span(offsets[start][0], offsets[end - 1][1]), start)
        if end == len(ids):
            return
        start = end - overlap
