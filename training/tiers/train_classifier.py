"""Train the tier classifier: LoRA on a frozen encoder and a category head, on labelled rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from classifier.encoder import Encoder, load_encoder
from classifier.model import TierClassifier
from classifier.network import TierModel, TorchRuntime, network_of, save_model
from classifier.responses import ResponseClassifier
from classifier.settings import ClassifierSettings
from classifier.taxonomy import Taxonomy
from training.checkpoint import Checkpoint
from training.datasets import Row, TrainingError, hold_out, read_all
from training.frozen import FrozenLayers, adapted_modules
from training.lineage import lineage
from training.manifest import provenance, put_in_place, refuse_finished, write_json
from training.mixture import check_whole, some
from training.take_over import take_over
from training.tiers.card import write_card
from training.tiers.evaluate import Judged
from training.tiers.fit import Fit
from training.tiers.operating_point import choose_operating_point
from training.tiers.response_rows import read_exchanges
from training.tiers.settings import OWN, TrainSettings, refuse_long_window
from training.tiers.teachers import Teachers

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
    teachers: Sequence[Path] = (),
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
        start: a model folder of the same encoder to go on from, and of the same taxonomy; but a model that learns to
            read exchanges takes over the adapter only, of a model that reads texts. It may have had more layers frozen.
        labels: decisions that replace labels of the data; see `training.datasets.read_decisions`.
        without: sources whose rows are kept out altogether, for `airlock eval folds` to test on.
        limit: rows to train on, chosen at random, for a trial; a tenth as many, but 500, are held out and measured.
        teachers: model folders of the same taxonomy, whose verdicts stand beside the labels; see `teachers`.

    Returns:
        The manifest, which is also written to ``out/manifest.json``; nothing on any device but the first.

    Raises:
        TrainingError: the data cannot be trained with, `out` already holds a model, or a run of other settings.
        ClassifierError: the encoder or the taxonomy is at fault.
    """
    refuse_finished(out)
    torch.set_num_threads(settings.threads)
    rows = read_all(data, taxonomy, labels) if settings.reads == "texts" else read_exchanges(data, taxonomy)
    made_from = provenance(seed=settings.seed, data=[*data, labels])
    split = Split.of(rows, settings, without, limit, where=", ".join(map(str, data)))
    fresh = load_encoder(encoder_name)
    if settings.precision == "bf16":
        fresh.model.set_attn_implementation("eager")  # the fused one's backward is slow in bf16
    torch.manual_seed(settings.seed)
    frozen = FrozenLayers(fresh, settings.frozen) if settings.frozen else None
    model = TierModel.untrained(fresh, len(taxonomy.categories), lora_config(fresh, settings))
    if start:
        _refuse_other_encoder(start, fresh)
        _go_on_from(model, TierClassifier.load(start, fresh), taxonomy, head=settings.reads == "texts")
    begun, taught_by = lineage(start) if start else None, [lineage(teacher) for teacher in teachers]
    described = describe(fresh, taxonomy, settings, name)
    TierClassifier(TorchRuntime(model, fresh), fresh, taxonomy, described)  # refuses windows before time is spent
    refuse_long_window(settings)
    heard = Teachers(teachers, taxonomy, settings.precision) if teachers else None
    fit = Fit(model, fresh, taxonomy, settings, frozen, heard)
    recipe = {
        "settings": asdict(settings),
        "encoder": fresh.sha256,
        "taxonomy": taxonomy.version,
        "data": list(made_from["data"].values()),
        "without": sorted(without),
        "limit": limit,
        "start": begun["adapter_sha256"] if begun else None,
        "teachers": [each["adapter_sha256"] for each in taught_by],
        "devices": fit.devices,
    }
    progress = Checkpoint.at(out / "checkpoint", recipe)
    started = time.monotonic()
    with frozen.apart_from(model) if frozen else nullcontext():
        watched = some(split.watched or split.validation, _WATCHED, settings.seed)
        losses = fit.run(split.train, watched, progress)
    seconds = time.monotonic() - started
    devices = fit.devices
    if not fit.first:
        return {}
    finished = out / "checkpoint" / "model"  # moved when all is measured, so that no half-made model can be used
    model.standardize(torch.zeros_like(model.centre), torch.ones_like(model.spread))
    save_model(model, taxonomy, described, finished)
    del model, fresh, fit, frozen, heard
    learnt_from = {row.source for row in split.train} | {
        source for each in (begun, *taught_by) if each for source in each["trained_on"]
    }
    made = {
        "settings": asdict(settings),
        "start": begun,
        "teachers": taught_by,
        "without": sorted(without),
        "limit": limit,
        "devices": devices,
        "trained_on": sorted(learnt_from),
        "epochs": losses,
        "seconds": round(seconds, 1),
        **made_from,
    }
    manifest = complete(finished, out, encoder_name, settings, split, made)
    progress.remove()
    return manifest


