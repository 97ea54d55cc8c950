"""The network of the tier classifier: a shared encoder, a LoRA adapter, mean pooling and a category head."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classifier.encoder import Encoder
from classifier.runtime import Runtime
from classifier.settings import ClassifierSettings
from classifier.taxonomy import TAXONOMY, Taxonomy
from classifier.types import ClassifierError

_ADAPTER = "adapter_model.safetensors"
_HEAD = "head.safetensors"


class TierModel(nn.Module):
    """Encoder with a LoRA adapter, mean pooling over tokens, and one linear layer to the categories.

    Forward: mask and ids of shape ``(batch, tokens)``, or in place of the ids what else the encoder reads → logits of
    shape ``(batch, categories)``.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: PeftModel, categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, categories)
        self.register_buffer("centre", torch.zeros(encoder.config.hidden_size), persistent=False)
        self.register_buffer("spread", torch.ones(encoder.config.hidden_size), persistent=False)

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Category logits."""
        pooled = (self.pool(attention_mask, **inputs) - self.centre) / self.spread
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def pool(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """The mean of the states of a text's tokens: ``(batch, hidden)``."""
        states: Tensor = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    @torch.no_grad()
    def standardize(self, centre: Tensor, spread: Tensor) -> None:
        """Let the head read pooled states around `centre` in units of `spread`, and compute what it did before.

        Some encoders put all texts into one narrow cone; a head on raw states then hardly learns. Zero and one take
        the standardization back, which is how a model is saved.
        """
        raw = self.head.weight / self.spread
        self.head.bias.add_(raw @ (centre - self.centre))
        self.head.weight.copy_(raw * spread)
        self.centre.copy_(centre)
        self.spread.copy_(spread)

    @classmethod
    def untrained(cls, encoder: Encoder, categories: int, lora: LoraConfig) -> TierModel:
        """A fresh adapter and head on a shared encoder."""
        with _without_future_warnings():
            adapted = get_peft_model(encoder.lend(), lora)
        adapted.active_peft_config.base_model_name_or_path = encoder.name  # not the folder of this machine
        return cls(adapted, categories)

    @classmethod
    def load(cls, folder: Path, encoder: Encoder, categories: int) -> TierModel:
        """The adapter and head of a model folder on a shared encoder.

        Raises:
            ClassifierError: a file is missing or broken.
        """
        try:
            head, adapter = load_file(folder / _HEAD), load_file(folder / _ADAPTER)  # before peft tries a pickle
            with _without_future_warnings():
                adapted = PeftModel.from_pretrained(encoder.lend(), folder, local_files_only=True)
            if get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() != adapter.keys():
                raise ValueError(f"{_ADAPTER} does not hold the weights that adapter_config.json asks for")
            if not all(value.isfinite().all() for value in (*head.values(), *adapter.values())):
                raise ValueError("some weights are not finite")
            model = cls(adapted, categories)
            model.head.load_state_dict({name: value.float() for name, value in head.items()})
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as exc:
            raise ClassifierError(
                f"classifier model {folder} is damaged or incomplete ({type(exc).__name__}: {exc}); train it "
                "again or reinstall it"
            ) from exc
        return model.float().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write adapter and head as safetensors, in half precision: they were trained far above its resolution."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        adapter = folder / _ADAPTER
        save_file({name: value.half() for name, value in load_file(adapter).items()}, adapter)
        head = {name: value.detach().half().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / _HEAD)
        for path in (adapter, folder / _HEAD):
            path.chmod(0o644)  # safetensors writes for the owner only


def save_model(model: TierModel, taxonomy: Taxonomy, settings: ClassifierSettings, folder: Path) -> None:
    """Write a model folder: weights, taxonomy and settings. `TierClassifier.load` reads it."""
    model.save(folder)
    taxonomy.save(folder / TAXONOMY)
    settings.save(folder)


class TorchRuntime:
    """Runs a `TierModel` as it is: eager PyTorch in single precision (`classifier.runtime.Runtime`)."""

    def __init__(self, model: TierModel, encoder: Encoder) -> None:
        self.name = "torch-fp32"
        self.model = model.eval()
        self.categories = model.head.out_features
        self.longest = getattr(encoder.model.config, "max_position_embeddings", None)
        self._collate = encoder.collate

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Category logits of rows of token ids."""
        with torch.inference_mode():
            logits: NDArray[np.float64] = self.model(**self._collate(rows)).double().numpy()
        return logits


def network_of(runtime: Runtime) -> TierModel:
    """The network behind a runtime, to train or change it.

    Raises:
        ClassifierError: the runtime is not PyTorch.
    """
    if not isinstance(runtime, TorchRuntime):
        raise ClassifierError(f"{type(runtime).__name__} only runs a model; load it with `TierClassifier.load`")
    return runtime.model


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Peft asks transformers for a name that a later release drops; nothing that a caller can do about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
