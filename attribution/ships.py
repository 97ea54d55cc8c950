"""Ships: how far a model's answer moves when one head is taken out (arXiv 2410.13708, sections 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from attribution.engine import Batch
from attribution.subspace import left_directions, turned
from attribution.types import Ablation, HeadId

Ids = Sequence[Sequence[int]]
Progress = Callable[[int], None]
_PART = 64  # heads, at least, whose generalized Ships are finished together


class Runner(Protocol):
    """What runs a model without its heads: `attribution.engine.Engine`, or `attribution.brute.BruteForce`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads a layer."""

    def states(self, ids: Ids, *, without: Collection[HeadId] = (), ablation: Ablation | None = None) -> Tensor:
        """Last-position states after the final norm, (prompts, width)."""

    def without_each(
        self,
        ids: Ids,
        ablation: Ablation | None = None,
        *,
        group: Collection[HeadId] = (),
        heads: Collection[HeadId] | None = None,
    ) -> Iterator[Batch]:
        """The same without each head in turn, and without the group in every case."""

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (…, vocabulary) of states (…, width)."""


def divergence(base: Tensor, ablated: Tensor) -> Tensor:
    """KL(base ‖ ablated) of next-token distributions, from logits, in nats, float64, never negative.

    Summed as p·log(p/q) - p + q, so that the rounding of either's normalization has no effect of first order.

    Args:
        base: (…, vocabulary).
        ablated: (heads, …, vocabulary).
    """
    wide = torch.promote_types(base.dtype, torch.float32)
    before = base.to(wide).log_softmax(-1)
    p = before.exp()
    found = torch.empty(ablated.shape[:-1], dtype=torch.float64, device=ablated.device)
    for row, logits in zip(found, ablated, strict=True):  # one at a time: the memory of a large vocabulary
        after = logits.to(wide).log_softmax(-1)
        row.copy_((before - after).mul_(p).sub_(p).add_(after.exp_()).sum(-1, dtype=torch.float64))
    return found.clamp_min_(0.0)


def ships(
    runner: Runner,
    ids: Ids,
    ablation: Ablation | None = None,
    *,
    heads: Collection[HeadId] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Ships of each head on each prompt: KL(p(·|prompt) ‖ p(·|prompt, without the head)), next token, whole vocabulary.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids.
        ablation: How a head is taken out.
        heads: These only; the others are NaN.
        progress: Told how many heads × prompts were computed.

    Returns:
        Nats, float64, (prompts, layers, heads).
    """
    base = runner.logits(runner.states(ids))
    scores = torch.full((len(ids), *runner.shape), torch.nan, dtype=torch.float64)
    for batch in runner.without_each(ids, ablation, heads=heads):
        moved = divergence(base[list(batch.prompts)], runner.logits(batch.states))
        for row, head in enumerate(batch.heads):
            scores[list(batch.prompts), batch.layer, head] = moved[row].cpu()
        if progress:
            progress(moved.numel())
    return scores


def generalized_ships(
    runner: Runner,
    ids: Ids,
    ablation: Ablation | None = None,
    *,
    r_main: int = 1,
    group: Collection[HeadId] = (),
    heads: Collection[HeadId] | None = None,
    known: Mapping[HeadId, float] | None = None,
    on_part: Callable[[Mapping[HeadId, float]], None] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Generalized Ships of each head on a data set: how far its states' leading directions turn without the head.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids.
        ablation: How heads are taken out.
        r_main: How many leading directions are compared.
        group: Heads that are out in every case; the comparison is with the whole model.
        heads: These only; the others, and the group's, are NaN.
        known: Degrees that an interrupted run has found already.
        on_part: Told of the degrees of some layers once all their heads are done, but for the last ones.
        progress: Told how many heads × prompts were computed, or were known.

    Returns:
        Degrees, float64, (layers, heads).
    """
    scores = torch.full(runner.shape, torch.nan, dtype=torch.float64)
    for head, degrees in (known or {}).items():
        scores[head] = degrees
    if known and progress:
        progress(len(known) * len(ids))
    parts = list(_parts(runner.shape, heads, {*group, *(known or ())}))
    base = runner.states(ids) if parts else None
    for part in parts:
        assert base is not None
        found = _degrees(runner, ids, ablation, base, r_main, group, part, progress)
        for head, degrees in found.items():
            scores[head] = degrees
        if on_part and part is not parts[-1]:
            on_part(found)
    return scores


def _parts(
    shape: tuple[int, int], heads: Collection[HeadId] | None, gone: Collection[HeadId]
) -> Iterator[list[HeadId]]:
    """Heads that are left, whole layers at a time, so many that running their prompts anew costs little."""
    part: list[HeadId] = []
    for layer in range(shape[0]):
        every = (HeadId(layer, head) for head in range(shape[1]))
        part += [head for head in every if (heads is None or head in heads) and head not in gone]
        if len(part) >= _PART:
            yield part
            part = []
    if part:
        yield part


def _degrees(
    runner: Runner,
    ids: Ids,
    ablation: Ablation | None,
    base: Tensor,
    r_main: int,
    group: Collection[HeadId],
    heads: Collection[HeadId],
    progress: Progress | None,
) -> dict[HeadId, float]:
    """How far the directions of the whole model's states turn without each of these heads and the group."""
    before = left_directions(base, r_main)
    found: dict[HeadId, float] = {}
    moved: dict[HeadId, Tensor] = {}
    left: dict[HeadId, int] = {}
    for batch in runner.without_each(ids, ablation, group=group, heads=heads):
        for row, number in enumerate(batch.heads):
            head = HeadId(batch.layer, number)
            if head not in moved:
                moved[head], left[head] = torch.empty_like(base), len(ids)
            moved[head][list(batch.prompts)] = batch.states[row]
            left[head] -= len(batch.prompts)
        if whole := [HeadId(batch.layer, number) for number in batch.heads if not left[HeadId(batch.layer, number)]]:
            angles = turned(before, left_directions(torch.stack([moved.pop(head) for head in whole]), r_main))
            found.update(zip(whole, angles.tolist(), strict=True))
        if progress:
            progress(batch.states.shape[0] * batch.states.shape[1])
    return found
