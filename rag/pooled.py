"""A sentence encoder out of a bare transformer: the mean of its last states, as the E5 models are meant to be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rag.encoders import SentenceEncoder

_TOKENS = 512  # of a text; what exceeds them is not read


class PooledEncoder:
    """A transformer on the CPU whose states are averaged; an `rag.types.Encoder`.

    Args:
        model: in evaluation mode.
        tokenizer: a fast one, with a padding token.
        fingerprint: SHA-256 of the weights.
        passage: put before each text that may answer.
        query: put before each text that asks.
        floor: cosine of texts that have nothing in common.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fingerprint: str,
        *,
        passage: str = "",
        query: str = "",
        floor: float = 0.0,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._passage = passage
        self._query = query
        self.dimension = int(model.config.hidden_size)
        self.fingerprint = fingerprint
        self.floor = floor

    @classmethod
    def e5(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str) -> PooledEncoder:
        """One of the E5 models: their prefixes, and the cosine from which theirs tell anything (decision 23)."""
        return cls(model, tokenizer, fingerprint, passage="passage: ", query="query: ", floor=0.75)

    def encode(self, texts: Sequence[str], *, batch: int = 32, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, shape ``(texts, dimension)``; of a text, the first 512 tokens are read. Shows no progress."""
        return self._all(self._passage, texts, batch)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for what is asked."""
        return self._all(self._query, texts, 32)

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for questions that are kept, to be compared with others."""
        return self.encode_queries(texts)

    def _all(self, prefix: str, texts: Sequence[str], batch: int) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            vectors[some] = self._vectors([prefix + texts[place] for place in some])
        return vectors

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        most = min(_TOKENS, int(self._model.config.max_position_embeddings))
        # Cut and padded here: the tokenizer is the classifier's too, and would keep either for all its callers.
        encoded: Any = self._tokenizer(texts, split_special_tokens=True, return_attention_mask=False, verbose=False)
        rows = [ids if len(ids) <= most else [*ids[: most - 1], ids[-1]] for ids in encoded["input_ids"]]
        width = max(map(len, rows))
        pad = self._tokenizer.pad_token_id
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.inference_mode():
            inputs = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
            states = self._model(input_ids=inputs, attention_mask=mask)[0]
        mask = mask.unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        return np.asarray(torch.nn.functional.normalize(mean, dim=1).numpy(), dtype=np.float32)


def sentence_encoder(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sha256: str
) -> SentenceEncoder | PooledEncoder:
    """The sentence encoder over a transformer that is loaded already.

    Args:
        path: a sentence-transformers folder, which says by itself how its states are read; or a file of E5 weights.
        model: what is in it.
        tokenizer: its own.
        sha256: of its weights.

    Raises:
        KnowledgeError: the folder is no sentence-transformers model.
    """
    if path.is_dir():
        return SentenceEncoder.load(path, sha256=sha256, model=model)
    return PooledEncoder.e5(model, tokenizer, sha256)
