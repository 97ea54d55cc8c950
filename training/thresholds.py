"""Choose the operating point of a trained classifier anew, by other budgets, without training it again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from classifier.settings import ClassifierSettings
from classifier.taxonomy import Taxonomy
from training.datasets import read_all
from training.manifest import provenance
from training.operating_point import Budgets
from training.train_classifier import Split, complete, read_manifest, refuse_other_data, settings_of

# Of a manifest, what `complete` writes anew.
_CHOSEN = ("name", "encoder", "taxonomy", "operating_point", "rows", "measured_on", "figures", "adapter_sha256")


def choose_thresholds(
    folder: Path, *, data: Sequence[Path], budgets: Budgets, labels: Path | None = None
) -> dict[str, Any]:
    """Replace thresholds, figures, card and manifest of a model by those that the budgets give.

    The weights stay, byte for byte. The rows that choose are those that were held out of training; the figures are
    measured anew on the rows that training measured on, so that card and manifest tell what the model does now.

    Args:
        folder: a model that `airlock train classifier` or `average` finished.
        data: the JSONL files that it was trained on, in the same order.
        budgets: what the operating point may get wrong.
        labels: the decisions that it was trained with.

    Returns:
        The manifest, which is also written to ``folder/manifest.json``. Its `thresholds` tells when and by which code.

    Raises:
        TrainingError: it is no finished model, or the data are others.
    """
    manifest = read_manifest(folder)
    files = [*data, *([labels] if labels else [])]
    now = provenance(seed=manifest["seed"], data=files)
    refuse_other_data(folder, manifest, now["data"], files)
    settings = replace(
        settings_of(folder, manifest),
        max_flagged=budgets.flagged,
        max_refused=budgets.refused,
        max_look_alikes_flagged=budgets.look_alikes_flagged,
        max_look_alikes_refused=budgets.look_alikes_refused,
    )
    torch.set_num_threads(settings.threads)
    described = ClassifierSettings.load(folder)
    rows = read_all(data, Taxonomy.load(folder / "taxonomy.yaml"), labels)
    split = Split.of(rows, settings, manifest["without"], manifest["limit"], where=", ".join(map(str, data)))
    made = {key: value for key, value in manifest.items() if key not in _CHOSEN}
    made["settings"] = asdict(settings)
    made["thresholds"] = {key: now[key] for key in ("commit", "time", "machine")}
    with tempfile.TemporaryDirectory(dir=folder) as copy:  # the model stays as it is until all is measured
        for path in (path for path in folder.iterdir() if path.is_file()):
            shutil.copy2(path, copy)
        return complete(Path(copy), folder, described.encoder, settings, split, made)
