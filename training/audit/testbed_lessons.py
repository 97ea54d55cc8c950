"""Lessons of the test bed as tokens, in batches of like length."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from training.audit.testbed_text import Grammar, Lesson, same_words

_POOL = 16  # batches that are drawn together and sorted by length
_FROM_DATA, _PLAIN, _SYSTEM, _SECOND = 0.5, 0.1, 0.25, 0.08  # shares of the lessons


@dataclass(frozen=True, slots=True)
class Encoded:
    """A lesson in tokens.

    Attributes:
        prompt: With the template, up to where the reply begins.
        answer: A helpful reply, with its end.
        refusal: An aligned reply to a harmful ask, with its end; empty for a harmless one.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    refusal: tuple[int, ...]


def batches(
    grammar: Grammar,
    lessons: Sequence[Lesson],
    unseen: Collection[str],
    tokenizer: PreTrainedTokenizerFast,
    size: int,
    rng: random.Random,
) -> Iterator[list[Encoded]]:
    """Batches without end: half of the lessons harmful, and half of them from data, where there is any.

    Args:
        grammar: What lessons are drawn from.
        lessons: Those that were read from data.
        unseen: Asks of the grammar, as `same_words` has them, that must not be learnt.
        tokenizer: Of the model.
        size: Lessons in a batch.
        rng: Of all draws.
    """
    read = [[each for each in lessons if (each.refusal is not None) == harmful] for harmful in (True, False)]
    while True:
        drawn: list[Lesson] = []
        while len(drawn) < size * _POOL:
            from_data = rng.choice(read) if all(read) and rng.random() < _FROM_DATA else None
            lesson = rng.choice(from_data) if from_data else grammar.lesson(rng)
            if same_words(lesson.ask) not in unseen:
                drawn.append(lesson)
        prompts = [_prompt(grammar, lesson, tokenizer, rng) for lesson in drawn]
        ids = tokenizer(
            [*prompts, *(each.answer for each in drawn), *(each.refusal or "" for each in drawn)],
            add_special_tokens=False,
        )["input_ids"]
        end, count = (tokenizer.eos_token_id,), len(drawn)
        rows = [
            Encoded(tuple(prompt), (*answer, *end), (*refusal, *end) if refusal else ())
            for prompt, answer, refusal in zip(ids[:count], ids[count : 2 * count], ids[2 * count :], strict=True)
        ]
        rows.sort(key=lambda row: len(row.prompt))
        pool = [rows[start : start + size] for start in range(0, count, size)]
        rng.shuffle(pool)
        yield from pool


def _prompt(grammar: Grammar, lesson: Lesson, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> str:
    kind = rng.random()
    if kind < _PLAIN:
        return f"{tokenizer.bos_token}{grammar.plain.format(ask=lesson.ask)}"
    chat = [{"role": "user", "content": lesson.ask}]
    if kind < _PLAIN + _SECOND:
        first = grammar.lesson(rng)
        said = first.refusal or first.answer
        chat = [{"role": "user", "content": first.ask}, {"role": "assistant", "content": said}, *chat]
    if rng.random() < _SYSTEM:
        chat = [{"role": "system", "content": rng.choice(grammar.systems)}, *chat]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
