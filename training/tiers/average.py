"""Average the weights of runs that differ in their seed only: one model, no slower than each.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", arXiv 2203.05482.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.network import network_of, save_model
from classifier.settings import ClassifierSettings
from training.datasets import TrainingError, read_all
from training.lineage import read_manifest
from training.manifest import provenance, refuse_finished
from training.tiers.settings import settings_of
from training.tiers.train_classifier import Split, complete, refuse_other_data

_OF_A_RUN = ("name", "seed", "adapter_sha256", "epochs", "seconds", "figures")
_RECIPE = ("encoder", "taxonomy", "start", "teachers", "without", "devices")
_FREE = {"seed", "threads"}


def average_classifiers(
    *, models: Sequence[Path], data: Sequence[Path], out: Path, name: str, labels: Path | None = None
) -> dict[str, Any]:
    """Average models, choose the operating point of the result on the rows that none of them saw, measure it.

    Args:
        models: folders of at least two models that `airlock train classifier` made with the same settings, but for the
            seed, from the same data, teachers and start: weights that went apart from different starts do not average.
        data: the JSONL files that they were trained on, in the same order.
        out: folder for the model.
        name: of the model.
        labels: the decisions that they were trained with.

    Returns:
        The manifest, which is also written to ``out/manifest.json``. Its `averaged` holds the figures of each model.

    Raises:
        TrainingError: the models are not of one recipe or of these data, or `out` already holds a model.
        ClassifierError: a model is damaged.
    """
    refuse_finished(out)
    if len(models) < 2:
        raise TrainingError(f"{len(models)} model to average; give two or more that differ in their seed")
    manifests = [read_manifest(folder) for folder in models]
    for folder, manifest in zip(models, manifests, strict=True):
        _check(folder, manifest, models[0], manifests[0])
    first = manifests[0]
    seeds = [manifest["seed"] for manifest in manifests]
    if len(set(seeds)) < len(seeds):
        raise TrainingError(f"{', '.join(map(str, models))} are of seeds {', '.join(map(str, seeds))}; give each once")
    described = ClassifierSettings.load(models[0])
    encoder = load_encoder(described.encoder)
    result = TierClassifier.load(models[0], encoder)
    taxonomy = result.taxonomy
    rows = read_all(data, taxonomy, labels)
    files = [*data, *([labels] if labels else [])]
    made_from = provenance(seed=seeds[0], data=files)
    refuse_other_data(models[0], first, made_from["data"], files)
    settings = settings_of(models[0], first)
    torch.set_num_threads(settings.threads)

    _add_up([result, *(TierClassifier.load(folder, encoder) for folder in models[1:])])
    finished = out / "averaged"
    shutil.rmtree(finished, ignore_errors=True)
    save_model(network_of(result.runtime), taxonomy, replace(described, name=name), finished)
    del result, encoder
    split = Split.of(rows, settings, first["without"], None, where=", ".join(map(str, data)))
    made = {
        **{key: first[key] for key in ("settings", "start", "teachers", "without", "limit", "trained_on", "devices")},
        "epochs": [],  # each run has its own
        "seconds": round(sum(manifest["seconds"] for manifest in manifests), 1),
        "averaged": [{key: manifest[key] for key in _OF_A_RUN} for manifest in manifests],
        **made_from,
    }
    manifest = complete(finished, out, described.encoder, settings, split, made)
    finished.rmdir()
    return manifest


def _check(folder: Path, manifest: Mapping[str, Any], against: Path, first: Mapping[str, Any]) -> None:
    """Refuse what does not average."""
    unfit = {
        "is an average itself": "averaged" in manifest,
        "is of recipe `few`, which begins at random; train the runs with --recipe full --from one model": bool(
            manifest["settings"].get("folds")
        ),
        "was trained on a part of its rows (--limit); train it without --limit": manifest["limit"] is not None,
        "was trained from random weights of its own; train the runs --from one model": manifest["start"] is None,
    }
    for fault, found in unfit.items():
        if found:
            raise TrainingError(f"{folder} {fault}")
    ours, theirs = manifest["settings"], first["settings"]
    other = {key for key in {*ours, *theirs} - _FREE if ours.get(key) != theirs.get(key)}
    other |= {key for key in _RECIPE if _told(manifest[key]) != _told(first[key])}
    if list(manifest["data"].items()) != list(first["data"].items()):
        other.add("data")
    if other:
        raise TrainingError(
            f"{folder} differs from {against} in {', '.join(sorted(other))}; average runs of one recipe that differ in "
            "--seed"
        )


def _told(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A value of a manifest; of other models the weights alone, as later versions tell more of how they were made."""
    if isinstance(value, list):
        return [_told(each) for each in value]
    return value.get("adapter_sha256", value) if isinstance(value, Mapping) else value


@torch.no_grad()
def _add_up(classifiers: Sequence[TierClassifier]) -> None:
    """Give the first one the mean of what was learnt."""
    sources = [dict(network_of(classifier.runtime).named_parameters()) for classifier in classifiers]
    for name, value in sources[0].items():
        if "lora_" in name or name.startswith("head."):
            value.copy_(torch.stack([source[name] for source in sources]).mean(0))
