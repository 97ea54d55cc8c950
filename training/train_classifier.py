"""Train the tier classifier: LoRA on a frozen encoder and a category head, on labelled rows."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from classifier.encoder import Encoder, load_encoder
from classifier.model import ClassifierSettings, OperatingPoint, TierClassifier, TierModel
from classifier.normalize import normalize
from classifier.taxonomy import Taxonomy
from training.card import write_card
from training.datasets import Row, TrainingError, hold_out, read_rows
from training.evaluate import choose_operating_point, evaluate_classifier
from training.manifest import provenance, write_json

Example = tuple[list[int], int]  # token ids, index of the category


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The recipe; saved with the weights.

    Attributes:
        rank: LoRA rank; adapters sit on every linear layer of the encoder, scaled by 2.
        epochs: passes over the rows.
        batch: rows in a step.
        lr: peak learning rate of the adapter; the head learns at twice that. Linear warm-up over a twentieth of
            the steps, then linear decay.
        tier_weight: weight of the tier loss (the negative log of the summed probability of the right tier) beside the
            category loss; the tier decides the route, the category only the words.
        joined: share of the rows that a step sees together with another row, as one text of the riskier one's category:
            neither turns taken together nor a longer text are a risk in themselves.
        smoothing: label smoothing of the category loss; most labels here are derived, not annotated.
        window: tokens that the finished classifier reads at a time.
        train_window: tokens of a text that training sees: of a longer one, each epoch takes the beginning or the end,
            at random. Long windows cost most of the time: 254 tokens train at a fifth of the rows a second of 48.
        validation: share of the training rows held out to choose the operating point.
        max_flagged: share of Safe validation rows that the operating point may flag.
        seed: of everything random.
        threads: torch threads.
    """

    rank: int = 16
    epochs: int = 3
    batch: int = 32
    lr: float = 1e-3
    tier_weight: float = 1.0
    joined: float = 0.15
    smoothing: float = 0.05
    window: int = 256
    train_window: int = 128
    validation: float = 0.05
    max_flagged: float = 0.08
    seed: int = 0
    threads: int = 1


def train_classifier(
    *,
    taxonomy: Taxonomy,
    data: Path,
    out: Path,
    encoder_name: str,
    settings: TrainSettings,
    name: str,
    limit: int | None = None,
) -> dict[str, Any]:
    """Train on the rows of split `train`, choose the operating point on rows held out of it, save, measure on `dev`.

    Returns:
        The manifest, which is also written to ``out/manifest.json``.

    Raises:
        TrainingError: the data cannot be trained with, or `out` already holds a model.
        ClassifierError: the encoder or the taxonomy is at fault.
    """
    if any((out / name).exists() for name in ("classifier.json", "manifest.json")):
        raise TrainingError(f"{out} already holds a trained model; give another --out or remove it")
    torch.set_num_threads(settings.threads)
    rows = read_rows(data, taxonomy)
    made_from = provenance(seed=settings.seed, data=[data])
    rng = random.Random(settings.seed)
    train_rows = [row for row in rows if row.split == "train"]
    if limit:
        train_rows = rng.sample(train_rows, min(limit, len(train_rows)))
    train_rows, validation_rows = hold_out(train_rows, settings.validation, settings.seed)
    if not train_rows or not validation_rows:
        raise TrainingError(f"{data}: too few rows of split `train` to hold out {settings.validation:.0%}; add rows")

    encoder = load_encoder(encoder_name)
    torch.manual_seed(settings.seed)
    model = TierModel.untrained(encoder, len(taxonomy.categories), _lora(settings))
    _classifier(model, encoder, taxonomy, settings, name, OperatingPoint())  # refuses windows before time is spent
    started = time.monotonic()
    losses = _fit(model, encoder, taxonomy, train_rows, settings, rng)
    seconds = time.monotonic() - started

    classifier = _classifier(model, encoder, taxonomy, settings, name, OperatingPoint())
    point = choose_operating_point(classifier, validation_rows, settings.max_flagged)
    classifier = _classifier(model, encoder, taxonomy, settings, name, point)
    classifier.save(out)
    classifier = TierClassifier.load(out, encoder)  # what is measured is what was saved
    dev_rows = [row for row in rows if row.split == "dev"]
    manifest = {
        "name": name,
        "encoder": encoder.name,
        "taxonomy": taxonomy.version,
        "operating_point": asdict(point),
        "settings": asdict(settings),
        "rows": {"train": len(train_rows), "validation": len(validation_rows), "dev": len(dev_rows)},
        "measured_on": "dev" if dev_rows else "validation",
        "loss_by_epoch": losses,
        "seconds": round(seconds, 1),
        "figures": evaluate_classifier(classifier, dev_rows or validation_rows, seed=settings.seed),
        **made_from,
    }
    write_card(out, manifest, train_rows)
    write_json(out / "manifest.json", manifest)
    return manifest


