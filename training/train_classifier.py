"""Train the tier classifier: LoRA on a frozen encoder and a category head, on labelled rows."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from classifier.encoder import Encoder, load_encoder
from classifier.model import ClassifierSettings, OperatingPoint, TierClassifier, TierModel
from classifier.taxonomy import Taxonomy
from training.card import write_card
from training.checkpoint import Checkpoint
from training.datasets import Row, TrainingError, hold_out, read_all
from training.evaluate import choose_operating_point, evaluate_classifier
from training.fit import Fit, TrainSettings
from training.frozen import FrozenLayers
from training.manifest import adapter_sha256, file_sha256, provenance, write_json

_PROOF = ("classifier.json", "manifest.json")
_WATCHED = 2000  # rows that choose the best epoch


def train_classifier(
    *,
    taxonomy: Taxonomy,
    data: Sequence[Path],
    out: Path,
    encoder_name: str,
    settings: TrainSettings,
    name: str,
    start: Path | None = None,
    labels: Path | None = None,
    without: Sequence[str] = (),
    limit: int | None = None,
) -> dict[str, Any]:
    """Train on the rows of split `train`, choose the operating point on rows held out of it, save, measure on `dev`.

    A run that was interrupted goes on where it stopped when it is started again with the same settings and data.

    Args:
        taxonomy: what the outputs mean.
        data: JSONL files of rows.
        out: folder for the model.
        encoder_name: as for `classifier.encoder.load_encoder`.
        settings: the recipe.
        name: of the model.
        start: a model folder of the same encoder and taxonomy to go on from.
        labels: decisions that replace labels of the data; see `training.datasets.read_decisions`.
        without: sources whose rows are kept out altogether, for `airlock eval folds` to test on.
        limit: rows to train on, chosen at random.

    Returns:
        The manifest, which is also written to ``out/manifest.json``; nothing on any device but the first.

    Raises:
        TrainingError: the data cannot be trained with, `out` already holds a model, or a run of other settings.
        ClassifierError: the encoder or the taxonomy is at fault.
    """
    if any((out / file).exists() for file in _PROOF):
        raise TrainingError(f"{out} already holds a trained model; give another --out or remove it")
    torch.set_num_threads(settings.threads)
    files = [*data, *([labels] if labels else [])]
    rows = read_all(data, taxonomy, labels)
    made_from = provenance(seed=settings.seed, data=files)
    unknown = {*without, *settings.watch} - {row.source for row in rows}
    if unknown:
        raise TrainingError(
            f"--without or --watch {', '.join(sorted(unknown))}: no row is of that source; see `source` in the data"
        )
    twice = set(without) & set(settings.watch)
    if twice:
        raise TrainingError(
            f"--watch {', '.join(sorted(twice))}: kept out for the test, it cannot choose the epoch too"
        )
    apart = {*without, *settings.watch}
    watched = [row for row in rows if row.split == "train" and row.source in settings.watch]
    kept = [row for row in rows if row.split == "train" and row.source not in apart]
    train_rows, validation_rows = hold_out(kept, settings.validation)
    if limit:
        train_rows = random.Random(settings.seed).sample(train_rows, min(limit, len(train_rows)))
    if not train_rows or not validation_rows:
        files_named = ", ".join(map(str, data))
        raise TrainingError(
            f"{files_named}: too few rows of split `train` to hold out {settings.validation:.0%}; add rows"
        )
    dev_rows = [row for row in rows if row.split == "dev" and row.source not in apart]
    measured = validation_rows if without else dev_rows or validation_rows
    fresh = load_encoder(encoder_name)
    if settings.precision == "bf16":
        fresh.model.set_attn_implementation("eager")  # the fused one's backward is slow in bf16
    torch.manual_seed(settings.seed)
    frozen = FrozenLayers(fresh, settings.frozen) if settings.frozen else None
    model = TierModel.untrained(fresh, len(taxonomy.categories), _lora(fresh, settings))
    if start:
        _go_on_from(model, TierClassifier.load(start, fresh), taxonomy)
    lineage = _lineage(start) if start else None
    described = _describe(fresh, taxonomy, settings, name, OperatingPoint())
    TierClassifier(model, fresh, taxonomy, described)  # refuses windows before time is spent
    if settings.train_window > settings.window:
        raise TrainingError(
            f"train_window = {settings.train_window} is longer than window = {settings.window}, which the finished "
            "classifier reads at a time; shorten it"
        )
    fit = Fit(model, fresh, taxonomy, settings, frozen)
    recipe = {
        "settings": asdict(settings),
        "encoder": fresh.sha256,
        "taxonomy": taxonomy.version,
        "data": [file_sha256(path) for path in files],
        "without": sorted(without),
        "limit": limit,
        "start": lineage["adapter_sha256"] if lineage else None,
        "devices": fit.devices,
    }
    progress = Checkpoint.at(out / "checkpoint", recipe)
    started = time.monotonic()
    with frozen.apart_from(model) if frozen else nullcontext():
        losses = fit.run(train_rows, _some(watched or validation_rows, settings.seed), progress)
    seconds = time.monotonic() - started
    if not fit.first:
        return {}
    finished = out / "checkpoint" / "model"  # moved when all is measured, so that no half-made model can be used
    model.standardize(torch.zeros_like(model.centre), torch.ones_like(model.spread))
    TierClassifier(model, fresh, taxonomy, described).save(finished)
    del model, fresh, fit, frozen

    encoder = load_encoder(encoder_name)  # what is measured is what was saved, in single precision
    classifier = TierClassifier.load(finished, encoder)
    point = choose_operating_point(classifier, validation_rows, settings.max_flagged, settings.max_refused)
    _describe(encoder, taxonomy, settings, name, point).save(finished)
    classifier = TierClassifier.load(finished, encoder)
    manifest = {
        "name": name,
        "encoder": encoder.name,
        "taxonomy": taxonomy.version,
        "operating_point": asdict(point),
        "settings": asdict(settings),
        "start": lineage,
        "without": sorted(without),
        "trained_on": sorted({row.source for row in train_rows} | set(lineage["trained_on"] if lineage else ())),
        "rows": {"train": len(train_rows), "validation": len(validation_rows), "measured": len(measured)},
        "measured_on": "dev" if measured is dev_rows else "validation",
        "epochs": losses,
        "seconds": round(seconds, 1),
        "figures": evaluate_classifier(classifier, measured, seed=settings.seed),
        **made_from,
    }
    write_card(finished, manifest, train_rows)
    write_json(finished / "manifest.json", manifest)
    for path in sorted(finished.iterdir(), key=lambda path: path.name in _PROOF):  # these say that all is there
        path.replace(out / path.name)
    progress.remove()
    return manifest


def _some(rows: Sequence[Row], seed: int) -> list[Row]:
    return random.Random(seed).sample(rows, min(_WATCHED, len(rows)))


def _lineage(start: Path) -> dict[str, Any]:
    """What a model was made from, and those it went on from."""
    kept = ("name", "trained_on", "settings", "rows", "epochs", "seed", "data", "commit", "start")
    try:
        manifest = json.loads((start / "manifest.json").read_text(encoding="utf-8"))
        told = {key: manifest[key] for key in kept}
    except (OSError, ValueError, KeyError) as exc:
        raise TrainingError(
            f"--from {start}: its manifest.json does not say what it was made from ({exc!r}); train it anew"
        ) from exc
    return {"adapter_sha256": adapter_sha256(start), **told}


def _lora(encoder: Encoder, settings: TrainSettings) -> LoraConfig:
    targets: str | list[str] = "all-linear"
    if settings.frozen:
        below = tuple(f"encoder.layer.{layer}." for layer in range(settings.frozen))
        linear = [name for name, module in encoder.model.named_modules() if isinstance(module, torch.nn.Linear)]
        targets = [name for name in linear if name.startswith("encoder.layer.") and not name.startswith(below)]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules=targets,
        exclude_modules=".*pooler.*" if targets == "all-linear" and _has_pooler(encoder) else None,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
    )


@torch.no_grad()
def _go_on_from(model: TierModel, trained: TierClassifier, taxonomy: Taxonomy) -> None:
    if trained.taxonomy.version != taxonomy.version:
        raise TrainingError(f"{trained.settings.name} has another taxonomy; start from a model of {taxonomy.name!r}")
    learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
    known = dict(trained.model.named_parameters())
    adapter = {name for name in known if "lora_" in name}
    ours, theirs = (each.encoder.active_peft_config for each in (model, trained.model))
    same = adapter <= learnt.keys() <= known.keys() and ours.use_rslora == theirs.use_rslora
    if not same or any(known[name].shape != value.shape for name, value in learnt.items()):
        raise TrainingError(
            f"{trained.settings.name} has another kind of adapter; give its rank, kind and number of frozen layers"
        )
    for name, value in learnt.items():
        value.copy_(known[name])


def _has_pooler(encoder: Encoder) -> bool:
    return any("pooler" in name for name, _ in encoder.model.named_modules())


def _describe(
    encoder: Encoder, taxonomy: Taxonomy, settings: TrainSettings, name: str, point: OperatingPoint
) -> ClassifierSettings:
    return ClassifierSettings(
        name=name,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        taxonomy_version=taxonomy.version,
        window=settings.window,
        overlap=settings.window // 4,
        operating_point=point,
    )
