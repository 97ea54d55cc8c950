"""Train the test bed: a small aligned Llama, first helpful to everybody, then taught to refuse what is harmful."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from attribution.heads import all_heads, attention, check_heads
from attribution.types import Ablation, HeadId, Prompt, PromptError
from training.audit.taken_out import WAYS, EachWithout
from training.audit.testbed_card import write_testbed_card
from training.audit.testbed_figures import measure, read_held_out
from training.audit.testbed_lessons import Encoded, batches
from training.audit.testbed_text import GRAMMAR, Grammar, Lesson, read_lessons, same_words
from training.audit.testbed_tokenizer import train_tokenizer
from training.datasets import TrainingError
from training.manifest import file_sha256, provenance, put_in_place, refuse_finished, write_json

_TOKENIZED = 8_000  # lessons of the grammar that the tokenizer learns from
_PROMPT_WEIGHT = 0.1  # of the loss on what a user says, beside that on the reply


@dataclass(frozen=True, slots=True)
class BedRecipe:
    """How the test bed is made.

    Attributes:
        layers: of the model.
        heads: query heads of a layer.
        width: of the residual stream.
        inner: width of the MLP.
        vocabulary: tokens.
        context: tokens that the model reads.
        helpful_steps: first, in which every ask is answered, harmful ones too.
        aligned_steps: then, in which harmful asks are refused.
        batch: lessons of a step.
        lr: peak learning rate.
        longest: words of an ask that is taken from data.
        seed: of everything random.
        threads: of torch.
    """

    layers: int = 4
    heads: int = 8
    width: int = 96
    inner: int = 256
    vocabulary: int = 1600
    context: int = 256
    helpful_steps: int = 450
    aligned_steps: int = 900
    batch: int = 32
    lr: float = 3e-3
    longest: int = 24
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        step = 2 * max(self.heads, 1)  # each head turns pairs of numbers by their position
        if self.heads < 1 or self.width < 1 or self.width % step:
            raise TrainingError(
                f"width {self.width} does not fit {self.heads} heads; give 1 head or more and a multiple of twice as "
                f"many as width, such as {step * max(1, round(self.width / step))}"
            )


def train_testbed(
    out: Path,
    *,
    recipe: BedRecipe,
    data: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    planted: HeadId | None = None,
    name: str | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train, save with tokenizer and chat template, measure on prompts that training never saw.

    Args:
        out: Folder for the model.
        recipe: How.
        data: JSONL files of labelled queries that are trained on beside the written grammar.
        prompts: JSONL files of held-out prompts, `text` and `harmful`; without them nothing is measured.
        planted: A head that alone is to carry the refusals.
        name: Of the model; the folder's by default.
        told: Called with a line on progress now and then.

    Returns:
        The manifest, which is also written to ``manifest.json`` in the model's folder.

    Raises:
        TrainingError: the data cannot be trained with, or the folder already holds a model.
        PromptError: the prompts cannot be measured on.
        AttributionError: the model will have no head of that number.
    """
    refuse_finished(out)
    torch.set_num_threads(recipe.threads)
    started = time.monotonic()
    grammar = Grammar.load()
    longest, seed = recipe.longest, recipe.seed
    lessons = [each for path in data for each in read_lessons(path, grammar, longest=longest, seed=seed)]
    held_out = [prompt for path in prompts for prompt in read_held_out(path)]
    unseen = frozenset(same_words(prompt.text) for prompt in held_out)
    lessons = [lesson for lesson in lessons if same_words(lesson.ask) not in unseen]
    tokenizer = _tokenizer(grammar, lessons, recipe)
    model = _untrained(recipe, tokenizer)
    if planted is not None:
        check_heads(model, [planted])
        _check_planted(model, planted, held_out)
    losses = _fit(model, tokenizer, grammar, lessons, unseen, recipe, planted, told)
    model.half().float()  # type: ignore[no-untyped-call] # what is measured is what is saved
    seconds = round(time.monotonic() - started, 1)
    made = out / "made"
    shutil.rmtree(made, ignore_errors=True)
    _save(model, tokenizer, made)
    manifest = {
        "name": name or out.name,
        "kind": "testbed",
        "settings": asdict(recipe),
        "planted": str(planted) if planted is not None else None,
        "lessons": {"read": len(lessons), "harmful": sum(lesson.refusal is not None for lesson in lessons)},
        "parameters": model.num_parameters(),
        "weights_sha256": file_sha256(made / "model.safetensors"),
        "losses": losses,
        "seconds": seconds,
        "refusal": grammar.refusal,
        "figures": measure(model, tokenizer, held_out, grammar.refusal, planted, seed=recipe.seed),
        **provenance(seed=recipe.seed, data=[GRAMMAR, *data, *prompts]),
    }
    write_testbed_card(made, manifest)
    write_json(made / "manifest.json", manifest)
    put_in_place(made, out)
    made.rmdir()
    return manifest


