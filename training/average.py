"""Average the weights of runs that differ in their seed only: one model, better on texts of other sources than each.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", arXiv 2203.05482.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from classifier.encoder import load_encoder
from classifier.model import ClassifierSettings, TierClassifier
from training.datasets import TrainingError, read_all
from training.fit import TrainSettings
from training.manifest import file_sha256, provenance
from training.train_classifier import Split, complete, lineage_of, refuse_finished

_OF_A_RUN = ("name", "seed", "adapter_sha256", "epochs", "seconds", "figures")
_MUST_AGREE = ("encoder", "taxonomy", "start", "without", "limit", "data")


def average_classifiers(
    *, models: Sequence[Path], data: Sequence[Path], out: Path, name: str, labels: Path | None = None
) -> dict[str, Any]:
    """Average models, choose the operating point of the result on the rows that none of them saw, measure it.

    Args:
        models: folders of at least two models that `airlock train classifier` made with the same settings, but for the
            seed, from the same data and the same start: weights that went apart from different starts do not average.
        data: the JSONL files that they were trained on.
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
    manifests = [_manifest(folder) for folder in models]
    first = manifests[0]
    files = [*data, *([labels] if labels else [])]
    for folder, manifest in zip(models, manifests, strict=True):
        other = [key for key in _MUST_AGREE if manifest[key] != first[key]]
        other += [key for key, value in first["settings"].items() if manifest["settings"].get(key) != value]
        if set(other) - {"seed"}:
            raise TrainingError(
                f"{folder} differs from {models[0]} in {', '.join(sorted({*other} - {'seed'}))}; average runs of one "
                "recipe that differ in --seed"
            )
    if sorted(first["data"].values()) != sorted(map(file_sha256, files)):
        raise TrainingError(f"{models[0]} was trained on other data than {', '.join(map(str, files))}; give the same")
    lists = {key: tuple(value) for key, value in first["settings"].items() if isinstance(value, list)}
    settings = TrainSettings(**{**first["settings"], **lists})
    torch.set_num_threads(settings.threads)

    described = ClassifierSettings.load(models[0])
    encoder = load_encoder(described.encoder)
    result = TierClassifier.load(models[0], encoder)
    _add_up([result, *(TierClassifier.load(folder, encoder) for folder in models[1:])])
    finished = out / "averaged"
    shutil.rmtree(finished, ignore_errors=True)
    TierClassifier(result.model, encoder, result.taxonomy, replace(described, name=name)).save(finished)
    taxonomy = result.taxonomy
    del result, encoder

    rows = read_all(data, taxonomy, labels)
    split = Split.of(rows, settings, first["without"], first["limit"], where=", ".join(map(str, data)))
    made = {
        **{key: first[key] for key in ("settings", "start", "without", "limit", "trained_on")},
        "epochs": [],  # each run has its own
        "seconds": round(sum(manifest["seconds"] for manifest in manifests), 1),
        "averaged": [{key: manifest[key] for key in _OF_A_RUN} for manifest in manifests],
        **provenance(seed=settings.seed, data=files),
    }
    manifest = complete(finished, out, described.encoder, settings, split, made)
    finished.rmdir()
    return manifest


@torch.no_grad()
def _add_up(classifiers: Sequence[TierClassifier]) -> None:
    """Give the first one the mean of what was learnt."""
    sources = [dict(classifier.model.named_parameters()) for classifier in classifiers]
    for name, value in sources[0].items():
        if "lora_" in name or name.startswith("head."):
            value.copy_(torch.stack([source[name] for source in sources]).mean(0))


def _manifest(folder: Path) -> dict[str, Any]:
    told = lineage_of(folder)
    rest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {"without": [], "limit": None, **rest, **told}
