"""The content words of a sentence, cut to stems, so that two sentences can be compared; numbers are not among them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|[\u3040-\u30ff\u3400-\u9fff]+")
_STEM = 5  # letters
_STOP = frozenset(
    "the a an of and to is are was were be been being that for with on by it its this these those from or at as has"
    " have had do does did will would shall should can could may might must not no he she they them their his her you"
    " your we our i which who der die das den dem des ein eine einen einem einer und ist sind war wird werden wurde"
    " mit von zu zum zur auf für im in am an nicht sich es sie er le la les un une des du de et est sont a au aux en"
    " dans pour sur par ne pas que qui ce cette se il elle el los las y es son no del al una para con por su lo".split()
)


def words(text: str) -> list[str]:
    """Stems in Latin and similar scripts, pairs of neighbours in Chinese and Japanese; in order."""
    found: list[str] = []
    for token in _TOKEN.findall(text):
        if "\u3040" <= token[0] <= "\u9fff":
            found += [token[i : i + 2] for i in range(len(token) - 1)] or [token]
        elif (word := token.casefold()) not in _STOP and len(word) > 1:
            found.append(_singular(word)[:_STEM])
    return found


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] not in "su" else word


def coverage(claim: Sequence[str], evidence: Sequence[str]) -> float:
    """Share of a claim's words that the evidence has, 0 to 1; 0 if it has none."""
    known = set(evidence)
    return sum(word in known for word in claim) / len(claim) if claim else 0.0
