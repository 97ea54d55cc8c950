"""Load an encoder once, check that it is the one expected, and lend its weights to several adapters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from classifier.e5 import read_e5
from classifier.types import ClassifierError
from classifier.weights import encoder_path, encoder_sha256


@dataclass(frozen=True, slots=True)
class Encoder:
    """A transformer with its tokenizer.

    Attributes:
        name: the setting it was loaded from.
        path: the folder or the file that it was read from.
        sha256: of its weights file.
        model: in evaluation mode; never trained or changed in place: see `lend`.
        tokenizer: a fast tokenizer, which knows character offsets.
        before: ids of the special tokens that the model expects before a text.
        after: those after it.
    """

    name: str
    path: Path
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    before: tuple[int, ...]
    after: tuple[int, ...]

    def lend(self) -> PreTrainedModel:
        """A second model object over the same weight tensors, so that an adapter can be put on it at no cost."""
        shared = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        return copy.deepcopy(self.model, memo=shared)

    def tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Ids and character offsets of whole texts, no special tokens among them: what is written like one is text."""
        encoding: BatchEncoding = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return encoding

    @property
    def unknown(self) -> int | None:
        """Id of what the vocabulary does not know."""
        found: int | None = self.tokenizer.unk_token_id
        return found

    def split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of one text (`classifier.runtime.Tokenizer`)."""
        encoding = self.tokenize([text])
        return encoding["input_ids"][0], encoding["offset_mapping"][0]

    def collate(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token ids without special tokens → padded model inputs with them: ids and mask, ``(rows, longest)``."""
        pad = self.tokenizer.pad_token_id
        built = [[*self.before, *row, *self.after] or [pad] for row in rows]  # some models have no special tokens
        width = max(map(len, built))
        return {
            "input_ids": torch.tensor([row + [pad] * (width - len(row)) for row in built]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in built]),
        }


def load_encoder(name: str) -> Encoder:
    """Load an encoder from a folder or a file of `classifier.e5`, also out of an installed package; never from a hub.

    Args:
        name: as for `classifier.weights.encoder_path`. A folder holds what transformers saves, in safetensors.

    Raises:
        ClassifierError: nothing is there, it is not in safetensors, it lacks weights, its hash is not the pinned
            one, or it is an encoder-decoder.
    """
    path = encoder_path(name)
    sha256 = encoder_sha256(name, path)
    show_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, tokenizer = _read(path)
    except (OSError, SafetensorError, ValueError, RuntimeError) as exc:
        raise ClassifierError(f"encoder {name!r} in {path} cannot be loaded: {exc}") from exc
    finally:
        if show_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if model.config.is_encoder_decoder:
        raise ClassifierError(
            f"encoder {name!r} is an encoder-decoder ({model.config.model_type}), which does not read a text without "
            "writing one; give an encoder alone, such as a BERT or an XLM-RoBERTa"
        )
    model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    if tokenizer.pad_token_id is None or not tokenizer.is_fast:
        raise ClassifierError(
            f"encoder {name!r}: its tokenizer has no padding token, or knows no character offsets; name a padding "
            "token in its tokenizer_config.json, or give another encoder"
        )
    before, after = _special_tokens(tokenizer)
    return Encoder(name, path, sha256, model, tokenizer, before, after)


def _read(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if path.suffix == ".bin":
        return read_e5(path)
    model, report = AutoModel.from_pretrained(
        path, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    used = (name for name in report["missing_keys"] if not name.startswith("pooler."))  # nothing reads a pooler
    if missing := sorted(used):
        raise ValueError(
            f"{len(missing)} weights are not in its file, {missing[0]} among them, and would be random; save the "
            "encoder by itself, with transformers, and see that the download is whole"
        )
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return tuple(whole[:at]), tuple(whole[at + len(bare) :])
