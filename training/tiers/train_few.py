"""Train the tier classifier from a few hundred rows: every one is trained on, and a cross-validation measures."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import regex
import torch
from accelerate import PartialState

from classifier.encoder import Encoder, load_encoder
from classifier.model import TierClassifier
from classifier.network import TierModel, save_model
from classifier.settings import OperatingPoint
from classifier.taxonomy import Taxonomy
from training.checkpoint import Checkpoint
from training.datasets import Row, TrainingError
from training.frozen import SHAPES, FrozenLayers
from training.manifest import provenance, put_in_place, refuse_finished, write_json
from training.tiers.card import write_card
from training.tiers.checks import check
from training.tiers.crossed import Crossed, expected_errors, parts_of
from training.tiers.evaluate import Judged
from training.tiers.fit import Fit
from training.tiers.operating_point import choose_operating_point
from training.tiers.settings import TrainSettings, refuse_long_window
from training.tiers.train_classifier import describe, lora_config

FEW = TrainSettings(
    rank=8,
    epochs=12,
    batch=16,
    lr=2e-3,
    tier_weight=0.0,
    joined=0.0,
    train_window=64,
    validation=0.0,
    folds=4,
    head_start=True,
    contrast=2.0,
    reach=0.5,
)
"""The recipe; how many layers are frozen depends on the encoder, see `recipe_of`."""
_TRAINED_LAYERS = 6
DEFINITION = "definition"
_PIECES = regex.compile(r"[,;:、，；：.。]+\s*|\s+(?:and|or)\s+")


def train_few(
    *,
    taxonomy: Taxonomy,
    data: Sequence[Path],
    out: Path,
    encoder_name: str,
    settings: TrainSettings,
    name: str,
    labels: Path | None = None,
) -> dict[str, Any]:
    """Train on all rows of split `train` and on the taxonomy's definitions; thresholds and errors by cross-validation.

    For each of `settings.folds` parts a model is trained without it and judges its rows. On these verdicts the
    operating point is chosen, and the errors of each part are counted at the point that the other parts give, so that
    no row has a say in how it is judged. Then one model is trained on everything. A run that was interrupted goes on
    with the part where it stopped when it is started again with the same settings and data.

    Args:
        taxonomy: what the outputs mean; its definitions, whole and in pieces, are texts of their categories.
        data: JSONL files of rows.
        out: folder for the model.
        encoder_name: as for `classifier.encoder.load_encoder`.
        settings: the recipe; `FEW`, or one like it.
        name: of the model.
        labels: decisions that replace labels of the data; see `training.datasets.read_decisions`.

    Returns:
        The manifest, which is also written to ``out/manifest.json``: `errors` is what the cross-validation found,
        `figures` the same in full, or those of split `dev` where the data has one.

    Raises:
        TrainingError: `training.tiers.checks` finds errors in the data, or `out` already holds a model.
        ClassifierError: the encoder or the taxonomy is at fault.
    """
    refuse_finished(out)
    _refuse_unfit(settings)
    torch.set_num_threads(settings.threads)
    found = check(data, taxonomy, labels).strict()
    found.refuse()
    made_from = provenance(seed=settings.seed, data=[*data, labels])
    train = [row for row in found.rows if row.split == "train"]
    dev = [row for row in found.rows if row.split == "dev"]
    parts = parts_of(train, settings.folds, settings.seed)
    encoder = load_encoder(encoder_name)
    recipe = {
        "settings": asdict(settings),
        "encoder": encoder.sha256,
        "taxonomy": taxonomy.version,
        "data": list(made_from["data"].values()),
    }
    started = time.monotonic()
    runs = Runs(encoder, taxonomy, settings, name, out / "checkpoint", recipe)
    for part in range(settings.folds):
        runs.train([row for row in train if parts[row.text] != part], f"part-{part}")
    losses = runs.train(train, "whole")
    crossed = Crossed([runs.load(f"part-{part}") for part in range(settings.folds)], parts)
    point = choose_operating_point(crossed, train, settings.budgets)
    judged = Judged(crossed.at(_points(crossed, train, parts, settings)), train)
    finished = runs.place / "whole"
    classifier = runs.load("whole")
    replace(classifier.settings, operating_point=point).save(finished)
    measured = Judged(TierClassifier.load(finished, encoder), dev) if dev else judged
    manifest = {
        "name": name,
        "encoder": encoder.name,
        "taxonomy": taxonomy.version,
        "operating_point": point.as_dict(),
        "rows": {"train": len(train), "validation": len(train), "measured": len(measured.rows)},
        "measured_on": "dev" if dev else "cross-validation",
        "errors": expected_errors(judged),
        "figures": measured.figures(seed=settings.seed),
        "settings": asdict(settings),
        "start": None,
        "trained_on": sorted({row.source for row in train}),
        "epochs": losses,
        "seconds": round(time.monotonic() - started, 1),
        **made_from,
    }
    write_card(finished, manifest, train)
    write_json(finished / "manifest.json", manifest)
    put_in_place(finished, out)
    shutil.rmtree(out / "checkpoint")
    return manifest


def recipe_of(encoder: Encoder) -> TrainSettings:
    """`FEW` for an encoder: its six upper layers are trained, or all where its kind cannot freeze any."""
    config = encoder.model.config
    spare = max(0, config.num_hidden_layers - _TRAINED_LAYERS)
    return replace(FEW, frozen=spare if config.model_type in SHAPES else 0)


def definition_rows(taxonomy: Taxonomy, rows: Sequence[Row]) -> list[Row]:
    """The definitions as texts of their categories: each whole, and what it lists piece by piece.

    A piece that two definitions share, or that is a row already, is left out.
    """
    texts = {
        category.id: [category.definition, *_PIECES.split(category.definition)] for category in taxonomy.categories
    }
    owners: dict[str, set[str]] = {row.text: {""} for row in rows}
    for category, pieces in texts.items():
        for piece in filter(None, map(str.strip, pieces)):
            owners.setdefault(piece, set()).add(category)
    return [
        Row(text, next(iter(of)), "train", DEFINITION) for text, of in owners.items() if len(of) == 1 and "" not in of
    ]


class Runs:
    """Trains models of one recipe on different rows; a model that is there already is not trained again."""

    def __init__(
        self,
        encoder: Encoder,
        taxonomy: Taxonomy,
        settings: TrainSettings,
        name: str,
        place: Path,
        recipe: Mapping[str, Any],
    ) -> None:
        self._encoder = encoder
        self._taxonomy = taxonomy
        self._settings = settings
        self._described = describe(encoder, taxonomy, settings, name)
        self._recipe = recipe
        self._frozen = FrozenLayers(encoder, settings.frozen) if settings.frozen else None  # its states serve all runs
        self.place = place / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]

    def train(self, rows: Sequence[Row], name: str) -> list[dict[str, float]]:
        """Train a model into a folder of that name; the losses of its epochs."""
        folder = self.place / name
        done = folder / "losses.json"
        if done.exists():
            losses: list[dict[str, float]] = json.loads(done.read_text(encoding="utf-8"))["epochs"]
            return losses
        settings = self._settings
        torch.manual_seed(settings.seed)
        model = TierModel.untrained(self._encoder, len(self._taxonomy.categories), lora_config(self._encoder, settings))
        progress = Checkpoint.at(folder / "checkpoint", {**self._recipe, "run": name})
        fit = Fit(model, self._encoder, self._taxonomy, settings, self._frozen)
        with self._frozen.apart_from(model) if self._frozen else nullcontext():
            losses = fit.run([*rows, *definition_rows(self._taxonomy, rows)], [], progress)
        model.standardize(torch.zeros_like(model.centre), torch.ones_like(model.spread))
        save_model(model, self._taxonomy, self._described, folder)
        progress.remove()
        write_json(done, {"epochs": losses})
        return losses

    def load(self, name: str) -> TierClassifier:
        """The model of that name, as it was saved."""
        return TierClassifier.load(self.place / name, self._encoder)


def _points(
    crossed: Crossed, rows: Sequence[Row], parts: Mapping[str, int], settings: TrainSettings
) -> list[OperatingPoint]:
    """For each part, the operating point that the other parts give."""
    return [
        choose_operating_point(crossed, [row for row in rows if parts[row.text] != part], settings.budgets)
        for part in range(settings.folds)
    ]


def _refuse_unfit(settings: TrainSettings) -> None:
    """Raise TrainingError where a setting has no meaning in this recipe."""
    if settings.folds < 2:
        raise TrainingError(f"folds = {settings.folds}: a cross-validation needs 2 parts or more")
    if settings.precision != "fp32":
        raise TrainingError(f"precision = {settings.precision}: the recipe `few` runs in fp32; leave it out")
    if PartialState().num_processes > 1:
        raise TrainingError("the recipe `few` runs on one device; start it without torchrun, or give --recipe full")
    refuse_long_window(settings)