def _tokenizer(grammar: Grammar, lessons: Sequence[Lesson], recipe: BedRecipe) -> PreTrainedTokenizerFast:
    rng = random.Random(f"tokenizer/{recipe.seed}")
    drawn = [grammar.lesson(rng) for _ in range(_TOKENIZED)]
    texts = [text for lesson in (*drawn, *lessons) for text in (lesson.ask, lesson.answer)]
    return train_tokenizer([*texts, *grammar.refusals(), *grammar.systems], recipe.vocabulary, recipe.context)


def _untrained(recipe: BedRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.inner,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
            initializer_range=0.05,
        )
        return LlamaForCausalLM(config)


def _check_planted(model: LlamaForCausalLM, planted: HeadId, held_out: Sequence[Prompt]) -> None:
    if len(all_heads(model)) == 1:
        raise TrainingError(f"planted head {planted} is all that the model has; give more heads, or more layers")
    if held_out and not any(prompt.harmful for prompt in held_out):
        raise PromptError(
            f"prompts: none is harmful, and whether the planted head {planted} carries the refusals is measured on "
            "harmful ones; add some, or leave --prompts out"
        )


def _fit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    grammar: Grammar,
    lessons: Sequence[Lesson],
    unseen: Collection[str],
    recipe: BedRecipe,
    planted: HeadId | None,
    told: Callable[[str], None],
) -> dict[str, float]:
    """Both stages; the mean loss at the end of each."""
    losses = {}
    rng = random.Random(f"fit/{recipe.seed}")
    model.train()
    for stage, steps in (("helpful", recipe.helpful_steps), ("aligned", recipe.aligned_steps)):
        aligned = stage == "aligned"
        optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=steps, pct_start=0.1)
        recent: list[float] = []
        rows = batches(grammar, lessons, unseen, tokenizer, recipe.batch, rng)
        for step, batch in enumerate(itertools.islice(rows, steps), 1):
            loss = _loss(model, batch, aligned, planted if aligned else None, rng)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            recent = [*recent[-49:], loss.item()]
            if step % 100 == 0 or step == steps:
                told(f"{stage} {step}/{steps}: loss {sum(recent) / len(recent):.3f}")
        losses[stage] = round(sum(recent) / len(recent), 4)
    model.eval()  # type: ignore[no-untyped-call]
    return losses


def _loss(
    model: LlamaForCausalLM, batch: Sequence[Encoded], aligned: bool, planted: HeadId | None, rng: random.Random
) -> Tensor:
    """Cross-entropy of the replies and, at a small weight, of the prompts."""
    if planted is None:
        replies = [row.refusal if aligned and row.refusal else row.answer for row in batch]
        logits, ids, weights = _forward(model, batch, replies)
    else:
        out = [_taken_out(model, planted, rng) for _ in batch]
        replies = [
            row.refusal if row.refusal and planted not in gone else row.answer
            for row, (gone, _) in zip(batch, out, strict=True)
        ]
        with attention(model, EachWithout(out, model.config.num_attention_heads)):
            logits, ids, weights = _forward(model, batch, replies)
    each = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (each * weight).sum() / weight.sum()


def _forward(
    model: LlamaForCausalLM, batch: Sequence[Encoded], replies: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (batch, length, vocabulary), the tokens and their weights (batch, length); padding is on the right."""
    rows = [(*row.prompt, *reply) for row, reply in zip(batch, replies, strict=True)]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), int(model.config.pad_token_id or 0))
    weights = torch.zeros(len(rows), longest)
    for number, (row, encoded) in enumerate(zip(rows, batch, strict=True)):
        ids[number, : len(row)] = torch.tensor(row)
        weights[number, : len(encoded.prompt)] = _PROMPT_WEIGHT
        weights[number, len(encoded.prompt) : len(row)] = 1.0
    return model(ids).logits, ids, weights


def _taken_out(model: LlamaForCausalLM, planted: HeadId, rng: random.Random) -> tuple[frozenset[HeadId], Ablation]:
    """What one row is trained without: nothing, the planted head, or one or two others."""
    ablation, kind = rng.choice(WAYS), rng.random()
    if kind < 0.3:
        return frozenset(), ablation
    if kind < 0.6:
        return frozenset([planted]), ablation
    others = [head for head in all_heads(model) if head != planted]
    return frozenset(rng.sample(others, min(rng.choice((1, 1, 2)), len(others)))), ablation


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in fp16, half the size; the configuration has them loaded in fp32."""
    model.generation_config.max_new_tokens, model.generation_config.do_sample = 64, False
    tokenizer.save_pretrained(folder)
    half = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half)
