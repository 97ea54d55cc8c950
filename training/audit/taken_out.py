"""Training with heads taken out: each row of a batch lacks heads of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from attribution.heads import Call
from attribution.types import Ablation, HeadId

# `key` is not among them: scaling one head's keys or its queries scales the same scores.
WAYS = (Ablation("query"), Ablation("value"), Ablation("mean"))


class EachWithout:
    """Attention for `attribution.heads.attention` in which every row of the batch lacks heads of its own.

    Args:
        rows: For each row of the batch the heads that it lacks, and how they are taken out.
        heads: Query heads of a layer.
    """

    def __init__(self, rows: Sequence[tuple[Collection[HeadId], Ablation]], heads: int) -> None:
        self._masks: dict[int, dict[Ablation, Tensor]] = {}
        for number, (out, ablation) in enumerate(rows):
            for layer, head in out:
                masks = self._masks.setdefault(layer, {})
                if ablation not in masks:
                    masks[ablation] = torch.zeros(len(rows), heads, 1, 1, dtype=torch.bool)
                masks[ablation][number, head] = True

    def __call__(self, call: Call) -> Tensor:
        """Outputs of all heads of one layer."""
        stock = result = call.heads()
        every = range(stock.shape[1])
        for ablation, mask in self._masks.get(call.layer, {}).items():
            result = torch.where(mask.to(stock.device), call.ablated(every, ablation, stock), result)
        return result
