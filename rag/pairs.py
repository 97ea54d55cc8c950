"""Models that read two texts together: a shared encoder, a LoRA adapter, and a linear head over spans of tokens."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from rag.types import KnowledgeError

Task = Literal["reader", "support"]
OUTPUTS: Mapping[Task, int] = {"reader": 2, "support": 3}
THRESHOLDS: Mapping[Task, frozenset[str]] = {
    "reader": frozenset({"passage", "sentence"}),
    "support": frozenset({"supported"}),
}
NO_SPAN = -1
_ADAPTER = "adapter_model.safetensors"
_HEAD = "head.safetensors"
_SETTINGS = "model.json"
# What is raised where weights are missing, broken, or of another model.
DAMAGE = (OSError, SafetensorError, ValueError, TypeError, RuntimeError, KeyError)


class Base(Protocol):
    """The encoder that adapters sit on; `classifier.encoder.Encoder` is one. Its weights are shared, never changed."""

    @property
    def name(self) -> str:
        """The setting that it was loaded from."""

    @property
    def sha256(self) -> str:
        """Of its weights file."""

    @property
    def model(self) -> PreTrainedModel:
        """The transformer, in evaluation mode."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """It knows a padding token."""

    @property
    def before(self) -> tuple[int, ...]:
        """Ids of the special tokens before a text."""

    @property
    def after(self) -> tuple[int, ...]:
        """Those after it, which also stand between two texts."""

    def lend(self) -> PreTrainedModel:
        """A second model object over the same weight tensors."""

    def tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Ids of whole texts, without special tokens."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts to be read together, as token ids without special tokens.

    Attributes:
        first: span 0, together with the special tokens before it.
        second: the other text.
        spans: for each token of `second` the number of its span, from 1 on, or NO_SPAN.
    """

    first: list[int]
    second: list[int]
    spans: list[int]

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What a model folder says of itself beside its weights (``model.json``).

    Attributes:
        task: what the model does.
        name: of the model.
        encoder: name of the encoder it was trained on.
        encoder_sha256: of that encoder's weights file.
        window: tokens read at a time, special ones included.
        thresholds: probabilities from which something holds, chosen on data that training did not see.
    """

    task: Task
    name: str
    encoder: str
    encoder_sha256: str
    window: int = 256
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in OUTPUTS:
            raise ValueError(f"task {self.task!r}: need one of {', '.join(OUTPUTS)}")
        if not isinstance(self.window, int) or not isinstance(self.encoder, str):
            raise TypeError(f"window {self.window!r} must be a whole number and encoder {self.encoder!r} a name")
        if set(self.thresholds) - THRESHOLDS[self.task]:
            raise ValueError(f"thresholds {sorted(self.thresholds)}: need {sorted(THRESHOLDS[self.task])}")
        for name, value in self.thresholds.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"threshold {name} = {value}: need a probability")

    def threshold(self, name: str) -> float:
        """The threshold of that name; a half before one was chosen."""
        return self.thresholds.get(name, 0.5)

    def save(self, folder: Path) -> None:
        """Write ``model.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SETTINGS).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, task: Task) -> PairSettings:
        """Read ``model.json``.

        Raises:
            KnowledgeError: it is missing or malformed, or of another task.
        """
        try:
            data: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            settings = cls(**data)
        except FileNotFoundError as exc:
            raise KnowledgeError(
                f"{task} model {folder} has no {_SETTINGS}; give the folder that `airlock train {task}` wrote"
            ) from exc
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            raise KnowledgeError(f"{task} model {folder}: {_SETTINGS} is malformed: {exc}; train again") from exc
        if settings.task != task:
            raise KnowledgeError(
                f"{folder} is a {settings.task} model, not a {task} model; give the folder that "
                f"`airlock train {task}` wrote"
            )
        return settings


