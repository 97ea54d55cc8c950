"""Fit adapter and head: steps, hard rows, running mean of the weights, checkpoints, the best epoch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from classifier.encoder import Encoder
from classifier.network import TierModel
from classifier.normalize import normalize
from classifier.responses import asked
from classifier.taxonomy import Taxonomy
from training.checkpoint import Checkpoint, Groups
from training.datasets import Row
from training.frozen import FrozenLayers
from training.mixture import draw, some
from training.optimizer import optimizer_of, set_rates
from training.tiers.disguise import disguised
from training.tiers.losses import contrast_loss, label_loss
from training.tiers.settings import TrainSettings
from training.tiers.teachers import Teachers

_SURE = 0.95
_NO_ROW = -1
_PENALTY = 0.03  # inverse strength of the penalty of `head_start`, on standardized states

Example = tuple[list[int], int, int]  # token ids, index of the category, index of the row or _NO_ROW


class Fit:
    """A run.

    Every epoch draws its rows, its disguises and its batches from the seed, its own number and what was easy before, so
    a run that is taken up again in the middle of an epoch sees what it would have seen.

    Attributes:
        devices: how many take turns.
        first: whether this is the one that writes.
    """

    def __init__(
        self,
        model: TierModel,
        encoder: Encoder,
        taxonomy: Taxonomy,
        settings: TrainSettings,
        frozen: FrozenLayers | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        self._settings = settings
        self._teachers = teachers
        self._rows: Sequence[Row] = ()
        self._encoder = encoder
        self._inputs = frozen.inputs if frozen else encoder.collate
        self._targets = {category: index for index, category in enumerate(taxonomy.ids)}
        self._order = taxonomy.tier_indices
        self._size = settings.train_window - len(encoder.before) - len(encoder.after)
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if frozen:
            frozen.to(self._accelerator.device)
        self._model = _in_precision(model, settings.precision)
        self._tiers = torch.tensor(self._order, device=self._accelerator.device)
        self._learnt = {name: value for name, value in self._model.named_parameters() if value.requires_grad}

        self.devices = self._accelerator.num_processes
        self.first = self._accelerator.is_main_process

    def run(self, rows: Sequence[Row], validation: Sequence[Row], checkpoint: Checkpoint) -> list[dict[str, float]]:
        """All epochs; the mean training loss and the validation loss of each. The model ends with the best weights.

        Without rows to validate on, with those of the last epoch.
        """
        settings = self._settings
        self._rows = rows
        drawn = self._drawn(rows, torch.zeros(len(rows)), random.Random(settings.seed))
        size = math.ceil(len(drawn) / settings.batch / self.devices)
        steps = size * settings.epochs
        model, optimizer = self._accelerator.prepare(self._model, optimizer_of(self._model, settings.lr))
        self._standardize(rows)
        mean = {name: value.detach().clone() for name, value in self._learnt.items()}
        best = {name: value.clone() for name, value in mean.items()}
        begun = {name: value.clone() for name, value in mean.items()}
        sure = {"before": torch.zeros(len(rows)), "now": torch.full((len(rows),), -1.0)}
        kept: Groups = {"learnt": self._learnt, "mean": mean, "best": best, "sure": sure}
        state = checkpoint.restore(kept, optimizer.optimizer)
        held = self._examples(list(enumerate(validation)), None) if validation else []
        self._model.train()
        self._model.encoder.eval()  # dropout inside the encoder triples a step on a CPU; the head keeps its own
        with _progress(steps, state.step, quiet=not self.first) as bar:
            while state.step < steps:
                epoch, done = divmod(state.step, size)
                batches = itertools.islice(self._turns(rows, epoch, sure["before"]), done, size)
                for turn, batch in enumerate(batches, done):
                    torch.manual_seed(hash((settings.seed, epoch, turn, self._accelerator.process_index)))  # dropout
                    set_rates(optimizer, state.step, steps)
                    loss, right = self._loss(model, batch)
                    _note(sure["now"], batch, right)
                    self._accelerator.backward(loss)
                    self._accelerator.clip_grad_norm_(self._learnt.values(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    state.step += 1
                    state.total += loss.item()
                    self._average(mean, state.step)
                    bar.update(bar.task_ids[0], completed=state.step, epoch=epoch + 1, loss=loss.item())
                    if state.due() and state.step % size:  # not at the end, where the epoch's figures are still missing
                        self._gather(sure["now"])
                        if self.first:
                            checkpoint.save(state, kept, optimizer.optimizer)
                            if not bar.console.is_terminal:
                                bar.console.print(f"step {state.step}/{steps}, loss {state.total / (turn + 1):.3f}")
                self._gather(sure["now"])
                sure["before"].copy_(torch.where(sure["now"] >= 0, sure["now"], sure["before"]))
                sure["now"].fill_(-1.0)
                losses = {"train": round(state.total / size, 4)}
                if held:
                    losses["validation"] = round(self._validate(mean, held), 4)
                if not held or losses["validation"] <= min((e["validation"] for e in state.epochs), default=math.inf):
                    for name, value in mean.items():
                        best[name].copy_(value)
                state.epochs.append(losses)
                state.total = 0.0
                if self.first:
                    checkpoint.save(state, kept, optimizer.optimizer)
                bar.console.print(f"epoch {epoch + 1}/{settings.epochs}: {state.epochs[-1]}", highlight=False)
        with torch.no_grad():
            for name, value in self._learnt.items():
                # An adapter is the product of two matrices, of which B begins at zero: scaling B scales it.
                value.copy_(best[name] if "lora_A" in name else torch.lerp(begun[name], best[name], settings.reach))
        return state.epochs

    @torch.no_grad()
    def _standardize(self, rows: Sequence[Row]) -> None:
        """Set the head onto standardized states, measured on some rows before anything is learnt."""
        pooled, targets = self._pooled(some(rows, 1000, self._settings.seed))
        self._model.standardize(pooled.mean(0), pooled.std(0, correction=0).clamp(min=1e-4))
        if self._settings.head_start:
            start_head(self._model, pooled, targets)

    def _pooled(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """Pooled states ``(rows, hidden)`` and categories of rows, in one order."""
        batches = _batches(
            self._examples(list(enumerate(rows)), None), self._settings.batch, self._size, random.Random(0)
        )
        pooled = torch.cat([self._forward(self._model.pool, batch) for batch in batches])
        return pooled, [target for batch in batches for _, target, _ in batch]

    def _turns(self, rows: Sequence[Row], epoch: int, sure: Tensor) -> Iterator[list[Example]]:
        """This device's batches of an epoch, without end: where the rows are used up, they are drawn anew."""
        settings = self._settings
        for again in itertools.count():
            rng = random.Random(f"{settings.seed}/{epoch}/{again}")
            drawn = self._examples(self._drawn(rows, sure, rng), rng)
            seen = _join(drawn, settings.joined, self._size, self._order, rng)
            for each in _rounds(seen, settings.batch, self._size, rng, self.devices):
                yield each[self._accelerator.process_index % len(each)]

    def _drawn(self, rows: Sequence[Row], sure: Tensor, rng: random.Random) -> list[tuple[int, Row]]:
        """The rows of an epoch, each with its index."""
        settings = self._settings
        hard = [
            row
            for row, found in zip(rows, sure.tolist(), strict=True)
            if found < _SURE or rng.random() >= settings.mined
        ]
        index = {row: at for at, row in enumerate(rows)}
        drawn = draw(
            hard or rows,
            rng,
            source_cap=settings.source_cap,
            category_cap=settings.category_cap,
            whole=settings.whole,
        )
        return [(index[row], row) for row in drawn]

    def _gather(self, now: Tensor) -> None:
        """Let each device know how sure the others were of the rows that they saw."""
        of_each = self._accelerator.gather(now.to(self._accelerator.device)).cpu().view(self.devices, -1)
        now.copy_(of_each.amax(0))

    def _examples(self, rows: Sequence[tuple[int, Row]], rng: random.Random | None) -> list[Example]:
        share = self._settings.disguised if rng else 0.0
        texts = [disguised(row.text, rng) if rng and rng.random() < share else row.text for _, row in rows]
        encoded = self._encoder.tokenize([normalize(text) for text in texts])
        return [
            (self._with_asked(row, ids, rng), self._targets[row.category], index)
            for ids, (index, row) in zip(encoded["input_ids"], rows, strict=True)
        ]

    def _with_asked(self, row: Row, ids: list[int], rng: random.Random | None) -> list[int]:
        """An answer behind what was asked, of a long one the beginning or, in training, the end; a text as it is."""
        if self._settings.reads == "texts":
            return ids
        before = asked(self._encoder, row.prompt, row.system, self._size)
        room = self._size - len(before)
        return [*before, *(ids[-room:] if rng and len(ids) > room and rng.random() < 0.5 else ids[:room])]

    def _forward(self, compute: Callable[..., Tensor], batch: Sequence[Example]) -> Tensor:
        device = self._accelerator.device
        inputs = {name: value.to(device) for name, value in self._inputs([ids for ids, *_ in batch]).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bf16"):
            return compute(**inputs).float()

    def _loss(self, model: torch.nn.Module, batch: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """The loss, and the probability of the right tier for each example."""
        targets = torch.tensor([target for _, target, _ in batch], device=self._accelerator.device)
        read: list[Tensor] = []
        with self._model.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
            said = self._said(self._teachers, batch).to(targets.device) if self._teachers and model.training else None
            loss, right = label_loss(self._forward(model, batch), targets, self._tiers, self._settings, said)
        if self._settings.contrast and model.training:
            loss = loss + self._settings.contrast * contrast_loss(read[0], targets)
        return loss, right

    def _said(self, teachers: Teachers, batch: Sequence[Example]) -> Tensor:
        """What teachers say of each example ``(examples, categories)``; nothing of two rows that are joined."""
        alone = [at for at, (*_, row) in enumerate(batch) if row != _NO_ROW]
        said = torch.zeros(len(batch), len(self._order))
        if alone:
            said[alone] = teachers.of([self._rows[batch[at][2]] for at in alone])
        return said

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


@torch.no_grad()
def start_head(model: TierModel, pooled: Tensor, targets: Sequence[int]) -> None:
    """Make the head a logistic regression, every category counting as much, on standardized states.

    Args:
        model: whose states are standardized already.
        pooled: its pooled states, ``(rows, hidden)``.
        targets: the category of each row; one without rows begins as unlikely as the unlikeliest other one.
    """
    present = sorted(set(targets))
    if len(present) < 2:
        return
    states = ((pooled - model.centre) / model.spread).cpu().numpy()
    fitted = LogisticRegression(C=_PENALTY, max_iter=1000, class_weight="balanced").fit(states, targets)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(present) == 2:  # scikit-learn keeps one row of two
        weight, bias = [-weight[0] / 2, weight[0] / 2], [-bias[0] / 2, bias[0] / 2]
    model.head.weight.zero_()
    model.head.bias.fill_(float(min(bias)))
    for at, category in enumerate(present):
        model.head.weight[category] = torch.as_tensor(weight[at])
        model.head.bias[category] = float(bias[at])


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


def _note(now: Tensor, batch: Sequence[Example], right: Tensor) -> None:
    """Keep how sure the model was of each row of a batch that stood alone."""
    alone = [at for at, (*_, row) in enumerate(batch) if row != _NO_ROW]
    now[[batch[at][2] for at in alone]] = right[alone]


def _batches(examples: Sequence[Example], batch: int, size: int, rng: random.Random) -> list[list[Example]]:
    """The examples, cut to `size` tokens, beginning or end: texts of like length together, from short to long."""
    cut = [(ids[:size] if rng.random() < 0.5 else ids[-size:], target, row) for ids, target, row in examples]
    cut.sort(key=lambda example: len(example[0]) + rng.random() * 4)
    return [cut[start : start + batch] for start in range(0, len(cut), batch)]


def _rounds(
    examples: Sequence[Example], batch: int, size: int, rng: random.Random, devices: int
) -> list[list[list[Example]]]:
    """Batches of like length, one for each device, in random order; the last round may hold fewer."""
    batches = _batches(examples, batch, size, rng)
    rounds = [batches[start : start + devices] for start in range(0, len(batches), devices)]
    rng.shuffle(rounds)
    return sorted(rounds, key=len, reverse=True)


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
            example = (pair[0][0] + pair[1][0], riskier, _NO_ROW)
        result.append(example)
    return result
