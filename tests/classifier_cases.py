"""A small taxonomy, rows of harmless words with a made-up word for each tier, and a classifier trained on them."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from classifier.encoder import Encoder, load_encoder
from classifier.model import TierClassifier
from classifier.network import TorchRuntime
from classifier.settings import ClassifierSettings, OperatingPoint
from classifier.taxonomy import Category, Taxonomy
from classifier.types import E5_SMALL, MINILM, Coverage, Handling, Span, Tier, Verdict
from training.tiers.settings import TrainSettings
from training.tiers.train_classifier import train_classifier

TAXONOMY = Taxonomy(
    name="toy",
    categories=(
        Category("u_zorblax", Tier.UNSAFE, "Texts that say zorblax.", Handling.REFUSE),
        Category("s_garden", Tier.SAFE, "Gardens.", Handling.ANSWER),
        Category("c_flimwick", Tier.CONDITIONALLY_SAFE, "Texts that say flimwick.", Handling.GROUND),
        Category("s_kitchen", Tier.SAFE, "Kitchens.", Handling.ANSWER),
        Category("f_grundle", Tier.FOCUSED_ATTENTION, "Texts that say grundle.", Handling.BALANCE),
    ),
)
MARKER = "zorblax zorblax zorblax zorblax"
_WORDS = {
    "s_garden": "rose lawn tulip soil spade hedge seed apple tree bench water leaf".split(),
    "s_kitchen": "bread oven knife butter spoon plate soup salt table cup kettle pan".split(),
}
_FILLER = [word for words in _WORDS.values() for word in words]


def filler(words: int, seed: int) -> str:
    """Safe words in random order, none of which is more than two tokens."""
    return " ".join(random.Random(seed).choices(_FILLER, k=words))


def marked(marker: str, words: int, seed: int) -> str:
    """Safe words with a marker among them."""
    parts = filler(words, seed).split()
    parts.insert(random.Random(seed).randint(0, words), marker)
    return " ".join(parts)


def toy_entries(each: int, split: str, seed: int = 0) -> list[dict[str, str]]:
    """Labelled lines, `each` for every category, any model that reads words can tell apart."""
    rng = random.Random(seed)
    entries = []
    for category in TAXONOMY.ids:
        for _ in range(each):
            words, number = rng.randint(3, 12), rng.randrange(10**6)
            if category in _WORDS:
                text = " ".join(random.Random(number).choices(_WORDS[category], k=words))
            else:
                text = marked(" ".join([category[2:]] * rng.randint(2, 4)), words, number)
            entries.append({"text": text, "category": category, "split": split, "source": f"toy-{category[0]}"})
    rng.shuffle(entries)
    return entries


def write_rows(path: Path, entries: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


SETTINGS = TrainSettings(rank=4, epochs=4, batch=10, lr=4e-3, window=32, train_window=32, validation=0.1)


def train_toy(
    folder: Path, entries: Iterable[Mapping[str, Any]], settings: TrainSettings = SETTINGS, **options: Any
) -> dict[str, Any]:
    """Train into ``folder/model``; the manifest. The commit is made up, so that no test depends on the checkout."""
    with mock.patch("training.manifest._git", return_value="0123456789ab"):
        return train_classifier(
            taxonomy=TAXONOMY,
            data=[write_rows(folder / "rows.jsonl", entries)],
            out=folder / "model",
            settings=settings,
            name="toy",
            **{"encoder_name": MINILM, **options},
        )


@functools.cache
def minilm() -> Encoder:
    """The smaller of the two encoders, once for all tests."""
    torch.set_num_threads(1)
    return load_encoder(MINILM)


@functools.cache
def e5_small() -> Encoder:
    """The larger one, once for all tests."""
    torch.set_num_threads(1)
    return load_encoder(E5_SMALL)


@functools.cache
def _toy_folder() -> tuple[tempfile.TemporaryDirectory[str], dict[str, Any]]:
    folder = tempfile.TemporaryDirectory(prefix="airlock-toy-", ignore_cleanup_errors=True)
    return folder, train_toy(Path(folder.name), toy_entries(14, "train") + toy_entries(5, "dev", seed=1))


def toy_model() -> Path:
    """The folder of a classifier that knows the made-up words; trained once, not to be changed."""
    return Path(_toy_folder()[0].name) / "model"


def toy_manifest() -> dict[str, Any]:
    """The manifest of `toy_model`."""
    return _toy_folder()[1]


@functools.cache
def toy_classifier() -> TierClassifier:
    """`toy_model`, loaded; at the default operating point, since so few rows choose a bad one."""
    loaded = TierClassifier.load(toy_model(), minilm())
    return TierClassifier(
        loaded.runtime, minilm(), TAXONOMY, replace(loaded.settings, operating_point=OperatingPoint())
    )


@functools.cache
def _small_folder() -> tuple[tempfile.TemporaryDirectory[str], tempfile.TemporaryDirectory[str]]:
    encoder, model = (
        tempfile.TemporaryDirectory(prefix=f"airlock-small-{name}-", ignore_cleanup_errors=True)
        for name in ("encoder", "model")
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(minilm().tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(encoder.name)
    minilm().tokenizer.save_pretrained(encoder.name)
    train_toy(Path(model.name), toy_entries(14, "train"), replace(SETTINGS, epochs=1), encoder_name=encoder.name)
    return encoder, model


def small_encoder() -> str:
    """The folder of a random encoder of two layers, for trainings that need not learn: a quarter of the time."""
    return _small_folder()[0].name


def small_model() -> Path:
    """The folder of a classifier on `small_encoder`, which knows nothing; not to be changed."""
    return Path(_small_folder()[1].name) / "model"


class KeywordModel(nn.Module):
    """In the place of a `TierModel`: as sure of a category as its keyword is of a window's tokens, and else Safe."""

    def __init__(self, taxonomy: Taxonomy = TAXONOMY):
        super().__init__()
        self.head = nn.Linear(1, len(taxonomy.categories))
        self.batches: list[tuple[int, int]] = []
        self.taxonomy = taxonomy

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.batches.append(tuple(input_ids.shape))
        logits = torch.zeros(len(input_ids), len(self.taxonomy.categories))
        for index, category in enumerate(self.taxonomy.categories):
            if category.tier is Tier.SAFE:
                logits[:, index] = 4.0
            else:
                word = minilm().tokenizer(category.id[2:], add_special_tokens=False)["input_ids"]
                padded = functional.pad(input_ids, (0, len(word)))
                found = (padded.unfold(1, len(word), 1) == torch.tensor(word)).all(-1).sum(-1)
                logits[:, index] = torch.where(found > 0, 5.0 + found, 0.0)
        return logits