class PairModel(nn.Module):
    """Encoder with a LoRA adapter; of each span the mean and the maximum of its tokens' states; one linear layer.

    The maximum keeps what a single token says, such as the one number that is wrong, and the mean would drown.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: PeftModel, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        width = 2 * encoder.config.hidden_size
        self.head = nn.Linear(width, outputs)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, spans: Tensor, **inputs: Tensor) -> Tensor:
        """Logits of shape ``(batch, spans, outputs)``; see `collate` for the inputs.

        A row with fewer spans than another has meaningless logits behind its own.
        """
        logits: Tensor = self.head(self.dropout((self.pool(spans, **inputs) - self.centre) / self.spread))
        return logits

    def pool(self, spans: Tensor, **inputs: Tensor) -> Tensor:
        """The spans' mean and maximum: ``(batch, spans, 2 * hidden)``."""
        states: Tensor = self.encoder(**inputs).last_hidden_state.float()
        count = int(spans.max()) + 1
        index = spans.masked_fill(spans == NO_SPAN, count).unsqueeze(-1).expand_as(states)
        empty = states.new_zeros(len(states), count + 1, states.shape[-1])
        kinds = [empty.scatter_reduce(1, index, states, kind, include_self=False) for kind in ("mean", "amax")]
        return torch.cat(kinds, dim=-1)[:, :count]

    @classmethod
    def untrained(cls, base: Base, outputs: int, lora: LoraConfig) -> PairModel:
        """A fresh adapter and head on a shared encoder."""
        with without_future_warnings():
            adapted = get_peft_model(base.lend(), lora)
        adapted.active_peft_config.base_model_name_or_path = base.name  # not the folder of this machine
        return cls(adapted, outputs)

    def save(self, folder: Path) -> None:
        """Write adapter and head as safetensors, the adapter in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        adapter = folder / _ADAPTER
        save_file({name: value.half() for name, value in load_file(adapter).items()}, adapter)
        save_file(self._head_state(), folder / _HEAD)
        for path in (adapter, folder / _HEAD):
            path.chmod(0o644)  # safetensors writes for the owner only

    @classmethod
    def load(cls, folder: Path, base: Base, settings: PairSettings) -> PairModel:
        """Read what `save` wrote onto an encoder; the weights come back frozen, in single precision.

        Raises:
            KnowledgeError: a file is missing or broken, or the adapter was trained on another encoder.
        """
        where = f"{settings.task} model {folder}"
        if settings.encoder_sha256 != base.sha256:
            raise KnowledgeError(
                f"{where} was trained on encoder {settings.encoder!r} (SHA-256 {settings.encoder_sha256[:12]}…), not "
                f"on {base.name!r} ({base.sha256[:12]}…); load it onto the one it was trained on"
            )
        check_window(settings, base)
        try:
            head = finite_weights(folder / _HEAD)
            model = cls(load_adapter(base.lend(), folder), OUTPUTS[settings.task])
            if head.keys() != model._head_state().keys():
                raise ValueError(f"{_HEAD} holds {', '.join(sorted(head))}")
            model.load_state_dict(head, strict=False)
        except DAMAGE as exc:
            raise KnowledgeError(
                f"{where} is damaged or incomplete ({type(exc).__name__}: {exc}); train it again or reinstall it"
            ) from exc
        return model.float().requires_grad_(False).eval()

    def _head_state(self) -> dict[str, Tensor]:
        state = self.state_dict()
        own = ("centre", "spread", "head.weight", "head.bias")
        return {name: state[name].detach().float().contiguous() for name in own}


class PairReader:
    """A trained model that reads pairs, on its encoder; a subclass names the task and says what the logits mean.

    Args:
        model: encoder, adapter and head.
        base: the encoder the model sits on.
        settings: window and thresholds.
        batch: windows run at once.
    """

    task: ClassVar[Task]

    def __init__(self, model: PairModel, base: Base, settings: PairSettings, *, batch: int = 16) -> None:
        self.model = model.eval()
        self.settings = settings
        self._base = base
        self._batch = batch

    @classmethod
    def load(cls, folder: Path, base: Base) -> Self:
        """Load a model folder onto an encoder.

        Raises:
            KnowledgeError: a file is missing or broken, or the model is of another task or encoder.
        """
        settings = PairSettings.load(folder, cls.task)
        return cls(PairModel.load(folder, base, settings), base, settings)


def check_window(settings: PairSettings, base: Base) -> None:
    """Raise KnowledgeError unless the encoder reads windows of that length, and half of one holds some words."""
    longest = getattr(base.model.config, "max_position_embeddings", settings.window)
    if not 32 <= settings.window <= longest:
        raise KnowledgeError(
            f"{settings.task} model {settings.name!r}: windows of {settings.window} tokens; encoder {base.name!r} "
            f"reads from 32 up to {longest}"
        )


def room(base: Base, window: int) -> int:
    """How many tokens two texts may have together in a window."""
    return window - len(base.before) - 2 * len(base.after)


def collate(base: Base, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """Inputs of `PairModel.forward`, each ``(pairs, longest)``: ids, mask, spans, and types if the encoder has them.

    Special tokens stand before, between and behind the two texts.
    """
    before, after = list(base.before), list(base.after)
    pad = base.tokenizer.pad_token_id
    ids = [[*before, *pair.first, *after, *pair.second, *after] for pair in pairs]
    outside = [NO_SPAN] * len(after)
    spans = [[*[0] * (len(before) + len(pair.first)), *outside, *pair.spans, *outside] for pair in pairs]
    second = [len(before) + len(pair.first) + len(after) for pair in pairs]
    width = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        "spans": torch.tensor([row + [NO_SPAN] * (width - len(row)) for row in spans]),
    }
    if getattr(base.model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.tensor([[0] * start + [1] * (width - start) for start in second])
    return inputs


def logits(model: PairModel, base: Base, pairs: Sequence[Pair], batch: int) -> Iterator[Tensor]:
    """The logits of each pair in order, ``(spans, outputs)`` in double precision; like lengths share a batch."""
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at]))
    found: dict[int, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            rows = model(**collate(base, [pairs[at] for at in indices])).double()
            for at, row in zip(indices, rows, strict=True):
                found[at] = row[: 1 + max(pairs[at].spans, default=0)]
    return (found[at] for at in range(len(pairs)))


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A model with the LoRA adapter of a folder on it; raises one of `DAMAGE` if that is not whole."""
    weights = finite_weights(folder / _ADAPTER)  # before peft tries a pickle
    with without_future_warnings():
        adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    if get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() != weights.keys():
        raise ValueError(f"{_ADAPTER} does not hold the weights that adapter_config.json asks for")
    return adapted


def finite_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a file of safetensors; raises one of `DAMAGE` if there are none or some are not finite."""
    weights = load_file(path)
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"some weights of {path.name} are not finite")
    return weights


def sigmoid(logit: float) -> float:
    """The probability of a logit."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


@contextmanager
def without_future_warnings() -> Iterator[None]:
    """Peft and trl ask transformers for names that a later release drops; nothing that a caller can do about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
