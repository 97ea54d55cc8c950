"""The ways in which a text is read: as it stands, without its emoji, and what stands encoded in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from classifier.decoding import decoded
from classifier.normalize import decorated, is_symbol, normalize

READING = 3
"""Number of the way in which texts are read: another one where some text gets other readings or windows."""

Split = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a text, as tokens.

    Attributes:
        text: what the tokens stand for: the normalized text, or what it says once it is decoded.
        ids: token ids, no special ones among them.
        offsets: each token's characters in `text`.
        encoded: whether `text` stands encoded in the text that was given.
    """

    text: str
    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]
    encoded: bool = False


def readings(text: str, split: Split) -> Iterator[Reading]:
    """Every reading, the normalized text as it stands first; the riskiest of them counts.

    Args:
        text: as written.
        split: ids and offsets of a text, as `classifier.runtime.Tokenizer.split` gives them.
    """
    plain = normalize(text)
    first = _reading(plain, split)
    yield first
    if decorated(plain):
        words = [at for at, (start, end) in enumerate(first.offsets) if not is_symbol(plain[start:end])]
        yield Reading(plain, [first.ids[at] for at in words], [first.offsets[at] for at in words])
    for hidden in map(normalize, decoded(text)):
        yield _reading(hidden, split, encoded=True)


def _reading(text: str, split: Split, *, encoded: bool = False) -> Reading:
    return Reading(text, *split(text), encoded)
