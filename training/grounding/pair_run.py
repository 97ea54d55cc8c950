"""What training a model that reads pairs has in common, whatever it learns: folder, checkpoint, manifest, card."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from rag.pairs import OUTPUTS, Base, PairModel, PairSettings, Task, check_window
from training.checkpoint import Checkpoint
from training.datasets import TrainingError
from training.frozen import freeze_adapters, lowest_adapted
from training.grounding.fit_pairs import Example, Loss, PairRecipe, fit_pairs, standardize, untrained
from training.grounding.pair_card import write_pair_card
from training.grounding.rows import Row, of_split, origin_of
from training.lineage import lineage, read_manifest
from training.manifest import file_sha256, provenance, put_in_place, refuse_finished, write_json
from training.mixture import check_whole, few_of_each
from training.take_over import take_over

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairRun:
    """A training run.

    Attributes:
        task: what is learnt.
        files: all data files.
        out: folder for the model.
        recipe: how.
        name: of the model.
        without: sources that are kept out altogether, for a test.
        limit: rows to train on, chosen at random, for a trial; a tenth as many are held for dev.
        language: ISO 639-1 code of the only language that the model is for; None for all.
        begin: a model folder of the same encoder to go on from.
        source_cap: rows of one source to train on, at most, chosen at random; None sets no limit.
        whole: sources that this cap does not touch.
        further: settings of the task alone, for the manifest; a run of others is not gone on with.
    """

    task: Task
    files: Sequence[Path]
    out: Path
    recipe: PairRecipe
    name: str
    without: Sequence[str] = ()
    limit: int | None = None
    language: str | None = None
    begin: Path | None = None
    source_cap: int | None = None
    whole: Sequence[str] = ()
    further: Mapping[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """Set the threads.

        Raises:
            TrainingError: the folder already holds a model, or the model to go on from learnt from what is kept out.
        """
        refuse_finished(self.out)
        learnt = set(lineage(self.begin)["trained_on"]) & set(self.without) if self.begin else set()
        if learnt:
            raise TrainingError(f"--without {', '.join(sorted(learnt))}: {self.begin} was trained on it; begin anew")
        torch.set_num_threads(self.recipe.threads)

    def split(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """The rows to train on, and those of `dev`.

        Raises:
            TrainingError: there are none, or none of a source that the cap should not touch; or there is no cap.
        """
        train, dev = of_split(rows, "train"), of_split(rows, "dev")
        if self.whole:
            check_whole(self.whole, {row.source for row in train}, {"--source-cap": self.source_cap})
        if self.source_cap:
            train = [row for row in train if row.source in self.whole] + few_of_each(
                [row for row in train if row.source not in self.whole],
                self.source_cap,
                lambda row: row.source,
                self.recipe.seed,
            )
        if self.limit:
            rng = random.Random(self.recipe.seed)
            train = rng.sample(train, min(self.limit, len(train)))
            dev = rng.sample(dev, min(self.limit // 10 + 1, len(dev)))
        return train, dev

    def settings(self, base: Base, thresholds: Mapping[str, float] | None = None) -> PairSettings:
        """What the model's folder says of itself."""
        return PairSettings(self.task, self.name, base.name, base.sha256, self.recipe.window, thresholds or {})

    def fit(
        self, base: Base, train: Sequence[Example[T]], dev: Sequence[Example[T]], loss: Loss[T]
    ) -> tuple[Path, dict[str, Any]]:
        """Train, or go on where an earlier run stopped.

        Returns:
            A folder inside `out` with the model, without thresholds as yet, and what the manifest tells of the run.

        Raises:
            TrainingError: `out` holds an interrupted run of other settings or data.
            KnowledgeError: the encoder does not read windows of that length, or the model to go on from is damaged or
                of another one.
        """
        check_window(self.settings(base), base)
        if self.recipe.precision == "bf16":
            base.model.set_attn_implementation("eager")  # the fused one's backward is slow in bf16
        if self.begin:
            begun = PairSettings.load(self.begin, self.task)
            trained = PairModel.load(self.begin, base, begun)
            adapted = replace(self.recipe, frozen=min(self.recipe.frozen, lowest_adapted(trained.encoder)))
            model = untrained(base, OUTPUTS[self.task], adapted)
            take_over(model, trained, begun.name)
            model.centre, model.spread = trained.centre, trained.spread
            freeze_adapters(model.encoder, base, self.recipe.frozen)
        else:
            model = untrained(base, OUTPUTS[self.task], self.recipe)
            standardize(model, base, train, self.recipe)
        asked: dict[str, Any] = {"task": self.task, "settings": asdict(self.recipe), "without": sorted(self.without)}
        asked |= {"limit": self.limit, "language": self.language, **self.further}
        if self.source_cap:
            asked |= {"source_cap": self.source_cap, "whole": sorted(self.whole)}
        asked |= {"start": lineage(self.begin) if self.begin else None, "unshared": self._unshared()}
        made_from = provenance(seed=self.recipe.seed, data=self.files)
        hashes = sorted(file_sha256(path) for path in self.files)
        checkpoint = Checkpoint.at(self._progress, {**asked, "encoder": base.sha256, "data": hashes})
        started = time.monotonic()
        epochs = fit_pairs(model, base, train, dev, loss, self.recipe, checkpoint)
        finished = self._progress / "model"  # moved when all is measured, so that no half-made model can be used
        model.save(finished)
        self.settings(base).save(finished)
        return finished, {**asked, "epochs": epochs, "seconds": round(time.monotonic() - started, 1), **made_from}

    def complete(self, finished: Path, made: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
        """Write card and manifest and put all into place; the manifest.

        Args:
            finished: the folder with the model, its thresholds chosen.
            made: what the manifest tells besides.
            rows: those trained on.
        """
        settings = PairSettings.load(finished, self.task)
        manifest = {
            "name": self.name,
            "encoder": settings.encoder,
            "thresholds": dict(settings.thresholds),
            "trained_on": sorted(
                {name for row in rows for name in (row.source, origin_of(row)) if name}
                | set(made["start"]["trained_on"] if made["start"] else ())
            ),
            **made,
        }
        write_pair_card(finished, manifest, rows)
        write_json(finished / "manifest.json", manifest)
        put_in_place(finished, self.out)
        shutil.rmtree(self._progress)
        return manifest

    def _unshared(self) -> bool:
        """Whether no passage of a source that is kept out was learnt from, as part of another source."""
        if not self.begin:
            return True
        before = read_manifest(self.begin)
        return bool(before["unshared"]) and set(self.without) <= set(before["without"])

    @property
    def _progress(self) -> Path:
        return self.out / "checkpoint"


def tempered(keys: Sequence[Hashable]) -> list[float]:
    """A weight for each row, 1 on average: rows of a key together weigh as the root of their number."""
    counts = Counter(keys)
    raw = [1 / math.sqrt(counts[key]) for key in keys]
    return [weight * len(raw) / sum(raw) for weight in raw]