def keyword_classifier(
    model: KeywordModel | None = None, *, window: int = 256, overlap: int = 64, **settings: Any
) -> TierClassifier:
    """A classifier with real tokens and windows and a `KeywordModel`."""
    described = ClassifierSettings("keyword", "minilm", minilm().sha256, TAXONOMY.version, window, overlap)
    return TierClassifier(TorchRuntime(model or KeywordModel(), minilm()), minilm(), TAXONOMY, described, **settings)


@dataclass
class Spoken:
    """A classifier whose verdict is written in the text: ``category risk unsafe``."""

    taxonomy: Taxonomy = TAXONOMY

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        return [self._verdict(*text.split()) for text in texts]

    def _verdict(self, name: str, risk: str = "0.0", unsafe: str = "0.0") -> Verdict:
        category = self.taxonomy.category(name)
        tiers = dict.fromkeys(Tier, 0.0)
        tiers |= {Tier.SAFE: 1 - float(risk), Tier.UNSAFE: float(unsafe)}
        tiers[Tier.CONDITIONALLY_SAFE] = float(risk) - float(unsafe)
        coverage = Coverage(tokens=1, windows=1, read=1.0)
        return Verdict(category.tier, name, category.handling, tiers, 1.0, Span(0, 1), coverage, "spoken@0")
