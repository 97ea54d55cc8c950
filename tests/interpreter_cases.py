"""A tiny causal language model, pre-trained in seconds on authored text, and rows for it to learn by heart."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from rag.prompting import RULES
from training.grounding.fit_interpreter import InterpreterRecipe
from training.grounding.train_interpreter import InterpreterRun, train_interpreter

# Of each passage: its sentences, and questions with the number of the sentence that answers.
PASSAGES: Sequence[tuple[Sequence[str], Sequence[tuple[str, int]]]] = (
    (
        ("The harbour museum opens at 9 in the morning.", "Children under 12 pay nothing.", "Dogs are not allowed."),
        (("When does the harbour museum open?", 0), ("May I bring my dog to the museum?", 2)),
    ),
    (
        ("The ferry to Orla leaves every 40 minutes.", "A return ticket costs 15 crowns.", "Bicycles travel free."),
        (("How often does the ferry leave?", 0), ("What does a return ticket cost?", 1)),
    ),
    (
        ("Basil needs 6 hours of sun.", "Water it when the soil is dry.", "Frost kills the plant."),
        (("How much sun does basil need?", 0), ("What kills basil?", 2)),
    ),
    (
        ("The mill was built in 1874.", "Its wheel is 5 metres wide.", "Visitors must wear a helmet."),
        (("When was the mill built?", 0), ("What must visitors of the mill wear?", 2)),
    ),
    (
        ("The choir meets on Tuesday.", "New singers are welcome in March.", "Nobody has to read music."),
        (("On which day does the choir meet?", 0), ("When are new singers welcome?", 1)),
    ),
    (
        ("The lamp has a battery for 8 hours.", "It is charged in 3 hours.", "The case is not waterproof."),
        (("How long does the battery of the lamp last?", 0), ("Is the lamp waterproof?", 2)),
    ),
)
_UNKNOWN = ("Who painted the ceiling?", "How deep is the lake?", "Which bus goes to the airport?")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
RECIPE = InterpreterRecipe(
    epochs=40, rank=16, lr=8e-3, batch=4, accumulate=1, max_length=400, dropout=0.0, measured=20, max_tokens=60
)


def entries() -> Iterator[dict[str, Any]]:
    """Evidence rows; those of the last two passages are `dev`."""
    for number, (sentences, questions) in enumerate(PASSAGES):
        starts = [sum(len(sentence) + 1 for sentence in sentences[:at]) for at in range(len(sentences))]
        known = {"passage": " ".join(sentences), "sentence_starts": starts, "source": "toy", "licence": "MIT"}
        known["split"] = "train" if number < 4 else "dev"
        for question, at in questions:
            yield {**known, "question": question, "answer_sentences": [at], "answerable": True}
        unknown = _UNKNOWN[number % len(_UNKNOWN)]
        yield {**known, "question": unknown, "answer_sentences": [], "answerable": False}


def write_rows(path: Path) -> Path:
    """The evidence rows as a file."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries()), encoding="utf-8")
    return path


def write_model(folder: Path, *, template: str | None = TEMPLATE, steps: int = 0, seed: int = 0) -> Path:
    """A Llama of two small layers; it saw the authored text for some steps, or none.

    Its tokenizer takes the prompt's rules, which are always the same, for one token.
    """
    text = [line for sentences, questions in PASSAGES for line in (*sentences, *(q for q, _ in questions))]
    text += [*_UNKNOWN, "PASSAGES", "QUESTION", "NO_ANSWER", "system user assistant", "[1] [2] [3] toy | >"]
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
    )
    fast.add_tokens([RULES])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.3)  # else its logits could never be sure
    _pretrain(model, [tokenizer.encode(line) for line in text], steps)
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    if shown:
        transformers_logging.enable_progress_bar()
    return folder


def _pretrain(model: LlamaForCausalLM, lines: Sequence[Sequence[int]], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    width = max(map(len, lines))
    ids = torch.tensor([[*line, *[0] * (width - len(line))] for line in lines])
    labels = ids.masked_fill(ids == 0, -100)
    model.train()
    for _ in range(steps):
        model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="airlock-interpreter-", ignore_cleanup_errors=True)


def folder() -> Path:
    """A folder for what all tests share."""
    return Path(_folder().name)


@functools.cache
def tiny() -> Path:
    """The tiny model, once for all tests."""
    torch.set_num_threads(1)
    return write_model(folder() / "base", steps=30)


@functools.cache
def rows() -> Path:
    """The evidence rows."""
    return write_rows(folder() / "rows.jsonl")


def train_toy(out: Path, recipe: InterpreterRecipe = RECIPE, **options: Any) -> dict[str, Any]:
    """Train on the rows; the manifest."""
    run = InterpreterRun(
        base=options.pop("base", None) or tiny(),
        data=[rows()],
        out=out,
        recipe=recipe,
        name="toy",
        files=[rows()],
        **options,
    )
    with (
        mock.patch("training.manifest._git", return_value="0123456789ab"),
        mock.patch("training.intervals._RESAMPLES", 20),
    ):
        return train_interpreter(run)


@functools.cache
def toy() -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a model that knows the rows by heart; not to be changed."""
    return folder() / "model", train_toy(folder() / "model")
