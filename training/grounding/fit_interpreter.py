"""Fit a LoRA adapter on a causal language model by trl's `SFTTrainer`: the loss is that of the completions only."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from rag.language_model import LanguageModel
from rag.pairs import without_future_warnings
from rag.prompting import messages
from training.checkpoint import Checkpoint, State
from training.datasets import TrainingError
from training.grounding.interpreter_kinds import Example

_EVERY = 20  # steps between checkpoints
_CONSOLE = Console(stderr=True)

Row = dict[str, list[dict[str, str]]]


@dataclass(frozen=True, slots=True)
class InterpreterRecipe:
    """How to train.

    Attributes:
        epochs: passes over the rows.
        rank: of the adapter.
        lr: peak learning rate.
        batch: rows in memory at once.
        accumulate: such batches in a step.
        max_length: tokens of a row; of longer ones, passages that are not quoted are left out.
        dropout: in the adapter.
        seed: of everything random.
        threads: of torch.
        measured: rows of `dev` that the finished model answers, at most.
        max_tokens: of such an answer.
    """

    epochs: int = 2
    rank: int = 16
    lr: float = 2e-4
    batch: int = 1
    accumulate: int = 16
    max_length: int = 2048
    dropout: float = 0.05
    seed: int = 0
    threads: int = 1
    measured: int = 200
    max_tokens: int = 400


class CompletionTrainer(SFTTrainer):
    """SFTTrainer, without the message that it sends to its makers at every start."""

    def _send_telemetry(self) -> None:
        pass


def row_of(example: Example) -> Row:
    """The prompt, which is the one that is served, and the completion, as trl reads them."""
    return {
        "prompt": messages(example.question, example.evidence, example.documents),
        "completion": [{"role": "assistant", "content": example.completion}],
    }


def fitting(base: LanguageModel, examples: Sequence[Example], max_length: int) -> Iterator[Example]:
    """The examples that are short enough, if need be once passages that are not quoted are left out.

    Those with one of the tokenizer's special tokens in them give none.
    """
    for example in examples:
        found: Example | None = example
        row = row_of(example)
        if any(base.speaks(message["content"]) for message in [*row["prompt"], *row["completion"]]):
            continue
        while found is not None and len(_whole(base, row_of(found))) > max_length:
            found = found.smaller
        if found is not None:
            yield found


def check_template(base: LanguageModel, example: Example) -> None:
    """See that a row begins with the prompt that is served, and that the model learns where to stop.

    Raises:
        TrainingError: with the base's chat template it does not.
    """
    row = row_of(example)
    prompt, whole = base.tokens(row["prompt"]), _whole(base, row)
    if whole[: len(prompt)] != prompt:
        raise TrainingError(
            f"{base.path}: its chat template writes a prompt otherwise once an answer follows; give another with "
            "--chat-template FILE"
        )
    if not base.ends & set(whole[len(prompt) :]):
        raise TrainingError(
            f"{base.path}: its chat template puts no end-of-sequence token after an answer, so that the model would "
            "not learn to stop; give another with --chat-template FILE"
        )


def adapted(base: LanguageModel, recipe: InterpreterRecipe) -> PeftModel:
    """The base with an adapter that does nothing yet, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with without_future_warnings():
        model = get_peft_model(base.model, lora)
    model.active_peft_config.base_model_name_or_path = base.path.name  # not the folder of this machine
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    base: LanguageModel,
    model: PeftModel,
    train: Sequence[Example],
    dev: Sequence[Example],
    recipe: InterpreterRecipe,
    checkpoint: Checkpoint,
    scratch: Path,
) -> dict[str, Any]:
    """All epochs; the mean training loss of each, and the loss on dev before and after.

    Order and dropout come from the seed and the step, so a run that was interrupted goes on as it would have.

    Args:
        base: the language model.
        model: the same with the adapter, which is trained.
        train: rows to learn.
        dev: rows to measure the loss on.
        recipe: how.
        checkpoint: of this run.
        scratch: a folder that trl may write to.

    Raises:
        TrainingError: the loss is not a number any more.
    """
    steps = math.ceil(len(train) * recipe.epochs / (recipe.batch * recipe.accumulate))
    learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(learnt.values(), lr=recipe.lr, weight_decay=0.01)
    started = State()

    def rate(step: int) -> float:
        """Linear warm-up, then linear decay; counted from where this part of the run began."""
        step += started.step
        warm = max(1, steps // 20)
        return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))

    with _without_bars(), without_future_warnings():
        trainer = make_trainer(base, model, train, dev, recipe, scratch, optimizer, LambdaLR(optimizer, rate))
        before = float(trainer.evaluate()["eval_loss"])
        started = checkpoint.restore({"learnt": learnt}, optimizer)
        scheduler = LambdaLR(optimizer, rate)  # anew: its first rate is that of the step to go on from
        state = State(started.step, started.total, list(started.epochs))
        if state.step < steps:
            trainer = make_trainer(base, model, train, dev, recipe, scratch, optimizer, scheduler, done=state.step)
            trainer.add_callback(_Keeper(state, learnt, optimizer, checkpoint, recipe, len(train), steps))
            trainer.train()
        after = float(trainer.evaluate()["eval_loss"])
    model.eval()
    return {"epochs": state.epochs, "dev_loss": {"before": round(before, 4), "after": round(after, 4)}}


