"""Attention-head dropout: in some rows of a batch each head is dropped at random, by its output or by its attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.heads import Call
from attribution.types import Ablation

_QUERY = Ablation("query")


class HeadDropout:
    """Attention for `attribution.heads.attention` in which every chosen row of the batch drops heads of its own.

    A row drops in one of two ways. *Output*: the head's output before the output projection is 0, and that of a head
    that stays is scaled by 1/(1 − p). *Query*: the head attends without distinction, a running mean of the values;
    nothing is scaled, for nothing is missing. Rows that are not chosen are as the stock model computes them.

    Args:
        rows: Which rows of the batch drop heads.
        p: Probability of each head to be dropped, (layers, heads), below 1.
        mix: Share of the chosen rows that drop by query.
        generator: Of the draws, on the CPU.

    Attributes:
        dropped: (rows, layers, heads), True where a head is dropped.
        by_query: (rows,), True where a row drops by query.
    """

    def __init__(self, rows: Sequence[bool], p: Tensor, mix: float, generator: torch.Generator) -> None:
        chosen = torch.tensor(list(rows), dtype=torch.bool)
        # Drawn for every row, so that which rows are chosen changes no other row's draw.
        drawn = torch.rand(len(chosen), *p.shape, generator=generator) < p
        self.by_query = (torch.rand(len(chosen), generator=generator) < mix) & chosen
        self.dropped = drawn & chosen[:, None, None]
        by_output = (chosen & ~self.by_query)[:, None, None]
        self._factor = torch.where(by_output, (~self.dropped) / (1 - p), torch.ones(()))
        self._undistinguished = self.dropped & self.by_query[:, None, None]

    def __call__(self, call: Call) -> Tensor:
        """Outputs of all heads of one layer."""
        result = stock = call.heads()
        factor, gone = self._factor[:, call.layer], self._undistinguished[:, call.layer]
        if bool((factor != 1).any()):
            result = stock * factor.to(stock)[:, :, None, None]
        if bool(gone.any()):
            mask = gone.to(stock.device)[:, :, None, None]
            result = torch.where(mask, call.ablated(range(stock.shape[1]), _QUERY, stock), result)
        return result
