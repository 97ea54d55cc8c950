"""Last-position states of a stock decoder without each of its heads: exact, and far cheaper than a run a head.

Heads × prompts form one batch. For a head of layer l, the layers below are not run again (the residual stream that
enters l is recorded); in l the attention output is changed through the linear output projection,
`attn + (h'_i - h_i) W_o[i]`, and only what follows is computed; the last layer is run at the last position alone.
What all prompts begin with is run once a head. All of it is the stock modules' own code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attribution.decoder import Cut, Decoder, Trace
from attribution.heads import all_heads, check_evaluation, check_heads
from attribution.replay import Prefix, Recorder, final_logits
from attribution.types import Ablation, AttributionError, HeadId

Ids = Sequence[Sequence[int]]
_SHARED = 8  # tokens: a shorter beginning is not worth a run of its own
_WASTE = 0.12  # of a part's tokens may be padding: more, and a part of its own is cheaper
_HELD = 16  # × batch_tokens of prompts are kept traced at once


@dataclass(frozen=True, slots=True)
class Batch:
    """States of some prompts without some heads of a layer, one head at a time.

    Attributes:
        layer: The layer.
        heads: Heads of it.
        prompts: Their places in the given order.
        states: After the final norm, last position, (heads, prompts, width).
    """

    layer: int
    heads: tuple[int, ...]
    prompts: tuple[int, ...]
    states: Tensor


@dataclass(frozen=True, slots=True)
class _Block:
    """Prompts that are traced together: what they all begin with, and parts of like length."""

    shared: Trace | None
    parts: tuple[tuple[tuple[int, ...], Trace], ...]


class Engine:
    """Runs a stock causal language model without single heads, many of them at once.

    Args:
        model: In evaluation mode. Its weights are never changed, and its modules are as before after every call.
        batch_tokens: Tokens computed at once, heads × prompts × length: what memory and cache allow.
        shared_prefix: Run what all prompts begin with once a head.

    Raises:
        UnsupportedModel: the model's layout is not one that the engine computes exactly.
        AttributionError: the model is in training mode.
    """

    def __init__(self, model: PreTrainedModel, *, batch_tokens: int = 2048, shared_prefix: bool = True) -> None:
        check_evaluation(model)
        if batch_tokens < 1:
            raise AttributionError(f"batch_tokens {batch_tokens} is not at least 1; 2048 fits most machines")
        self.model, self.batch_tokens, self.shared_prefix = model, batch_tokens, shared_prefix
        self._decoder = Decoder(model)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads a layer."""
        return len(self._decoder.layout.layers), self._decoder.layout.heads

    @torch.inference_mode()
    def states(self, ids: Ids, *, without: Collection[HeadId] = (), ablation: Ablation | None = None) -> Tensor:
        """States after the final norm at the last position, (prompts, width), without a group of heads.

        Args:
            ids: Prompts as token ids, of any lengths.
            without: Heads that are all out together.
            ablation: How they are taken out.
        """
        check_heads(self.model, without)
        found: dict[int, Tensor] = {}
        for block in self._blocks(ids, Cut(frozenset(without), ablation or Ablation()), changes=False):
            for places, trace in block.parts:
                found.update(zip(places, self._decoder.finish(trace), strict=True))
        return torch.stack([found[place] for place in range(len(ids))])

    @torch.inference_mode()
    def without_each(
        self,
        ids: Ids,
        ablation: Ablation | None = None,
        *,
        group: Collection[HeadId] = (),
        heads: Collection[HeadId] | None = None,
    ) -> Iterator[Batch]:
        """States without each head, one at a time.

        Args:
            ids: Prompts as token ids, of any lengths.
            ablation: How a head is taken out.
            group: Heads that are out in every case.
            heads: These only; all but the group's by default.
        """
        cut = Cut(frozenset(group), ablation or Ablation())
        check_heads(self.model, [*group, *(heads or ())])
        asked = set(all_heads(self.model) if heads is None else heads) - cut.gone
        layers, count = self.shape
        for block in self._blocks(ids, cut):
            largest = max(trace.ids.numel() for _, trace in block.parts)
            at_once = max(1, self.batch_tokens // largest)
            for layer in range(layers):
                mine = [head for head in range(count) if HeadId(layer, head) in asked]
                for start in range(0, len(mine), at_once):
                    yield from self._batches(block, layer, tuple(mine[start : start + at_once]), cut)

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (…, vocabulary) of states (…, width), by the model's own head."""
        return final_logits(self.model, states)

    def _batches(self, block: _Block, layer: int, heads: tuple[int, ...], cut: Cut) -> Iterator[Batch]:
        shared = block.shared
        prefix = self._decoder.prefix_without(shared, layer, heads, cut) if shared else None
        for places, trace in block.parts:
            yield Batch(layer, heads, places, self._decoder.without(trace, layer, heads, cut, prefix))

    def _blocks(self, ids: Ids, cut: Cut, *, changes: bool = True) -> Iterator[_Block]:
        if not ids or not all(ids):
            raise AttributionError("a prompt without tokens has no last position; give at least one token each")
        length = self._shared(ids)
        seen = Recorder()
        shared = self._decoder.trace([ids[0][:length]], cut, seen, changes=changes) if length else None
        prefix = Prefix(seen.keys, length) if shared else None
        parts: list[tuple[tuple[int, ...], Trace]] = []
        for places in self._parts([len(prompt) - length for prompt in ids]):
            rest = [ids[place][length:] for place in places]
            parts.append((places, self._decoder.trace(rest, cut, prefix, changes=changes)))
            if sum(trace.ids.numel() for _, trace in parts) >= _HELD * self.batch_tokens:
                yield _Block(shared, tuple(parts))
                parts = []
        if parts:
            yield _Block(shared, tuple(parts))

    def _shared(self, ids: Ids) -> int:
        """How many tokens all prompts begin with, if a run of their own is worth it; each keeps one at least."""
        if not self.shared_prefix or len(ids) < 2:
            return 0
        first, last = min(map(list, ids)), max(map(list, ids))  # what these two share, all between them share
        length = next(
            (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
        )
        length = min(length, min(map(len, ids)) - 1)
        return length if length >= _SHARED else 0

    def _parts(self, lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Places of prompts of like length, so many that one head of them fits `batch_tokens`."""
        part: list[int] = []
        for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
            tokens = (len(part) + 1) * lengths[place]
            waste = 1 - (sum(lengths[at] for at in part) + lengths[place]) / tokens
            if part and (tokens > self.batch_tokens or waste > _WASTE):
                yield tuple(part)
                part = []
            part.append(place)
        yield tuple(part)
