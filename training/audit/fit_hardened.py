"""Fine-tune a causal language model so that no few heads carry its refusals: the loop, in place, from token ids."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.heads import attention, check_heads, shape
from attribution.types import HeadId
from training.audit.head_dropout import HeadDropout
from training.checkpoint import Checkpoint, State
from training.datasets import TrainingError

_LOSSES = ("refusal", "answer", "kl")
_KEPT = 25  # steps after which a run's state is written down


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and what the model should say, as token ids.

    Attributes:
        prompt: With the template, up to where the model writes.
        reply: With the token that ends it.
        harmful: Whether the reply is a refusal; heads are dropped in such lessons only.
    """

    prompt: tuple[int, ...]
    reply: tuple[int, ...]
    harmful: bool


@dataclass(frozen=True, slots=True)
class HardenRecipe:
    """How a model is hardened.

    Attributes:
        p: Probability of a head to be dropped; 0 is the control, in which nothing is.
        ramp: Share of the steps in which p rises from 0.
        mix: Share of the rows with dropped heads in which they attend without distinction instead of giving nothing.
        whole: Share of the harmful rows in which no head is dropped.
        kl: Weight of the divergence from the original model on harmless lessons.
        steps: Of training.
        batch: Lessons of a step, half of them harmful.
        lr: Peak learning rate.
        warmup: Share of the steps in which the learning rate rises.
        rank: Of LoRA's matrices; 0 trains all weights.
        focused: p of the heads that an audit named, where one was given.
        seed: Of everything random.
    """

    p: float = 0.5
    ramp: float = 0.3
    mix: float = 0.5
    whole: float = 0.25
    kl: float = 1.0
    steps: int = 300
    batch: int = 32
    lr: float = 1e-3
    warmup: float = 0.1
    rank: int = 0
    focused: float = 0.75
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("p", "focused"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise TrainingError(f"{name} {getattr(self, name)} is not from 0 to below 1; 0.5 is usual")
        for name in ("ramp", "mix", "whole", "warmup"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise TrainingError(f"{name} {getattr(self, name)} is not between 0 and 1")
        if self.steps < 1 or self.batch < 2:
            raise TrainingError(f"steps {self.steps}, batch {self.batch}: give at least 1 step and 2 lessons in each")
        if self.lr <= 0 or self.kl < 0 or self.rank < 0:
            raise TrainingError(f"lr {self.lr}, kl {self.kl}, rank {self.rank}: lr is above 0, the others not below")


def harden(
    model: PreTrainedModel,
    lessons: Sequence[Lesson],
    recipe: HardenRecipe,
    *,
    focus: Collection[HeadId] = (),
    kept: Checkpoint | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Fine-tune the model in place: head dropout on harmful lessons, none on harmless ones.

    Args:
        model: In evaluation mode; that is how it stays, so its own dropout is off.
        lessons: Harmful and harmless ones.
        recipe: How.
        focus: Heads that are dropped with probability `focused` where p is not 0.
        kept: Where the run stands, on disk; an interrupted one goes on from there, and ends with the same weights.
        told: Called with a line on progress now and then.

    Returns:
        Mean losses of the last tenth of the steps: `refusal`, `answer`, `kl`.

    Raises:
        TrainingError: lessons of one kind are missing, or the loss is not finite.
        UnsupportedModel: the family's heads cannot be taken out.
        AttributionError: the model has no head of the focus.
    """
    check_heads(model, focus)
    kinds = [[lesson for lesson in lessons if lesson.harmful is harmful] for harmful in (True, False)]
    if not all(kinds):
        missing = "harmful" if not kinds[0] else "harmless"
        raise TrainingError(f"there are no {missing} lessons; hardening needs refusals and answers")
    grid = torch.full(shape(model), recipe.p)
    for head in focus:
        grid[head] = max(recipe.p, recipe.focused) if recipe.p else 0.0
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = random.Random(f"harden/{recipe.seed}")
    sources = [_endless(kind, rng) for kind in kinds]
    counts = (recipe.batch // 2, recipe.batch - recipe.batch // 2)
    tail = max(1, recipe.steps // 10)
    with _trainable(model, recipe) as (parameters, original):
        optimiser = torch.optim.AdamW(parameters.values(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0)
        state = kept.restore({"weights": parameters}, optimiser) if kept else State()
        if state.step:
            told(f"going on after step {state.step}/{recipe.steps}")
        for step in range(recipe.steps):
            rows = [next(source) for source, count in zip(sources, counts, strict=True) for _ in range(count)]
            chosen = [row.harmful and recipe.p > 0 and rng.random() >= recipe.whole for row in rows]
            now = grid * min(1.0, (step + 1) / max(1.0, recipe.ramp * recipe.steps))
            dropout = HeadDropout(chosen, now, recipe.mix, generator)
            if step < state.step:
                continue  # all its draws are made again, so that those of the next steps are the same
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * _pace(step, recipe)
            losses = _losses(model, original, rows, dropout, recipe)
            loss = losses[0] + losses[1] + recipe.kl * losses[2]
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is not finite at step {step + 1}; take a smaller lr than {recipe.lr}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            state.step = step + 1
            seen = dict(zip(_LOSSES, (each.item() for each in losses), strict=True))
            state.epochs = [*state.epochs[1 - tail :], seen] if tail > 1 else [seen]
            if kept and state.step % _KEPT == 0:
                kept.save(state, {"weights": parameters}, optimiser)
            if state.step % 50 == 0:
                told(f"step {state.step}/{recipe.steps}: refusal {seen['refusal']:.3f}, answer {seen['answer']:.3f}")
        if kept and state.step % _KEPT:
            kept.save(state, {"weights": parameters}, optimiser)  # the proof that follows may be interrupted too
    return {name: round(sum(each[name] for each in state.epochs) / tail, 4) for name in _LOSSES}


def _pace(step: int, recipe: HardenRecipe) -> float:
    """Share of the peak learning rate at a step, the first of which is 0."""
    warm = max(1.0, recipe.warmup * recipe.steps)
    return min((step + 1) / warm, max(0.02, (recipe.steps - step) / max(1.0, recipe.steps - warm)))


def _endless(lessons: Sequence[Lesson], rng: random.Random) -> Iterator[Lesson]:
    """All lessons in random order, again and again."""
    while True:
        yield from rng.sample(lessons, len(lessons))


@contextmanager
def _trainable(
    model: PreTrainedModel, recipe: HardenRecipe
) -> Iterator[tuple[dict[str, torch.nn.Parameter], Callable[[Tensor], Tensor]]]:
    """What is trained, and what gives the original model's logits; with LoRA its matrices are merged at the end."""
    if recipe.rank == 0:
        frozen: Any = copy.deepcopy(model).requires_grad_(requires_grad=False)
        model.requires_grad_(requires_grad=True)
        try:
            yield dict(model.named_parameters()), lambda ids: frozen(ids).logits
        finally:
            model.requires_grad_(requires_grad=False)
        return
    from peft import LoraConfig, LoraModel

    model.requires_grad_(requires_grad=False)
    turned = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 keeps its weights transposed
    how = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules="all-linear", fan_in_fan_out=turned)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        adapted: Any = LoraModel(model, {"default": how}, "default")
    adapted.eval()

    def original(ids: Tensor) -> Tensor:
        adapted.disable_adapter_layers()
        try:
            logits: Tensor = model(ids).logits
        finally:
            adapted.enable_adapter_layers()
        return logits

    try:
        yield {name: each for name, each in model.named_parameters() if each.requires_grad}, original
    finally:
        adapted.merge_and_unload()
        vars(model).pop("peft_config", None)  # else transformers would take it for a model with an adapter
        model.requires_grad_(requires_grad=False)


def _losses(
    model: PreTrainedModel,
    original: Callable[[Tensor], Tensor],
    rows: Sequence[Lesson],
    dropout: HeadDropout,
    recipe: HardenRecipe,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of refusals and of answers, and the divergence from the original model on harmless rows."""
    ids, reply = _padded(rows, int(model.config.get_text_config(decoder=True).vocab_size))
    ids, reply = ids.to(model.device), reply.to(model.device)
    with attention(model, dropout):
        logits = model(ids).logits[:, :-1]
    said, told = ids[:, 1:], reply[:, 1:]
    each = cross_entropy(logits.flatten(0, 1).float(), said.flatten(), reduction="none").view_as(said)
    harmful = torch.tensor([row.harmful for row in rows], device=ids.device)
    refusals, answers = told & harmful[:, None], told & ~harmful[:, None]
    kl = logits.new_zeros(())
    if recipe.kl:
        with torch.no_grad():
            before = original(ids[~harmful])[:, :-1][told[~harmful]].float().log_softmax(-1)
        after = logits[answers].float().log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1).mean()
    return each[refusals].mean(), each[answers].mean(), kl


def _padded(rows: Sequence[Lesson], vocabulary: int) -> tuple[Tensor, Tensor]:
    """Tokens, padded on the right where causality hides them, and where the replies are; both (rows, length)."""
    longest = max(len(row.prompt) + len(row.reply) for row in rows)
    ids, reply = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        whole = (*row.prompt, *row.reply)
        if max(whole) >= vocabulary:
            raise TrainingError(
                f"a lesson holds token {max(whole)}, but the model has {vocabulary}; is the tokenizer its own?"
            )
        ids[number, : len(whole)] = torch.tensor(whole)
        reply[number, len(row.prompt) : len(whole)] = True
    return ids, reply