def make_trainer(
    base: LanguageModel,
    model: PeftModel,
    train: Sequence[Example],
    dev: Sequence[Example],
    recipe: InterpreterRecipe,
    scratch: Path,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    *,
    done: int = 0,
) -> CompletionTrainer:
    """The trainer over the rows of all epochs, in order, but for those of the steps that are done."""
    arguments = SFTConfig(
        output_dir=str(scratch),
        num_train_epochs=1,
        per_device_train_batch_size=recipe.batch,
        per_device_eval_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        max_length=recipe.max_length,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        prediction_loss_only=True,
        gradient_checkpointing=False,
        bf16=False,
        seed=recipe.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # trl's own would hold pickles
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = CompletionTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([row_of(example) for example in train]),
        eval_dataset=Dataset.from_list([row_of(example) for example in dev]),
        processing_class=base.tokenizer,
        optimizers=(optimizer, scheduler),
    )
    trainer.remove_callback(PrinterCallback)
    order = [
        at
        for epoch in range(recipe.epochs)
        for at in random.Random(f"{recipe.seed}/{epoch}").sample(range(len(train)), len(train))
    ]
    prepared: Any = trainer.train_dataset
    trainer.train_dataset = prepared.select(order[done * recipe.batch * recipe.accumulate :])
    return trainer


class _Keeper(TrainerCallback):
    """After each step: counts it, and now and then keeps where the run stands."""

    def __init__(
        self,
        state: State,
        learnt: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        checkpoint: Checkpoint,
        recipe: InterpreterRecipe,
        rows: int,
        steps: int,
    ) -> None:
        self._state = state
        self._learnt = learnt
        self._optimizer = optimizer
        self._checkpoint = checkpoint
        self._seed = recipe.seed
        self._ends = [
            math.ceil((epoch + 1) * rows / (recipe.batch * recipe.accumulate)) for epoch in range(recipe.epochs)
        ]
        self._steps = steps

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Dropout comes from the seed and the step."""
        torch.manual_seed(hash((self._seed, self._state.step)))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """A step is done: trl tells its loss."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {self._state.step + 1}; give a smaller --lr")
        own = self._state
        own.step += 1
        own.total += loss
        ended = own.step in self._ends
        if ended:
            begun = ([0, *self._ends])[self._ends.index(own.step)]
            own.epochs.append({"train": round(own.total / (own.step - begun), 4)})
            own.total = 0.0
            _CONSOLE.print(f"epoch {len(own.epochs)}: {own.epochs[-1]}")
        if ended or own.step % _EVERY == 0:
            self._checkpoint.save(own, {"learnt": self._learnt}, self._optimizer)
            _CONSOLE.print(f"step {own.step}/{self._steps}, loss {loss:.3f}")


def _whole(base: LanguageModel, row: Row) -> list[int]:
    return base.tokens([*row["prompt"], *row["completion"]])


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without a bar for each step of preparing the rows."""
    shown = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
