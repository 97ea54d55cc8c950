"""Fit adapter and head of a model that reads pairs: steps, running mean of the weights, checkpoints, the best epoch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from peft import LoraConfig
from rich.console import Console
from torch import Tensor

from rag.pairs import Base, Pair, PairModel, collate
from training.checkpoint import Checkpoint, Groups
from training.frozen import adapted_modules
from training.mixture import some
from training.optimizer import optimizer_of, set_rates

_CONSOLE = Console(stderr=True, highlight=False)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairRecipe:
    """The recipe; saved with the weights.

    Attributes:
        rank: LoRA rank; adapters sit on every linear layer of the encoder that is not frozen, scaled by 2.
        epochs: passes over the rows.
        batch: pairs in a step.
        lr: peak learning rate of the adapter; the head learns at twice that. Linear warm-up over a twentieth of the
            steps, then linear decay.
        averaging: decay of the running mean of the weights, which is what is kept; 0 keeps the last weights.
        window: tokens that the model reads at a time.
        seed: of everything random.
        threads: torch threads.
        frozen: lowest layers of the encoder that stay as they are.
        precision: of the arithmetic inside the encoder while training; what is learnt stays in single precision.
    """

    rank: int = 16
    epochs: int = 3
    batch: int = 16
    lr: float = 1e-3
    averaging: float = 0.995
    window: int = 256
    seed: int = 0
    threads: int = 1
    frozen: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True, slots=True)
class Example(Generic[T]):
    """A pair with what is to be learnt of it."""

    pair: Pair
    target: T


Loss = Callable[[Tensor, Sequence[T]], Tensor]  # logits (batch, spans, outputs) and targets → the mean loss


def untrained(base: Base, outputs: int, recipe: PairRecipe) -> PairModel:
    """A model that knows nothing yet, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, **adapted_modules(base, recipe.frozen))
    return PairModel.untrained(base, outputs, lora)


@torch.no_grad()
def standardize(model: PairModel, base: Base, train: Sequence[Example[T]], recipe: PairRecipe) -> None:
    """Let the head of a fresh model see states around zero: some encoders put all texts into one narrow cone."""
    states = []
    for batch in _batches(some(train, 500, recipe.seed), recipe.batch, random.Random(0)):
        inputs = collate(base, [example.pair for example in batch])
        pooled = model.pool(**inputs)
        counts = [1 + max(example.pair.spans, default=0) for example in batch]
        states += [row[:count] for row, count in zip(pooled, counts, strict=True)]
    found = torch.cat(states)
    model.centre.copy_(found.mean(0))
    model.spread.copy_(found.std(0, correction=0).clamp(min=1e-4))


def fit_pairs(
    model: PairModel,
    base: Base,
    train: Sequence[Example[T]],
    dev: Sequence[Example[T]],
    loss: Loss[T],
    recipe: PairRecipe,
    checkpoint: Checkpoint,
) -> list[dict[str, float]]:
    """All epochs; the mean training loss and the dev loss of each. The model ends with the weights of the best.

    The model comes from `untrained`; `standardize` has readied its head, or it has another one's.

    Batches and dropout come from the seed and the step, so a run that was interrupted goes on as it would have.
    """
    size = math.ceil(len(train) / recipe.batch)
    steps = size * recipe.epochs
    learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = optimizer_of(model, recipe.lr)
    mean = {name: value.detach().clone() for name, value in learnt.items()}
    best = {name: value.clone() for name, value in mean.items()}
    standard = {"centre": model.centre, "spread": model.spread}
    kept: Groups = {"learnt": learnt, "mean": mean, "best": best, "standard": standard}
    state = checkpoint.restore(kept, optimizer)
    while state.step < steps:
        epoch, done = divmod(state.step, size)
        _reading(model)
        for batch in itertools.islice(
            _batches(train, recipe.batch, random.Random(f"{recipe.seed}/{epoch}")), done, size
        ):
            torch.manual_seed(hash((recipe.seed, state.step)))  # dropout
            set_rates(optimizer, state.step, steps)
            value = _loss(model, base, batch, loss, recipe)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learnt.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            state.total += value.item()
            _average(mean, learnt, recipe.averaging, state.step)
            if state.due() and state.step % size:
                checkpoint.save(state, kept, optimizer)
                _CONSOLE.print(f"step {state.step}/{steps}, loss {state.total / (state.step - epoch * size):.3f}")
        found = _validate(model, base, mean, learnt, dev, loss, recipe)
        if not state.epochs or found <= min(entry["validation"] for entry in state.epochs):
            _copy(best, mean)
        state.epochs.append({"train": round(state.total / size, 4), "validation": round(found, 4)})
        state.total = 0.0
        checkpoint.save(state, kept, optimizer)
        _CONSOLE.print(f"epoch {epoch + 1}/{recipe.epochs}: {state.epochs[-1]}")
    _copy(learnt, best)
    model.eval()
    return state.epochs


def _loss(model: PairModel, base: Base, batch: Sequence[Example[T]], loss: Loss[T], recipe: PairRecipe) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = model(**collate(base, [example.pair for example in batch]))
    return loss(logits.float(), [example.target for example in batch])


def _batches(examples: Sequence[Example[T]], batch: int, rng: random.Random) -> list[list[Example[T]]]:
    """All examples once, those of like length together, the batches in random order."""
    order = sorted(examples, key=lambda example: len(example.pair) * (1 + 0.1 * rng.random()))
    found = [order[start : start + batch] for start in range(0, len(order), batch)]
    rng.shuffle(found)
    return found


def _validate(
    model: PairModel,
    base: Base,
    mean: Mapping[str, Tensor],
    learnt: Mapping[str, Tensor],
    dev: Sequence[Example[T]],
    loss: Loss[T],
    recipe: PairRecipe,
) -> float:
    """The loss of the mean weights on pairs that are not trained on."""
    last = {name: value.detach().clone() for name, value in learnt.items()}
    model.eval()
    _copy(learnt, mean)
    total = 0.0
    with torch.no_grad():
        for batch in _batches(dev, 2 * recipe.batch, random.Random(0)):
            total += _loss(model, base, batch, loss, recipe).item() * len(batch)
    _copy(learnt, last)
    return total / len(dev)


@torch.no_grad()
def _average(mean: Mapping[str, Tensor], learnt: Mapping[str, Tensor], averaging: float, step: int) -> None:
    decay = min(averaging, step / (step + 9))
    for name, value in learnt.items():
        mean[name].lerp_(value, 1 - decay)


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in into.items():
        value.copy_(values[name])


def _reading(model: PairModel) -> None:
    """Training mode for the head only: dropout inside the encoder triples a step on a CPU."""
    model.train()
    model.encoder.eval()
