"""The words of a window, each as the tokens that it is read in; where a script writes no blanks, a token is a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from classifier.lettering import UNPARTED

_WORD = regex.compile(
    rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNPARTED}]](?:['’\-_]?[[\p{{L}}\p{{M}}\p{{N}}]--[{UNPARTED}]])*", regex.V1
)
_SAYS = regex.compile(r"[\p{L}\p{N}\p{S}]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a mark between words.

    Attributes:
        start: its first character in the text.
        end: the character after its last.
        tokens: places of its tokens in the window, consecutive.
        says: whether it is more than punctuation.
    """

    start: int
    end: int
    tokens: tuple[int, ...]
    says: bool


def words(text: str, offsets: Sequence[tuple[int, int]]) -> list[Word]:
    """The words of a window, in order; each of its tokens is in one of them.

    Args:
        text: the reading that the window is from.
        offsets: characters of each of the window's tokens.
    """
    groups: dict[int, list[int]] = {}
    for place, key in enumerate(_keys(text, offsets)):
        groups.setdefault(key, []).append(place)
    return [_word(text, offsets, places) for places in groups.values()]


def _keys(text: str, offsets: Sequence[tuple[int, int]]) -> Iterator[int]:
    """For each token the place of the first token of its word."""
    ends = {at: match.end() for match in _WORD.finditer(text) for at in range(match.start(), match.end())}
    key, until = 0, -1
    for place, (start, end) in enumerate(offsets):
        inside = [at for at in range(start, end) if at in ends]
        if not (inside and inside[0] < until):
            key = place
        until = max(until, ends[inside[-1]]) if inside else until
        yield key


def _word(text: str, offsets: Sequence[tuple[int, int]], places: Sequence[int]) -> Word:
    start, end = offsets[places[0]][0], offsets[places[-1]][1]
    said = text[start:end]
    start += len(said) - len(said.lstrip())
    end = max(start, end - (len(said) - len(said.rstrip())))
    return Word(start, end, tuple(places), _SAYS.search(said) is not None)
