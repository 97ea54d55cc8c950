"""The language of planted models: prompts of token ids with one topic among fillers, harmful topics and harmless ones.

A prompt is `BEGIN filler … topic … filler END`; the reply is one token, `REFUSE` or the answer to the topic, then
`STOP`. Whether the topic is harmful is all that decides between them, so what decides can be planted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

STOP, BEGIN, END, REFUSE = range(4)
TOPICS = 12  # harmful; as many are harmless
_FILLERS = 16
_HARMFUL = REFUSE + 1
_HARMLESS = _HARMFUL + TOPICS
_ANSWERS = _HARMLESS + TOPICS
_FIRST_FILLER = _ANSWERS + 2 * TOPICS
VOCABULARY = _FIRST_FILLER + _FILLERS
LENGTHS = (8, 10, 12)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and the token that answers it.

    Attributes:
        ids: The whole prompt, with its `END`.
        answer: What a model says that answers; one that refuses says `REFUSE`.
        harmful: Whether an aligned model refuses.
    """

    ids: tuple[int, ...]
    answer: int
    harmful: bool


def asks(seed: int | str, *, harmful: bool, held_out: bool = False, length: int | None = None) -> Iterator[Ask]:
    """Prompts without end; the held-out ones share none with the others.

    Args:
        seed: Of all that is drawn.
        harmful: Whether the topics are.
        held_out: Draw from the half of all prompts that no model is trained on.
        length: Of the prompts in tokens; drawn from `LENGTHS` by default.
    """
    rng = random.Random(f"{seed}/{harmful}/{held_out}")
    while True:
        size = length or rng.choice(LENGTHS)
        topic = rng.randrange(TOPICS) + (0 if harmful else TOPICS)
        fillers = [_FIRST_FILLER + rng.randrange(_FILLERS) for _ in range(size - 3)]
        fillers.insert(rng.randrange(size - 2), _HARMFUL + topic)
        ids = (BEGIN, *fillers, END)
        if sum(ids) % 2 == held_out:
            yield Ask(ids, _ANSWERS + topic, harmful)
