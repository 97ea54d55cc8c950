"""Which words of a sentence each of its facts belongs to, as in "adults take 500 mg and children 250 mg"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations, pairwise

from rag.facts.words import words

Found = tuple[int, str, Hashable]  # where a fact starts, how it is written, what it says

_AND = "(?:and|but|while|whereas|or|und|aber|während|oder|et|mais|tandis que|ou|y|pero|mientras|o)"
_JOIN = re.compile(rf"\s?[,;]\s?(?:{_AND}\s|[而但])?|\s{_AND}\s|[、和而但]", re.IGNORECASE)
_RESPECTIVELY = re.compile(
    r",?\s?(?<!\w)(?:respectively|jeweils|respectivement|respectivamente)(?!\w)|分[别別]|それぞれ", re.IGNORECASE
)


def exchanged(claim: str, said: Sequence[Found], evidence: str, known: Sequence[Found]) -> bool:
    """Whether two facts of one kind have each other's words in a claim.

    Args:
        claim: normalised.
        said: its facts of the kind, in order.
        evidence: normalised.
        known: its facts of the kind, in order.
    """
    mine, theirs = _shares(claim, said), _shares(evidence, known)
    for left, right in combinations([fact for fact in mine if fact in theirs], 2):
        crossed = mine[left] & theirs[right] and mine[right] & theirs[left]
        if crossed and not (mine[left] & theirs[left] and mine[right] & theirs[right]):
            return True
    return False


def _shares(text: str, found: Sequence[Found]) -> dict[Hashable, set[str]]:
    """For each fact the words and digits that belong to no other; empty where the sentence does not tell."""
    facts = [fact for _, _, fact in found]
    parts = _parts(text, found)
    if len(parts) != len(facts) or len(set(facts)) < len(facts):
        return {}
    shares = [{*words(part), *re.findall(r"\d+", part)} for part in parts]
    often = Counter(word for share in shares for word in share)
    return {fact: {word for word in share if often[word] == 1} for fact, share in zip(facts, shares, strict=True)}


def _parts(text: str, found: Sequence[Found]) -> list[str]:
    """The part of the sentence around each fact, without the fact; empty if it cannot be told."""
    if len(found) < 2:
        return []
    spans = []
    for (start, written, _), after in zip(found, [*(start for start, _, _ in found[1:]), len(text)], strict=True):
        shares_unit = start + len(written) > after  # as the first of "5 and 2 mg" does
        spans.append((start, start + len(written.split()[0] if shares_unit else written)))
    between = [(left[1], right[0]) for left, right in pairwise(spans)]
    if _RESPECTIVELY.search(text):
        if not all(_JOIN.fullmatch(text, *gap) for gap in between):
            return []
        sides = [_JOIN.split(_RESPECTIVELY.sub("", side)) for side in (text[: spans[0][0]], text[spans[-1][1] :])]
        return next((side for side in sides if len(side) == len(spans)), [])
    joins = [list(_JOIN.finditer(text, *gap)) for gap in between]
    if any(len(join) != 1 for join in joins):
        return []
    starts = [0, *(join[0].end() for join in joins)]
    ends = [*(join[0].start() for join in joins), len(text)]
    return [
        f"{text[start : span[0]]} {text[span[1] : end]}" for start, span, end in zip(starts, spans, ends, strict=True)
    ]
