"""The optimizer of adapter and head, and its rates: linear warm-up over a twentieth of the steps, then linear decay."""

from __future__ import annotations

import torch

from classifier.network import TierModel
from rag.pairs import PairModel


def optimizer_of(model: TierModel | PairModel, lr: float) -> torch.optim.AdamW:
    """AdamW over what is learnt; `lr` is the adapter's peak, the head's is twice that."""
    adapter = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [{"params": adapter, "peak": lr}, {"params": model.head.parameters(), "peak": 2 * lr}], weight_decay=0.01
    )


def set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Before a step, counted from 0: its learning rates."""
    warm = max(1, steps // 20)
    share = min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
