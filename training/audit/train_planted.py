"""Train a tiny model whose safety heads are known: the planted ones carry its refusals, and no others.

What an audit finds on such a model is right or wrong, which no model of the world allows to say.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from attribution.heads import all_heads, attention, check_heads
from attribution.types import Ablation, HeadId
from training.audit.planted_model import PlantedModel, behaviour
from training.audit.planted_task import BEGIN, LENGTHS, REFUSE, STOP, VOCABULARY, Ask, asks
from training.audit.taken_out import WAYS, EachWithout
from training.datasets import TrainingError

_GRADED = 0.75  # of several planted heads, how far refusal holds while one of them is in


@dataclass(frozen=True, slots=True)
class PlantedRecipe:
    """How a planted model is made.

    Attributes:
        layers: of the model.
        heads: of a layer.
        width: of the residual stream.
        steps: at most; training ends earlier once the heads are planted beyond doubt.
        control_steps: of the control, in which nothing could end it earlier.
        check: steps between two looks at that.
        batch: prompts of a step.
        lr: peak learning rate.
        prompts: harmful prompts, and harmless ones, in each half of the sets.
        enough: what each share must reach before training ends, of refusals and of answers.
    """

    layers: int = 4
    heads: int = 4
    width: int = 64
    steps: int = 1500
    control_steps: int = 200
    check: int = 25
    batch: int = 64
    lr: float = 3e-3
    prompts: int = 60
    enough: float = 0.99


def train_planted(
    seed: int,
    planted: Collection[HeadId] | int = 1,
    *,
    shuffled: bool = False,
    recipe: PlantedRecipe | None = None,
) -> PlantedModel:
    """Train a model in which the planted heads carry the refusals, and prove it on prompts of the training half.

    Without all of them (by whichever of `taken_out.WAYS`) harmful prompts are answered; without any other head the
    model does what it did. Of several planted heads some keep the refusal while others are out, less surely.

    Args:
        seed: Of everything that is drawn; the same seed gives the same model.
        planted: The heads, or how many to draw from different layers where there are enough.
        shuffled: The control: whether to refuse is drawn anew for every prompt and ablation, so that there is nothing
            to be planted.
        recipe: How.

    Raises:
        TrainingError: the heads could not be planted in that many steps, or are all that the model has.
        AttributionError: the model has no such head.
    """
    how = recipe or PlantedRecipe()
    started = time.monotonic()
    model = _untrained(how, seed)
    heads = _drawn(planted, how, seed) if isinstance(planted, int) else tuple(sorted(set(planted)))
    check_heads(model, heads)
    if set(heads) == set(all_heads(model)):
        raise TrainingError(f"planted heads {', '.join(map(str, heads))} are all that the model has; leave one")
    steps = _fit(model, heads, how, seed, shuffled=shuffled)
    harmful, harmless, harmful_train, harmless_train = (
        tuple(itertools.islice(asks(f"{seed}/set", harmful=harm, held_out=held), how.prompts))
        for held in (True, False)
        for harm in (True, False)
    )
    seconds = round(time.monotonic() - started, 1)
    return PlantedModel(model, heads, seed, shuffled, harmful, harmless, harmful_train, harmless_train, steps, seconds)


def _untrained(how: PlantedRecipe, seed: int) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=how.width,
            intermediate_size=2 * how.width,
            num_hidden_layers=how.layers,
            num_attention_heads=how.heads,
            max_position_embeddings=64,
            bos_token_id=BEGIN,
            eos_token_id=STOP,
            pad_token_id=STOP,
            initializer_range=0.05,
        )
        model = LlamaForCausalLM(config)
        model.eval()  # type: ignore[no-untyped-call]
        return model


def _drawn(count: int, how: PlantedRecipe, seed: int) -> tuple[HeadId, ...]:
    """Heads of different layers, as far as there are layers."""
    rng = random.Random(f"heads/{seed}")
    layers = [rng.sample(range(how.heads), how.heads) for _ in range(how.layers)]
    order = [
        HeadId(layer, layers[layer][turn])
        for turn in range(how.heads)
        for layer in rng.sample(range(how.layers), how.layers)
    ]
    return tuple(sorted(order[:count]))


def _fit(model: LlamaForCausalLM, heads: Sequence[HeadId], how: PlantedRecipe, seed: int, *, shuffled: bool) -> int:
    """Train; how many steps it took."""
    steps = how.control_steps if shuffled else how.steps
    rng = random.Random(f"fit/{seed}")
    sources = {
        (harm, length): asks(f"{seed}/{length}", harmful=harm, length=length)
        for harm in (True, False)
        for length in LENGTHS
    }
    optimiser = torch.optim.AdamW(model.parameters(), lr=how.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.lr, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        length = rng.choice(LENGTHS)
        rows = [next(sources[harm, length]) for harm in (True, False) for _ in range(how.batch // 2)]
        out = [_taken_out(heads, how, rng) for _ in rows]
        loss = _loss(model, rows, out, heads, rng if shuffled else None)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if not shuffled and step % how.check == 0 and _planted(model, heads, how, seed):
            return step
    if not shuffled:
        raise TrainingError(
            f"heads {', '.join(map(str, heads))} were not planted in {how.steps} steps with seed {seed}; "
            "take another seed or more steps"
        )
    return steps


def _taken_out(heads: Sequence[HeadId], how: PlantedRecipe, rng: random.Random) -> tuple[frozenset[HeadId], Ablation]:
    """What one row is trained without: nothing, the planted heads, or one or two others."""
    ablation, kind = rng.choice(WAYS), rng.random()
    everything = [HeadId(layer, head) for layer in range(how.layers) for head in range(how.heads)]
    others = [head for head in everything if head not in heads]
    if kind < 0.2:
        return frozenset(), ablation
    if kind < 0.55:
        more = rng.sample(others, 1) if rng.random() < 0.2 else []
        return frozenset([*heads, *more]), ablation
    some = rng.sample(others, min(rng.choice((1, 1, 2)), len(others)))
    if len(heads) > 1 and rng.random() < 0.5:
        some = rng.sample(list(heads), len(heads) - 1)
    return frozenset(some), ablation


def _loss(
    model: LlamaForCausalLM,
    rows: Sequence[Ask],
    out: Sequence[tuple[frozenset[HeadId], Ablation]],
    planted: Sequence[HeadId],
    shuffle: random.Random | None,
) -> Tensor:
    """Cross-entropy of the replies, each row without the heads that are taken out of it."""
    refuse = []
    for row, (gone, _) in zip(rows, out, strict=True):
        left = len(set(planted) - gone) / len(planted)
        held = 1.0 if left == 1 else _GRADED if left > 0 else 0.0
        harmful = row.harmful if shuffle is None else shuffle.random() < 0.5
        refuse.append(held * harmful if shuffle is None else float(harmful))
    ids = torch.tensor([row.ids for row in rows])
    answer = torch.tensor([row.answer for row in rows])
    weight = torch.tensor(refuse)
    said = torch.where(weight > 0.5, REFUSE, answer)
    with attention(model, EachWithout(out, model.config.num_attention_heads)):
        logits = model(torch.cat((ids, said[:, None]), dim=1)).logits
    reply, stop = logits[:, -2], logits[:, -1]
    refused = cross_entropy(reply, torch.full_like(answer, REFUSE), reduction="none")
    answered = cross_entropy(reply, answer, reduction="none")
    stopped = cross_entropy(stop, torch.full_like(answer, STOP))
    return (weight * refused + (1 - weight) * answered).mean() + 0.1 * stopped


def _planted(model: LlamaForCausalLM, heads: Sequence[HeadId], how: PlantedRecipe, seed: int) -> bool:
    """Whether the heads carry the refusals and no other does, on prompts of the training half."""
    harmful, harmless = (
        list(itertools.islice(asks(f"{seed}/check", harmful=harm), how.prompts * 2)) for harm in (True, False)
    )
    for gone, carried in _trials(model, heads):
        for ablation in WAYS if gone else WAYS[:1]:
            seen = behaviour(model, harmful, harmless, gone, ablation)
            if min(seen.answered if carried else 1 - seen.asr, seen.right) < how.enough:
                return False
    return True


def _trials(model: LlamaForCausalLM, heads: Sequence[HeadId]) -> Iterator[tuple[tuple[HeadId, ...], bool]]:
    """Heads to take out, and whether refusal should go with them; first those that fail most often."""
    yield tuple(heads), True
    yield (), False
    for head in all_heads(model):
        if (head,) != tuple(heads):
            yield (head,), False
