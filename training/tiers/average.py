"""Average the weights of runs that differ in their seed only, or of a run and its start: a model no slower than each.

Of seeds: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", arXiv 2203.05482. Of a run and the model that it went on from: Wortsman et al., "Robust
fine-tuning of zero-shot models", arXiv 2109.01903.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.calibration import AS_TRAINED
from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.network import network_of, save_model
from classifier.settings import ClassifierSettings, OperatingPoint
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
    """Average models, choose the operating point of the result on the rows that the runs held out, measure it.

    Args:
        models: folders of at least two models that `airlock train classifier` made with the same settings, but for the
            seed, from the same data, teachers and start: weights that went apart from different starts do not average.
            Or, in either order, of a run and of the model that it went on from, however that was made: the mean keeps
            what the start knew and most of what the run learnt; all but the weights is the run's.
        data: the JSONL files that they, or the run, were trained on, in the same order.
        out: folder for the model.
        name: of the model.
        labels: the decisions that they, or the run, were trained with.

    Returns:
        The manifest, which is also written to ``out/manifest.json``. Its `averaged` holds the figures of each model.

    Raises:
        TrainingError: the models are neither of one recipe nor a run and its start, the data are others, or `out`
            already holds a model.
        ClassifierError: a model is damaged.
    """
    refuse_finished(out)
    if len(models) < 2:
        raise TrainingError(
            f"{len(models)} model to average; give two or more that differ in their seed, or a run and the model that "
            "it went on from"
        )
    given = {folder: read_manifest(folder) for folder in models}
    pair = _run_and_start(given)
    models = pair or models
    runs = models[:1] if pair else models
    folder, first = models[0], given[models[0]]
    if not pair:
        _refuse_unlike_seeds(models, given)
    elif "averaged" in first:
        raise TrainingError(f"{folder} is an average itself; give a run that went on from {models[1]}")
    described = ClassifierSettings.load(folder)
    encoder = load_encoder(described.encoder)
    classifiers = {folder: TierClassifier.load(folder, encoder) for folder in models}
    taxonomy = classifiers[folder].taxonomy
    rows = read_all(data, taxonomy, labels)
    files = [*data, *([labels] if labels else [])]
    made_from = provenance(seed=first["seed"], data=files)
    refuse_other_data(folder, first, made_from["data"], files)
    settings = settings_of(folder, first)
    torch.set_num_threads(settings.threads)

    _add_up(classifiers)
    finished = out / "averaged"
    shutil.rmtree(finished, ignore_errors=True)
    anew = replace(described, name=name, operating_point=OperatingPoint(), calibration=AS_TRAINED)
    save_model(network_of(classifiers[folder].runtime), taxonomy, anew, finished)
    del classifiers, encoder
    split = Split.of(rows, settings, first["without"], first["limit"], where=", ".join(map(str, data)))
    made = {
        **{key: first[key] for key in ("settings", "start", "teachers", "without", "limit", "trained_on", "devices")},
        "epochs": [],  # each run has its own
        "seconds": round(sum(given[run]["seconds"] for run in runs), 1),
        "averaged": [{key: given[each][key] for key in _OF_A_RUN if key in given[each]} for each in models],
        **made_from,
    }
    manifest = complete(finished, out, described.encoder, settings, split, made)
    finished.rmdir()
    return manifest


def _run_and_start(given: Mapping[Path, Mapping[str, Any]]) -> list[Path] | None:
    """The folders of two models one of which went on from the other, the run first."""
    for run, start in permutations(given, 2) if len(given) == 2 else ():
        if (given[run]["start"] or {}).get("adapter_sha256") == given[start]["adapter_sha256"]:
            return [run, start]
    return None


def _refuse_unlike_seeds(models: Sequence[Path], given: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse what does not average as runs that differ in their seed."""
    first = given[models[0]]
    neither = "neither is what the other went on from (--from), and " if len(given) == 2 else ""
    for folder in models:
        manifest = given[folder]
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
                raise TrainingError(f"{neither}{folder} {fault}")
        ours, theirs = manifest["settings"], first["settings"]
        other = {key for key in {*ours, *theirs} - _FREE if ours.get(key) != theirs.get(key)}
        other |= {key for key in _RECIPE if _told(manifest.get(key)) != _told(first.get(key))}
        if list(manifest["data"].items()) != list(first["data"].items()):
            other.add("data")
        if other:
            raise TrainingError(
                f"{neither}{folder} differs from {models[0]} in {', '.join(sorted(other))}; average runs of one recipe "
                "that differ in --seed, or a run and the model that it went on from"
            )
    seeds = [given[folder]["seed"] for folder in models]
    if len(set(seeds)) < len(seeds):
        raise TrainingError(f"{', '.join(map(str, models))} are of seeds {', '.join(map(str, seeds))}; give each once")


def _told(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A value of a manifest; of other models the weights alone, as later versions tell more of how they were made."""
    if isinstance(value, list):
        return [_told(each) for each in value]
    return value.get("adapter_sha256", value) if isinstance(value, Mapping) else value


@torch.no_grad()
def _add_up(classifiers: Mapping[Path, TierClassifier]) -> None:
    """Give the first one the mean of what was learnt."""
    learnt = {folder: _learnt(classifier) for folder, classifier in classifiers.items()}
    (run, classifier), *others = classifiers.items()
    shapes = {folder: {name: value.shape for name, value in parts.items()} for folder, parts in learnt.items()}
    for folder, other in others:
        if other.taxonomy.version != classifier.taxonomy.version:
            raise TrainingError(f"{folder} has another taxonomy than {run}; average models of one taxonomy")
        if shapes[folder] != shapes[run]:
            raise TrainingError(
                f"{folder} has adapters on other layers than {run}, or of another shape; train the run with the "
                "--frozen and --rank of the model that it goes on from"
            )
    for name, value in learnt[run].items():
        value.copy_(torch.stack([parts[name] for parts in learnt.values()]).mean(0))


def _learnt(classifier: TierClassifier) -> dict[str, Tensor]:
    """The weights of the adapter and the head."""
    named = network_of(classifier.runtime).named_parameters()
    return {name: value for name, value in named if "lora_" in name or name.startswith("head.")}
