"""The recipe of a training: every setting, as given or as a manifest tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from classifier.settings import Reads
from training.datasets import TrainingError
from training.tiers.operating_point import Budgets

OWN = ("airlock",)  # the source of the rows that were written for Airlock: there may be as many as there are


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The recipe; saved with the weights.

    Attributes:
        rank: LoRA rank; adapters sit on every linear layer of the encoder that is not frozen, scaled by 2.
        dora: whether weights are decomposed into magnitude and direction (arXiv 2402.09353).
        rslora: whether adapters are scaled by the root of the rank (arXiv 2312.03732).
        frozen: lowest layers without an adapter; see `training.frozen`.
        epochs: passes over the rows.
        batch: rows in a step, on each device.
        lr: peak learning rate of the adapter; the head learns at twice that. Linear warm-up over a twentieth of
            the steps, then linear decay.
        tier_weight: weight of the tier loss (the negative log of the summed probability of the right tier) beside the
            category loss; the tier decides the route, the category only the words.
        source_cap: rows that an epoch draws from one source at most; others in the next epoch.
        category_cap: rows that an epoch draws of one category at most.
        whole: sources that the caps do not touch.
        mined: share of the easy rows, those whose right tier had a probability of 0.95 when last seen, that an epoch
            leaves out, so that more of its steps go to the hard ones.
        joined: share of the rows that a step sees together with another row, as one text of the riskier one's category:
            neither turns taken together nor a longer text are a risk in themselves.
        disguised: share of the rows that a step sees in one of the trained disguises of `training.tiers.disguise`.
        smoothing: label smoothing of the category loss; most labels here are derived, not annotated.
        averaging: decay of the running mean of the weights, which is what is kept; 0 keeps the last weights.
        window: tokens that the finished classifier reads at a time.
        train_window: tokens of a text that training sees: of a longer one, each epoch takes the beginning or the end,
            at random. Long windows cost most of the time: 254 tokens train at a fifth of the rows a second of 48.
        validation: share of the training rows held out to choose the operating point and, unless sources are watched,
            the best epoch.
        folds: parts of a cross-validation in the place of held-out rows, for few rows; see `training.tiers.train_few`.
        head_start: whether the head begins as a logistic regression on the states of the encoder as it is, rather than
            at random: with few rows, most of what can be learnt is there already (arXiv 2202.10054).
        contrast: weight of a supervised contrastive loss beside the others (arXiv 2004.11362, equation 2, temperature
            0.1), on what the head reads: rows of a category draw together, others apart, so that a few rows teach as
            many pairs.
        reach: how far the weights go from where they began to what was learnt; of few rows half-way is better than all
            of it (arXiv 2109.01903).
        taught: weight of what teachers say of a row, if there are any, beside its label; see `training.tiers.teachers`.
        languages: rows of these languages only (ISO 639-1 codes), for an encoder that reads no others; empty for all.
        watch: sources that are not trained on: 2,000 of their rows choose the best epoch.
        max_flagged: share of the ordinary Safe validation rows that the operating point may flag.
        max_refused: share of them that it may refuse.
        max_look_alikes_flagged: share of the look-alikes among the Safe validation rows that it may flag.
        max_look_alikes_refused: share of them that it may refuse.
        precision: of the frozen weights and the arithmetic; the adapter and the head stay in single precision.
        seed: of everything random.
        threads: torch threads.
        reads: what a row is: a text, or an answer with what was asked.
    """

    rank: int = 16
    dora: bool = False
    rslora: bool = False
    frozen: int = 0
    epochs: int = 3
    batch: int = 32
    lr: float = 1e-3
    tier_weight: float = 1.0
    source_cap: int | None = None
    category_cap: int | None = None
    whole: tuple[str, ...] = OWN
    mined: float = 0.0
    joined: float = 0.15
    disguised: float = 0.1
    smoothing: float = 0.05
    averaging: float = 0.998
    window: int = 128
    train_window: int = 128
    validation: float = 0.05
    folds: int = 0
    head_start: bool = False
    contrast: float = 0.0
    reach: float = 1.0
    taught: float = 0.5
    languages: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    max_flagged: float = 0.08
    max_refused: float = 0.02
    max_look_alikes_flagged: float = 0.25
    max_look_alikes_refused: float = 0.10
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    threads: int = 1
    reads: Reads = "texts"

    @property
    def budgets(self) -> Budgets:
        """What the operating point may get wrong."""
        return Budgets(
            flagged=self.max_flagged,
            refused=self.max_refused,
            look_alikes_flagged=self.max_look_alikes_flagged,
            look_alikes_refused=self.max_look_alikes_refused,
        )


def settings_of(folder: Path, manifest: Mapping[str, Any]) -> TrainSettings:
    """The recipe that a manifest tells.

    Raises:
        TrainingError: it is another version's.
    """
    lists = {key: tuple(value) for key, value in manifest["settings"].items() if isinstance(value, list)}
    try:
        return TrainSettings(**{**manifest["settings"], **lists})
    except TypeError as exc:
        raise TrainingError(f"{folder} was trained by another version of Airlock ({exc}); train it anew") from exc


def refuse_long_window(settings: TrainSettings) -> None:
    """Raise TrainingError where training would see more of a text than the finished model reads at a time."""
    if settings.train_window > settings.window:
        raise TrainingError(
            f"train_window = {settings.train_window} is longer than window = {settings.window}, which the finished "
            "classifier reads at a time; shorten it"
        )
