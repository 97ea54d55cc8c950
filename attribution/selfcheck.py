"""Checks at the start of every audit: a model for which they fail gets no numbers at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.ablate import ablate
from attribution.brute import BruteForce
from attribution.engine import Engine
from attribution.heads import all_heads
from attribution.types import Ablation, CheckpointError, EngineMismatch, HeadId

_TOLERANCE = {
    torch.float64: 1e-4,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}  # × the largest logit, for the halves
_SLOW = ", or use the exact slow engine: --engine brute"


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What was found; logits are compared by their largest absolute difference.

    Attributes:
        base_difference: The engine's logits against the stock model's, at the last position of each prompt.
        leak: How much a later token changes the logits before it, with a head out.
        effect: How much the logits move without each of a few heads, at most.
        head_difference: The engine's logits without a random head against a stock forward without it.
        tolerance: What the differences and the leak may be.
    """

    base_difference: float
    leak: float
    effect: float
    head_difference: float
    tolerance: float


@torch.inference_mode()
def check(
    engine: Engine | BruteForce,
    ids: Sequence[Sequence[int]],
    ablation: Ablation | None = None,
    seed: int = 0,
    *,
    prompts: int = 2,
    heads: int = 4,
) -> SelfCheck:
    """Compare an engine with the stock model on a few prompts and heads.

    Args:
        engine: Runs the model, the fast way or the slow one.
        ids: Prompts of the audit as token ids; the longest of them are looked at.
        ablation: How the audit takes heads out.
        seed: Of the choice of heads.
        prompts: How many prompts are looked at.
        heads: How many heads the effect is looked for with.

    Raises:
        EngineMismatch: the numbers are not the stock model's.
        CheckpointError: the model's logits are not finite.
    """
    model = engine.model
    how = ablation or Ablation()
    some = sorted(map(list, ids), key=len)[-prompts:]
    if max(map(len, some)) < 2:
        some = [[*some[-1], int(some[-1][-1] == 0)]]  # with one token, attention has nothing to choose from
    stock = _stock(model, some)
    if not stock.isfinite().all():
        raise CheckpointError(_not_finite(model))
    tolerance = _TOLERANCE.get(model.dtype, 1e-4)
    if model.dtype in (torch.float16, torch.bfloat16):
        tolerance *= max(1.0, float(stock.abs().max()))
    states = engine.states(some)
    base = engine.logits(states)
    difference = _largest(base - stock)

    chosen = random.Random(seed).sample(all_heads(model), min(heads, len(all_heads(model))))
    without = {head: engine.logits(_without(engine, some, how, head)) for head in chosen}
    with ablate(model, chosen[:1], how):
        head_difference = _largest(without[chosen[0]] - _stock(model, some))
        leak = _leak(model, some[-1])
    effect = max(_largest(logits - base) for logits in without.values())
    found = SelfCheck(difference, leak, effect, head_difference, tolerance)
    way_out = f"report the model type{_SLOW if isinstance(engine, Engine) else ''}"
    _judge(found, how, chosen, model.config.model_type, way_out)
    return found


def _judge(found: SelfCheck, how: Ablation, heads: Sequence[HeadId], family: str, way_out: str) -> None:
    numbers = (
        f"base {found.base_difference:.2g}, leak {found.leak:.2g}, head {heads[0]} {found.head_difference:.2g}, "
        f"effect {found.effect:.2g}, allowed {found.tolerance:.2g}"
    )
    if not found.base_difference <= found.tolerance:
        raise EngineMismatch(f"the engine's logits of {family!r} are not the stock model's ({numbers}); {way_out}")
    if not found.leak <= found.tolerance:
        raise EngineMismatch(
            f"in {family!r} a later token changes what comes before it ({numbers}); audit causal models"
        )
    if not found.head_difference <= found.tolerance:
        raise EngineMismatch(
            f"without a head the engine's logits of {family!r} are not those of a stock forward ({numbers}); {way_out}"
        )
    if not found.effect > 0.0:
        named = ", ".join(map(str, heads))
        raise EngineMismatch(
            f"taking out heads {named} of {family!r} by {how} changed nothing ({numbers}); choose another method, an "
            "epsilon under 1, or prompts of more tokens"
        )


def _without(engine: Engine | BruteForce, ids: Sequence[Sequence[int]], how: Ablation, head: HeadId) -> Tensor:
    """States without one head, (prompts, width)."""
    found: dict[int, Tensor] = {}
    for batch in engine.without_each(ids, how, heads=[head]):
        found.update(zip(batch.prompts, batch.states[0], strict=True))
    return torch.stack([found[place] for place in range(len(ids))])


def _stock(model: torch.nn.Module, ids: Sequence[Sequence[int]]) -> Tensor:
    device = next(model.parameters()).device
    logits = [model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False).logits for prompt in ids]
    return torch.stack([one[0, -1] for one in logits])


def _leak(model: torch.nn.Module, prompt: Sequence[int]) -> float:
    """How much the logits of a prompt change when one more token follows."""
    device = next(model.parameters()).device
    short, longer = (torch.tensor([row], device=device) for row in ([*prompt], [*prompt, prompt[0]]))
    before = model(input_ids=short, use_cache=False).logits[0]
    return _largest(model(input_ids=longer, use_cache=False).logits[0, :-1] - before)


def _largest(difference: Tensor) -> float:
    """NaN if any of it is."""
    return float(difference.abs().max())


def _not_finite(model: torch.nn.Module) -> str:
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if values.is_floating_point() and not values.isfinite().all():
            return f"the checkpoint's {name} holds values that are not finite; take an intact copy"
    return "the model's logits are not finite though its weights are; load it in float32 or bfloat16"
