"""A quick estimate of Ships for all heads at once, to choose which are computed exactly (Fisher form).

KL has no slope at the unablated model, so what a first-order attribution says of a head is nothing. Its second order is
½ Σ_y p(y) (∇ log p(y) · (h' - h))²: one forward pass and K backward passes a batch of prompts, with the exact h'.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attribution.heads import Call, attention, shape
from attribution.ships import Ids, Progress
from attribution.types import Ablation, AttributionError


def estimate(
    model: PreTrainedModel,
    ids: Ids,
    ablation: Ablation | None = None,
    *,
    tokens: int = 8,
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> Tensor:
    """Estimated Ships of every head on each prompt, nats, float64, (prompts, layers, heads).

    Args:
        model: In evaluation mode.
        ids: Prompts as token ids.
        ablation: How a head is taken out.
        tokens: K, the likeliest next tokens that the sum runs over.
        batch_tokens: Tokens computed at once.
        progress: Told how many prompts are done.

    Raises:
        AttributionError: less than one token.
    """
    if tokens < 1:
        raise AttributionError(f"screen tokens {tokens} is not at least 1; 8 is enough")
    how = ablation or Ablation()
    scores = torch.empty(len(ids), *shape(model), dtype=torch.float64)
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    while order:
        longest = len(ids[order[0]])
        part = [place for place in order if len(ids[place]) == longest][: max(1, batch_tokens // longest)]
        order = [place for place in order if place not in part]
        scores[part] = _estimate(model, [list(ids[place]) for place in part], how, tokens)
        if progress:
            progress(len(part))
    return scores


def _estimate(model: PreTrainedModel, prompts: list[list[int]], how: Ablation, tokens: int) -> Tensor:
    """Of prompts of one length, (prompts, layers, heads)."""
    outputs: list[Tensor] = []
    changes: list[Tensor] = []
    numbers = range(shape(model)[1])

    def attend(call: Call) -> Tensor:
        stock = call.heads().detach().requires_grad_() if not outputs else call.heads()
        with torch.no_grad():
            changes.append(call.ablated(numbers, how, stock) - stock)
        outputs.append(stock)
        return stock

    with torch.enable_grad(), attention(model, attend):
        logits = model(input_ids=torch.tensor(prompts, device=model.device), use_cache=False, logits_to_keep=1).logits
        likely = logits[:, -1].float().log_softmax(-1)
        top = likely.topk(min(tokens, likely.shape[-1]))
        total = torch.zeros(len(prompts), len(outputs), len(numbers), dtype=torch.float64)
        for rank in range(top.values.shape[1]):
            more = rank + 1 < top.values.shape[1]
            slopes = torch.autograd.grad(top.values[:, rank].sum(), outputs, retain_graph=more)
            moved = torch.stack([(s * c).sum(dim=(2, 3)) for s, c in zip(slopes, changes, strict=True)], dim=1)
            weight = top.values[:, rank].detach().double().exp()[:, None, None]
            total += (0.5 * weight * moved.double() ** 2).cpu()
    return total
