"""A tiny encoder without knowledge, toy rows for the models that read pairs, and models trained on these in seconds."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from classifier.encoder import Encoder, load_encoder
from training.grounding.fit_pairs import PairRecipe
from training.grounding.pair_run import PairRun
from training.grounding.train_reader import train_reader
from training.grounding.train_support import train_support

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = "rose lawn tulip soil spade hedge seed apple tree bench water leaf grows slowly there".split()
KEY, DENIAL, NOISE = "key", "never", "noise"  # what answers; what contradicts; what says nothing
RECIPE = PairRecipe(rank=8, epochs=4, batch=8, lr=1e-2, averaging=0.9, window=48)


def write_encoder(folder: Path, *, positions: int = 64, seed: int = 0) -> Path:
    """A BERT of two small layers with random weights, and a tokenizer that knows `WORDS` and punctuation."""
    vocabulary = [*_SPECIAL, *WORDS, KEY, DENIAL, NOISE, "where", "is", "it", "title", ".", "?"]
    fast = Tokenizer(models.WordLevel({word: at for at, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def words(rng: random.Random, *extra: str) -> str:
    """A sentence of common words, with others among them."""
    chosen = [*rng.choices(WORDS, k=rng.randint(3, 6)), *extra]
    rng.shuffle(chosen)
    return " ".join(chosen) + " ."


def evidence_entries(count: int, split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Questions whose answer is the sentence that says `KEY`; a fifth have none."""
    rng = random.Random(f"{seed}/{split}")
    entries = []
    for _ in range(count):
        size = rng.randint(2, 5)
        right = None if rng.random() < 0.2 else rng.randrange(size)
        sentences = [words(rng, KEY) if at == right else words(rng) for at in range(size)]
        starts = [sum(len(sentence) + 1 for sentence in sentences[:at]) for at in range(size)]
        entries.append(
            {
                "question": "where is it ?",
                "passage": " ".join(sentences),
                "sentence_starts": starts,
                "answer_sentences": [] if right is None else [right],
                "answerable": right is not None,
                "source": "toy",
                "licence": "MIT",
                "split": split,
            }
        )
    return entries


def claim_entries(count: int, split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Claims that say `KEY`, `DENIAL` or `NOISE`; a second source tells only two labels apart."""
    rng = random.Random(f"{seed}/{split}")
    labels = {KEY: "supported", DENIAL: "contradicted", NOISE: "not_supported"}
    entries = []
    for number in range(count):
        says = rng.choice(list(labels))
        two_way = number % 3 == 0
        label = "not_supported" if two_way and says == DENIAL else labels[says]
        entries.append(
            {
                "passage": words(rng),
                "claim": words(rng, says, says),
                "label": label,
                "source": "two" if two_way else "three",
                "licence": "MIT",
                "split": split,
            }
        )
    return entries


def write_rows(path: Path, entries: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="airlock-pairs-", ignore_cleanup_errors=True)


@functools.cache
def tiny() -> Encoder:
    """The tiny encoder, once for all tests."""
    torch.set_num_threads(1)
    return load_encoder(str(write_encoder(Path(_folder().name) / "encoder")))


def train_toy_reader(out: Path, data: Path, recipe: PairRecipe = RECIPE, **options: Any) -> dict[str, Any]:
    """Train a reader, without passages in others' places, since all toy passages answer; the manifest."""
    with (
        mock.patch("training.manifest._git", return_value="0123456789ab"),
        mock.patch("training.intervals._RESAMPLES", 20),
        mock.patch("training.grounding.train_reader.swapped", return_value=[]),
        mock.patch("training.grounding.evaluate_reader.swapped", return_value=[]),
    ):
        return train_reader(PairRun("reader", [data], out, recipe, "toy", **options), tiny().name)


def train_toy_support(out: Path, data: Path, recipe: PairRecipe = RECIPE, **options: Any) -> dict[str, Any]:
    """Train a support model on labelled rows only; the manifest."""
    with (
        mock.patch("training.manifest._git", return_value="0123456789ab"),
        mock.patch("training.intervals._RESAMPLES", 20),
    ):
        return train_support(PairRun("support", [data], out, recipe, "toy", **options), tiny().name, [data], [], 0)


@functools.cache
def toy_reader() -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a reader that knows the toy rows; not to be changed."""
    folder = Path(_folder().name)
    entries = evidence_entries(96, "train") + evidence_entries(40, "dev")
    return folder / "reader", train_toy_reader(folder / "reader", write_rows(folder / "evidence.jsonl", entries))


@functools.cache
def toy_support() -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a support model that knows the toy rows; not to be changed."""
    folder = Path(_folder().name)
    entries = claim_entries(96, "train") + claim_entries(60, "dev")
    return folder / "support", train_toy_support(folder / "support", write_rows(folder / "claims.jsonl", entries))
