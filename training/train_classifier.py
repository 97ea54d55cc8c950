"""Train the tier classifier: LoRA on a frozen encoder and a category head, on labelled rows."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
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
from training.checkpoint import Checkpoint, Groups
from training.datasets import Row, TrainingError, hold_out, read_all
from training.disguise import disguised
from training.evaluate import choose_operating_point, evaluate_classifier
from training.frozen import FrozenLayers
from training.manifest import file_sha256, provenance, write_json
from training.mixture import draw

_SURE = 0.95

Example = tuple[list[int], int, int]  # token ids, index of the category, index of the row


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The recipe; saved with the weights.

    Attributes:
        rank: LoRA rank; adapters sit on every linear layer of the encoder, scaled by 2.
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
        disguised: share of the rows that a step sees in one of the trained disguises of `training.disguise`.
        smoothing: label smoothing of the category loss; most labels here are derived, not annotated.
        averaging: decay of the running mean of the weights, which is what is kept; 0 keeps the last weights.
        window: tokens that the finished classifier reads at a time.
        train_window: tokens of a text that training sees: of a longer one, each epoch takes the beginning or the end,
            at random. Long windows cost most of the time: 254 tokens train at a fifth of the rows a second of 48.
        validation: share of the training rows held out to choose the operating point and, unless sources are watched,
            the best epoch.
        watch: sources that are not trained on: their rows choose the best epoch.
        max_flagged: share of Safe validation rows that the operating point may flag.
        max_refused: share of Safe validation rows that it may refuse.
        precision: of the frozen weights and the arithmetic; the adapter and the head stay in single precision.
        seed: of everything random.
        threads: torch threads.
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
    whole: tuple[str, ...] = ("airlock",)
    mined: float = 0.0
    joined: float = 0.15
    disguised: float = 0.1
    smoothing: float = 0.05
    averaging: float = 0.998
    window: int = 256
    train_window: int = 128
    validation: float = 0.05
    watch: tuple[str, ...] = ()
    max_flagged: float = 0.08
    max_refused: float = 0.03
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    threads: int = 1


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
        limit: rows of all that are trained on, chosen at random.

    Returns:
        The manifest, which is also written to ``out/manifest.json``; nothing on any device but the first.

    Raises:
        TrainingError: the data cannot be trained with, `out` already holds a model, or a run of other settings.
        ClassifierError: the encoder or the taxonomy is at fault.
    """
    if any((out / file).exists() for file in ("classifier.json", "manifest.json")):
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
    watched = [row for row in rows if row.source in settings.watch]
    kept = [row for row in rows if row.split == "train" and row.source not in {*without, *settings.watch}]
    if limit:
        kept = random.Random(settings.seed).sample(kept, min(limit, len(kept)))
    train_rows, validation_rows = hold_out(kept, settings.validation, settings.seed)
    if not train_rows or not validation_rows:
        files_named = ", ".join(map(str, data))
        raise TrainingError(
            f"{files_named}: too few rows of split `train` to hold out {settings.validation:.0%}; add rows"
        )
    dev_rows = [row for row in rows if row.split == "dev" and row.source not in without]
    measured = validation_rows if without else dev_rows or validation_rows
    fresh = load_encoder(encoder_name)
    if settings.precision == "bf16":
        fresh.model.set_attn_implementation("eager")  # the fused one's backward is slow in bf16
    torch.manual_seed(settings.seed)
    frozen = FrozenLayers(fresh, settings.frozen) if settings.frozen else None
    model = TierModel.untrained(fresh, len(taxonomy.categories), _lora(fresh, settings))
    if start:
        _go_on_from(model, TierClassifier.load(start, fresh), taxonomy)
    described = _describe(fresh, taxonomy, settings, name, OperatingPoint())
    TierClassifier(model, fresh, taxonomy, described)  # refuses windows before time is spent
    if settings.train_window > settings.window:
        raise TrainingError(
            f"train_window = {settings.train_window} is longer than window = {settings.window}, which the finished "
            "classifier reads at a time; shorten it"
        )
    fit = _Fit(model, fresh, taxonomy, settings, frozen)
    recipe = {
        "settings": asdict(settings),
        "encoder": fresh.sha256,
        "taxonomy": taxonomy.version,
        "data": [file_sha256(path) for path in files],
        "without": sorted(without),
        "limit": limit,
        "start": file_sha256(start / "adapter_model.safetensors") if start else None,
        "devices": fit.devices,
    }
    progress = Checkpoint.at(out / "checkpoint", recipe)
    started = time.monotonic()
    with frozen.apart_from(model) if frozen else nullcontext():
        losses = fit.run(train_rows, watched or validation_rows, progress)
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
        "start": recipe["start"],
        "without": sorted(without),
        "rows": {"train": len(train_rows), "validation": len(validation_rows), "measured": len(measured)},
        "measured_on": "dev" if measured is dev_rows else "validation",
        "epochs": losses,
        "seconds": round(seconds, 1),
        "figures": evaluate_classifier(classifier, measured, seed=settings.seed),
        **made_from,
    }
    write_card(finished, manifest, train_rows)
    write_json(finished / "manifest.json", manifest)
    for path in finished.iterdir():
        path.replace(out / path.name)
    progress.remove()
    return manifest


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
    if any(name not in known or known[name].shape != value.shape for name, value in learnt.items()):
        raise TrainingError(f"{trained.settings.name} has another kind of adapter; give its rank and kind")
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