@dataclass(frozen=True, slots=True)
class Split:
    """What a run does with its rows.

    Attributes:
        train: rows that it learns from.
        validation: rows that choose the operating point and, unless sources are watched, the best epoch.
        watched: rows of the watched sources.
        measured: rows of split `dev`, or the validation rows where there are none or sources are kept out.
        measured_on: which of the two.
    """

    train: list[Row]
    validation: list[Row]
    watched: list[Row]
    measured: list[Row]
    measured_on: str

    @classmethod
    def of(
        cls, rows: Sequence[Row], settings: TrainSettings, without: Sequence[str], limit: int | None, *, where: str
    ) -> Split:
        """The split that settings and kept out sources ask for; the same for the same rows.

        Raises:
            TrainingError: a source is not in the data, or is both kept out and watched, or rows are too few.
        """
        if settings.languages:
            known = sorted({row.lang for row in rows})
            rows = [row for row in rows if row.lang in settings.languages]
            if not rows:
                raise TrainingError(
                    f"--language {', '.join(settings.languages)}: no row is in it; there are: {', '.join(known)}"
                )
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
        kept = [row for row in rows if row.split == "train" and row.source not in apart]
        if settings.whole != OWN:
            caps = {"--source-cap": settings.source_cap, "--category-cap": settings.category_cap}
            check_whole(settings.whole, {row.source for row in kept}, caps)
        train, validation = hold_out(kept, settings.validation)
        if not train or not validation:
            raise TrainingError(
                f"{where}: too few rows of split `train` to hold out {settings.validation:.0%}{_sizes(kept, settings)}"
                "; add rows"
            )
        dev = [row for row in rows if row.split == "dev" and row.source not in apart]
        measured, measured_on = (dev, "dev") if dev and not without else (validation, "validation")
        watched = [row for row in rows if row.split == "train" and row.source in settings.watch]
        if limit:
            fewer = max(500, limit // 10)
            train = some(train, limit, settings.seed)
            validation, measured = (some(part, fewer, settings.seed) for part in (validation, measured))
        return cls(train, validation, watched, measured, measured_on)


def _sizes(rows: Sequence[Row], settings: TrainSettings) -> str:
    """How many rows there are, in what `hold_out` takes its share of, and how many it takes."""
    enough = int(0.5 / settings.validation) + 1
    if any(row.group for row in rows):
        return f": {len(rows)} in {len({row.group or row.text for row in rows})} groups, where it takes {enough} groups"
    most = max(Counter(row.category for row in rows).values(), default=0)
    return f" of each category by itself: {len(rows)}, of the largest category {most}, where it takes {enough}"


def complete(
    finished: Path, out: Path, encoder_name: str, settings: TrainSettings, split: Split, made: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose the operating point of a saved model, measure it, write card and manifest, and put all into place.

    Args:
        finished: the saved model, inside `out`; what is measured is what was saved, in single precision.
        out: the model's folder. The files that say that all is there arrive last.
        encoder_name: as for `classifier.encoder.load_encoder`.
        settings: the recipe, with the budgets.
        split: gives the rows.
        made: what the manifest tells besides: where the model comes from.
    """
    encoder = load_encoder(encoder_name)
    kind = TierClassifier if settings.reads == "texts" else ResponseClassifier
    saved = kind.load(finished, encoder)
    point = choose_operating_point(saved, split.validation, settings.budgets)
    classifier = saved.at(point)
    classifier.settings.save(finished)
    manifest = {
        "name": classifier.settings.name,
        "encoder": encoder.name,
        "taxonomy": classifier.taxonomy.version,
        "operating_point": point.as_dict(),
        "rows": {"train": len(split.train), "validation": len(split.validation), "measured": len(split.measured)},
        "measured_on": split.measured_on,
        "figures": Judged(classifier, split.measured).figures(seed=settings.seed),
        **made,
    }
    write_card(finished, manifest, split.train)
    write_json(finished / "manifest.json", manifest)
    put_in_place(finished, out)
    return manifest


def refuse_other_data(
    folder: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str], files: Sequence[Path]
) -> None:
    """Raise TrainingError where files are not those that a model was trained on, in their order."""
    if list(manifest["data"].values()) != list(hashes.values()):
        raise TrainingError(
            f"{folder} was trained on other data than {', '.join(map(str, files))}, or on these in another order; "
            "give the same, in the same order: which rows were held out depends on both"
        )


def lora_config(encoder: Encoder, settings: TrainSettings) -> LoraConfig:
    """Where the adapter sits: on every linear layer that is not frozen."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        **adapted_modules(encoder, settings.frozen),
    )


def _refuse_other_encoder(start: Path, encoder: Encoder) -> None:
    """Raise TrainingError where a model to go on from was trained on another encoder."""
    described = ClassifierSettings.load(start)
    if described.encoder_sha256 != encoder.sha256:
        raise TrainingError(
            f"--from {start} was trained on encoder {described.encoder!r}, not on {encoder.name!r}; leave --encoder "
            "out, or give that one"
        )


def _go_on_from(model: TierModel, trained: TierClassifier, taxonomy: Taxonomy, *, head: bool) -> None:
    if head and trained.taxonomy.version != taxonomy.version:
        raise TrainingError(f"{trained.settings.name} has another taxonomy; start from a model of {taxonomy.name!r}")
    take_over(model, network_of(trained.runtime), trained.settings.name, head=head)


def describe(encoder: Encoder, taxonomy: Taxonomy, settings: TrainSettings, name: str) -> ClassifierSettings:
    """What a model's folder will say of it."""
    return ClassifierSettings(
        name=name,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        taxonomy_version=taxonomy.version,
        window=settings.window,
        overlap=settings.window // 4,
        reads=settings.reads,
    )
