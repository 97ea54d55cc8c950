"""A sentence encoder out of a bare transformer: the mean of its last states, as the E5 models are meant to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENS = 512  # of a text; what exceeds them is not read


class PooledEncoder:
    """A transformer on the CPU whose states are averaged; an `rag.types.Encoder`.

    Args:
        model: in evaluation mode.
        tokenizer: a fast one, with a padding token.
        fingerprint: SHA-256 of the weights.
        prefix: put before each text, such as ``query: `` or ``passage: ``; an encoder for passages and one for queries
            may differ in it and still have the same fingerprint, since their vectors are to be compared.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str, *, prefix: str = ""
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._fingerprint = fingerprint
        self._prefix = prefix

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.config.hidden_size)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return self._fingerprint

    def encode(self, texts: Sequence[str], *, batch: int = 32, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, shape ``(texts, dimension)``; of a text, the first 512 tokens are read. Shows no progress."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            vectors[some] = self._vectors([self._prefix + texts[place] for place in some])
        return vectors

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        most = min(_TOKENS, int(self._model.config.max_position_embeddings))
        inputs: Any = self._tokenizer(
            texts, padding=True, truncation=True, max_length=most, split_special_tokens=True, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self._model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
        mask = inputs["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        return np.asarray(torch.nn.functional.normalize(mean, dim=1).numpy(), dtype=np.float32)