class _Fit:
    """The run itself: steps, running mean of the weights, checkpoints, the best epoch.

    Every epoch draws its rows, its disguises and its batches from the seed and its own number alone, so a run that is
    taken up again in the middle of an epoch sees what it would have seen.
    """

    def __init__(
        self,
        model: TierModel,
        encoder: Encoder,
        taxonomy: Taxonomy,
        settings: TrainSettings,
        frozen: FrozenLayers | None = None,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._inputs = frozen.inputs if frozen else encoder.collate
        self._targets = {category: index for index, category in enumerate(taxonomy.ids)}
        self._order = taxonomy.tier_indices
        self._size = settings.train_window - len(encoder.before) - len(encoder.after)
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self._model = _in_precision(model, settings.precision)
        self._tiers = torch.tensor(self._order, device=self._accelerator.device)
        self._learnt = {name: value for name, value in self._model.named_parameters() if value.requires_grad}

        self.devices = self._accelerator.num_processes
        self.first = self._accelerator.is_main_process

    def run(self, rows: Sequence[Row], validation: Sequence[Row], checkpoint: Checkpoint) -> list[dict[str, float]]:
        """All epochs; the mean training loss and the validation loss of each. The model ends with the best weights."""
        settings = self._settings
        size = math.ceil(len(self._drawn(rows, 0, torch.zeros(len(rows)))) / settings.batch / self.devices)
        steps = size * settings.epochs
        optimizer, schedule = _optimizer(self._model, settings, steps)
        model, optimizer = self._accelerator.prepare(self._model, optimizer)
        self._standardize(rows)
        mean = {name: value.detach().clone() for name, value in self._learnt.items()}
        best = {name: value.clone() for name, value in mean.items()}
        sure = {"before": torch.zeros(len(rows)), "now": torch.full((len(rows),), -1.0)}
        kept: Groups = {"learnt": self._learnt, "mean": mean, "best": best, "sure": sure}
        state = checkpoint.restore(kept, optimizer.optimizer)
        for _ in range(state.step):
            schedule.step()
        held = self._examples(list(enumerate(validation[:2000])), None)
        self._model.train()
        self._model.encoder.eval()  # dropout inside the encoder triples a step on a CPU; the head keeps its own
        with _progress(steps, state.step, quiet=not self.first) as bar:
            while state.step < steps:
                epoch, done = divmod(state.step, size)
                rng = random.Random(f"{settings.seed}/{epoch}")
                drawn = self._examples(self._drawn(rows, epoch, sure["before"]), rng)
                seen = _join(drawn, settings.joined, self._size, self._order, rng)
                batches = list(_batches(seen, settings.batch, self._size, rng, self.devices))
                for step in range(done, size):  # each device takes its turn; the last round may begin anew
                    turn = step * self.devices + self._accelerator.process_index
                    torch.manual_seed(hash((settings.seed, epoch, turn)))  # dropout, wherever a run is taken up
                    loss, right = self._loss(model, batch := batches[turn % len(batches)])
                    sure["now"][[row for *_, row in batch]] = right
                    self._accelerator.backward(loss)
                    self._accelerator.clip_grad_norm_(self._learnt.values(), 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad(set_to_none=True)
                    state.step += 1
                    state.total += loss.item()
                    self._average(mean, state.step)
                    bar.update(bar.task_ids[0], completed=state.step, epoch=epoch + 1, loss=loss.item())
                    at_end = state.step % size == 0  # where the epoch's figures are still missing
                    if state.due() and not at_end and self.first:
                        checkpoint.save(state, kept, optimizer.optimizer)
                        if not bar.console.is_terminal:
                            bar.console.print(f"step {state.step}/{steps}, loss {state.total / (step + 1):.3f}")
                self._remember(sure)
                validated = self._validate(mean, held)
                if not state.epochs or validated <= min(entry["validation"] for entry in state.epochs):
                    for name, value in mean.items():
                        best[name].copy_(value)
                state.epochs.append({"train": round(state.total / size, 4), "validation": round(validated, 4)})
                state.total = 0.0
                bar.console.print(f"epoch {epoch + 1}/{settings.epochs}: {state.epochs[-1]}", highlight=False)
        with torch.no_grad():
            for name, value in self._learnt.items():
                value.copy_(best[name])
        return state.epochs

    @torch.no_grad()
    def _standardize(self, rows: Sequence[Row]) -> None:
        """Set the head onto standardized states, measured on some rows before anything is learnt."""
        sample = random.Random(self._settings.seed).sample(rows, min(len(rows), 1000))
        some = self._examples(list(enumerate(sample)), None)
        pooled = torch.cat(
            [
                self._forward(self._model.pool, batch)
                for batch in _batches(some, self._settings.batch, self._size, random.Random(0))
            ]
        )
        self._model.standardize(pooled.mean(0), pooled.std(0, correction=0).clamp(min=1e-4))

    def _drawn(self, rows: Sequence[Row], epoch: int, sure: Tensor) -> list[tuple[int, Row]]:
        """The rows of an epoch, each with its index."""
        settings = self._settings
        rng = random.Random(f"{settings.seed}/rows/{epoch}")
        index = {
            id(row): at
            for at, (row, found) in enumerate(zip(rows, sure.tolist(), strict=True))
            if found < _SURE or rng.random() >= settings.mined
        }
        drawn = draw(
            [row for row in rows if id(row) in index],
            rng,
            source_cap=settings.source_cap,
            category_cap=settings.category_cap,
            whole=settings.whole,
        )
        return [(index[id(row)], row) for row in drawn]

    def _remember(self, sure: dict[str, Tensor]) -> None:
        """At the end of an epoch: how sure the model was of each row it saw, on any device."""
        now = self._accelerator.gather(sure["now"].to(self._accelerator.device)).cpu().view(-1, len(sure["now"]))
        sure["before"] = torch.where(now.amax(0) >= 0, now.amax(0), sure["before"])
        sure["now"].fill_(-1.0)

    def _examples(self, rows: Sequence[tuple[int, Row]], rng: random.Random | None) -> list[Example]:
        share = self._settings.disguised if rng else 0.0
        texts = [disguised(row.text, rng) if rng and rng.random() < share else row.text for _, row in rows]
        encoded = self._encoder.tokenize([normalize(text) for text in texts])
        return [
            (ids, self._targets[row.category], index)
            for ids, (index, row) in zip(encoded["input_ids"], rows, strict=True)
        ]

    def _forward(self, compute: Callable[..., Tensor], batch: Sequence[Example]) -> Tensor:
        device = self._accelerator.device
        inputs = {name: value.to(device) for name, value in self._inputs([ids for ids, *_ in batch]).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bf16"):
            return compute(**inputs).float()

    def _loss(self, model: torch.nn.Module, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """The loss, and the probability of the right tier for each example."""
        targets = torch.tensor([target for _, target, _ in batch], device=self._accelerator.device)
        return _loss(self._forward(model, batch), targets, self._tiers, self._settings)

    def _average(self, mean: dict[str, Tensor], step: int) -> None:
        decay = min(self._settings.averaging, step / (step + 9))
        with torch.no_grad():
            for name, value in self._learnt.items():
                mean[name].lerp_(value, 1 - decay)

    def _validate(self, mean: dict[str, Tensor], held: Sequence[Example]) -> float:
        """The loss of the mean weights on rows that are not trained on."""
        last = {name: value.detach().clone() for name, value in self._learnt.items()}
        total = 0.0
        self._model.eval()
        with torch.no_grad():
            for name, value in self._learnt.items():
                value.copy_(mean[name])
            for batch in _batches(held, 2 * self._settings.batch, self._size, random.Random(0)):
                total += self._loss(self._model, batch)[0].item() * len(batch)
            for name, value in self._learnt.items():
                value.copy_(last[name])
        self._model.train()
        self._model.encoder.eval()
        return total / len(held)


def _in_precision(model: TierModel, precision: str) -> TierModel:
    """The model with its frozen weights in `precision`; what is learnt stays in single precision."""
    if precision == "bf16":
        for parameter in model.encoder.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def _progress(steps: int, done: int, *, quiet: bool) -> Progress:
    progress = Progress(
        TextColumn("epoch {task.fields[epoch]} loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=quiet),
    )
    progress.add_task("train", total=steps, completed=done, epoch=1, loss=float("nan"))
    return progress


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


def _loss(logits: Tensor, targets: Tensor, tiers: Tensor, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Category cross-entropy plus the weighted negative log-probability of the right tier, and that probability."""
    log_probabilities = logits.log_softmax(-1)
    category = functional.nll_loss(log_probabilities, targets) * (1 - settings.smoothing)
    category = category - settings.smoothing * log_probabilities.mean()
    same_tier = tiers[targets].unsqueeze(1) == tiers.unsqueeze(0)
    tier = log_probabilities.masked_fill(~same_tier, float("-inf")).logsumexp(-1)
    return category - settings.tier_weight * tier.mean(), tier.detach().exp().cpu()


def _batches(
    examples: Sequence[Example], batch: int, size: int, rng: random.Random, devices: int = 1
) -> Iterator[list[Example]]:
    """One epoch: texts of like length together, in random order; devices that take turns get batches of like length."""
    cut = [(ids[:size] if rng.random() < 0.5 else ids[-size:], target, row) for ids, target, row in examples]
    cut.sort(key=lambda example: len(example[0]) + rng.random() * 4)
    batches = [cut[start : start + batch] for start in range(0, len(cut), batch)]
    rounds = [batches[start : start + devices] for start in range(0, len(batches), devices)]
    rng.shuffle(rounds)
    rounds.sort(key=len, reverse=True)  # one that is not for all devices comes last
    for each in rounds:
        yield from each


def _join(
    examples: Sequence[Example], share: float, size: int, tiers: Sequence[int], rng: random.Random
) -> list[Example]:
    """The examples, a share of them together with another one, where both fit into `size` tokens."""
    result = []
    for example in examples:
        pair = [example, rng.choice(examples)]
        if rng.random() < share and sum(len(ids) for ids, *_ in pair) <= size:
            rng.shuffle(pair)
            riskier = max((target for _, target, _ in pair), key=lambda target: tiers[target])
            example = (pair[0][0] + pair[1][0], riskier, example[2])
        result.append(example)
    return result
