"""What a step of the classifier's training makes smaller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.tiers.settings import TrainSettings

_TEMPERATURE = 0.1  # of the contrastive loss


def label_loss(
    logits: Tensor, targets: Tensor, tiers: Tensor, settings: TrainSettings, said: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Category cross-entropy plus the weighted negative log-probability of the right tier, and that probability.

    Where teachers said something of an example, part of it is the cross-entropy to what they said, over categories and
    over tiers.
    """
    log_probabilities = logits.log_softmax(-1)
    category = functional.nll_loss(log_probabilities, targets, reduction="none") * (1 - settings.smoothing)
    category = category - settings.smoothing * log_probabilities.mean(-1)
    kinds, tier_of = torch.unique(tiers, return_inverse=True)
    inside = [tier_of == at for at in range(len(kinds))]
    of_tiers = torch.stack([log_probabilities[:, each].logsumexp(-1) for each in inside], dim=-1)
    right = of_tiers.gather(-1, tier_of[targets].unsqueeze(-1)).squeeze(-1)
    losses = category - settings.tier_weight * right
    if said is not None:
        said_tiers = torch.stack([said[:, each].sum(-1) for each in inside], dim=-1)
        taught = -(said * log_probabilities).sum(-1) - settings.tier_weight * (said_tiers * of_tiers).sum(-1)
        losses = torch.lerp(losses, taught, settings.taught * (said.sum(-1) > 0).to(losses.dtype))
    return losses.mean(), right.detach().exp().cpu()


def contrast_loss(states: Tensor, targets: Tensor) -> Tensor:
    """How much nearer rows are to others of their category than to the rest (arXiv 2004.11362, equation 2).

    Args:
        states: ``(rows, hidden)``; their cosines count.
        targets: the category of each row. One that is alone in its category only pushes others away.
    """
    unit = functional.normalize(states, dim=-1)
    itself = torch.eye(len(targets), dtype=torch.bool, device=states.device)
    likeness = (unit @ unit.T / _TEMPERATURE).masked_fill(itself, float("-inf"))
    log_probabilities = likeness.log_softmax(-1).masked_fill(itself, 0.0)
    same = (targets.unsqueeze(1) == targets.unsqueeze(0)) & ~itself
    paired = same.any(-1)
    if not paired.any():
        return states.sum() * 0.0
    mean = (log_probabilities * same).sum(-1)[paired] / same.sum(-1)[paired]
    return -mean.mean()
