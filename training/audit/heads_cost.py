"""What an audit of heads will take, by timing a small part of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attribution.audit import Plan, check_plan, singles, work
from attribution.checkpoint import Checkpoint
from attribution.screen import estimate
from attribution.ships import Runner
from attribution.types import Ablation, HeadId


@dataclass(frozen=True, slots=True)
class Cost:
    """What an audit will take, by timing a small part of it.

    Attributes:
        seconds: Of the screen's estimate, Ships and Sahara.
        forwards: Heads × prompts.
        bytes: Of memory beside the weights, at most about.
    """

    seconds: float
    forwards: int
    bytes: int


def cost(
    engine: Runner,
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    plan: Plan,
    batch_tokens: int,
    *,
    templates: int = 1,
    beside: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Time the heads of a few layers on a few prompts, and the screen's estimate on one, and multiply.

    Args:
        engine: What will run the model.
        checkpoint: The model.
        ids: Prompts as token ids.
        plan: What will be computed.
        batch_tokens: Of the engine.
        templates: In how many Ships are computed.
        beside: Harmless prompts on which they are computed too.
        clock: What seconds are read from.

    Raises:
        AttributionError: a plan that the model cannot have.
        UnsupportedModel: a screen that it cannot have.
    """
    check_plan(engine, ids, plan)
    layers, heads = engine.shape
    some = sorted(ids, key=len)[len(ids) // 2 :][:4]
    picked = sorted({0, layers // 2, layers - 1})
    list(engine.without_each(some[:1], plan.ablation, heads=[HeadId(picked[-1], 0)]))  # warm
    chosen = [HeadId(layer, head) for layer in picked for head in range(heads)]
    begun = clock()
    for batch in engine.without_each(some, plan.ablation, heads=chosen):
        engine.logits(batch.states)
    tokens = sum(map(len, some)) * len(chosen)
    mean_length = sum(map(len, ids)) / len(ids)
    more = (templates - 1) * len(ids) + beside
    forwards = work(engine.shape, len(ids), plan) + more * singles(engine.shape, plan)
    seconds = (clock() - begun) / tokens * mean_length * forwards
    if plan.screen is not None:
        seconds += _screen_seconds(checkpoint, ids, plan.ablation, batch_tokens, clock)
    config: Any = checkpoint.model.config.get_text_config(decoder=True)
    each = 3 * layers * int(config.hidden_size)
    held = min(sum(map(len, ids)), 16 * batch_tokens) * each + batch_tokens * (config.hidden_size * 16)
    return Cost(seconds, forwards, held * checkpoint.model.dtype.itemsize)


def _screen_seconds(
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    ablation: Ablation,
    batch_tokens: int,
    clock: Callable[[], float],
) -> float:
    """What the screen's estimate takes: so much a batch, which holds prompts of one length, and so much a token."""
    row = sorted(ids, key=len)[len(ids) // 2]

    def timed(count: int) -> float:
        begun = clock()
        estimate(checkpoint.model, [row] * count, ablation, batch_tokens=batch_tokens)
        return clock() - begun

    timed(1)  # warm
    alone, together = timed(1), timed(4)
    each = min(max(together - alone, 0.0) / 3, alone)
    batches = sum(math.ceil(count / max(1, batch_tokens // length)) for length, count in Counter(map(len, ids)).items())
    return (alone - each) * batches + each / len(row) * sum(map(len, ids))