def _lora(settings: TrainSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules="all-linear",
        exclude_modules=".*pooler.*",
    )


def _classifier(
    model: TierModel,
    encoder: Encoder,
    taxonomy: Taxonomy,
    settings: TrainSettings,
    name: str,
    point: OperatingPoint,
) -> TierClassifier:
    described = ClassifierSettings(
        name=name,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        taxonomy_version=taxonomy.version,
        window=settings.window,
        overlap=settings.window // 4,
        operating_point=point,
    )
    return TierClassifier(model, encoder, taxonomy, described)


def _fit(
    model: TierModel,
    encoder: Encoder,
    taxonomy: Taxonomy,
    rows: Sequence[Row],
    settings: TrainSettings,
    rng: random.Random,
) -> list[float]:
    """Run the epochs; the mean loss of each."""
    targets = {category: index for index, category in enumerate(taxonomy.ids)}
    encoded = encoder.tokenizer([normalize(row.text) for row in rows], add_special_tokens=False, verbose=False)
    examples = [(ids, targets[row.category]) for ids, row in zip(encoded["input_ids"], rows, strict=True)]
    size = settings.train_window - len(encoder.before) - len(encoder.after)
    tiers = torch.tensor(taxonomy.tier_indices)
    steps = math.ceil(len(examples) / settings.batch) * settings.epochs
    optimizer, schedule = _optimizer(model, settings, steps)
    losses = []
    model.train()
    model.encoder.eval()  # dropout inside the encoder triples the time of a step on a CPU; the head keeps its own
    with Progress(
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]} loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        task = progress.add_task("train", total=steps, epoch=1, epochs=settings.epochs, loss=float("nan"))
        for epoch in range(settings.epochs):
            total = 0.0
            seen = _join(examples, settings.joined, size, taxonomy.tier_indices, rng)
            for batch in _batches(seen, settings.batch, size, rng):
                loss = _loss(
                    model(**encoder.collate([ids for ids, _ in batch])),
                    torch.tensor([t for _, t in batch]),
                    tiers,
                    settings,
                )
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                total += loss.item() * len(batch)
                progress.update(task, advance=1, epoch=epoch + 1, loss=loss.item())
            losses.append(round(total / len(examples), 4))
            progress.console.print(f"epoch {epoch + 1}/{settings.epochs}: mean loss {losses[-1]:.4f}")
    return losses


def _optimizer(
    model: TierModel, settings: TrainSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    adapter = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": adapter, "lr": settings.lr}, {"params": model.head.parameters(), "lr": 2 * settings.lr}],
        weight_decay=0.01,
    )
    warm = max(1, steps // 20)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    )


def _loss(logits: Tensor, targets: Tensor, tiers: Tensor, settings: TrainSettings) -> Tensor:
    """Category cross-entropy plus the weighted negative log-probability of the right tier."""
    log_probabilities = logits.log_softmax(-1)
    category = functional.nll_loss(log_probabilities, targets) * (1 - settings.smoothing)
    category = category - settings.smoothing * log_probabilities.mean()
    same_tier = tiers[targets].unsqueeze(1) == tiers.unsqueeze(0)
    tier = -log_probabilities.masked_fill(~same_tier, float("-inf")).logsumexp(-1).mean()
    return category + settings.tier_weight * tier


def _batches(examples: Sequence[Example], batch: int, size: int, rng: random.Random) -> Iterator[list[Example]]:
    """One epoch: texts of like length together, batches in random order."""
    cut = [(ids[:size] if rng.random() < 0.5 else ids[-size:], target) for ids, target in examples]
    cut.sort(key=lambda example: len(example[0]) + rng.random() * 4)
    starts = list(range(0, len(cut), batch))
    rng.shuffle(starts)
    for start in starts:
        yield cut[start : start + batch]


def _join(
    examples: Sequence[Example], share: float, size: int, tiers: Sequence[int], rng: random.Random
) -> list[Example]:
    """The examples, a share of them together with another one, where both fit into `size` tokens."""
    result = []
    for example in examples:
        pair = [example, rng.choice(examples)]
        if rng.random() < share and sum(len(ids) for ids, _ in pair) <= size:
            rng.shuffle(pair)
            riskier = max((target for _, target in pair), key=lambda target: tiers[target])
            example = (pair[0][0] + pair[1][0], riskier)
        result.append(example)
    return result
