"""The sentence encoder: unit vectors for texts, from a local sentence-transformers folder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rag.types import KnowledgeError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceEncoder:
    """A sentence-transformers model on the CPU; an `rag.types.Encoder`.

    Args:
        model: its first module is the transformer.
        fingerprint: SHA-256 of its weights file.
    """

    def __init__(self, model: SentenceTransformer, fingerprint: str) -> None:
        self._model = model.eval()
        self._lock = threading.Lock()  # a tokenizer cannot be set up in one thread and read in another
        self.dimension = int(model.get_embedding_dimension() or 0)
        self.fingerprint = fingerprint
        self.floor = 0.0  # sentence-transformers are trained to find nothing in common where nothing is

    @classmethod
    def load(cls, folder: Path, *, sha256: str | None = None, model: PreTrainedModel | None = None) -> SentenceEncoder:
        """Load a folder of safetensors weights; nothing is fetched and no code in it is run.

        Args:
            folder: a sentence-transformers model.
            sha256: what ``model.safetensors`` must hash to.
            model: the same folder's transformer, loaded before; it is used in place of a second copy of the weights.

        Raises:
            KnowledgeError: files are missing or broken, the hash is another, or `model` has other weights.
        """
        weights = folder / "model.safetensors"
        if not weights.is_file() or not (folder / "modules.json").is_file():
            raise KnowledgeError(
                f"encoder folder {folder} lacks model.safetensors or modules.json; give a sentence-transformers model"
            )
        with weights.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and fingerprint != sha256:
            raise KnowledgeError(f"SHA-256 of {weights} is {fingerprint}, expected {sha256}; reinstall the encoder")
        loaded = _load(folder)
        if model is not None:
            _share(loaded, model, folder)
        return cls(loaded, fingerprint)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, shape ``(texts, dimension)``; what exceeds the model's maximum length is not read."""
        return self._vectors(self._model.encode_document, texts, progress)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for questions, with the prompt that the model's folder names for them, if it names one."""
        return self._vectors(self._model.encode_query, texts)

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for questions that are kept, to be compared with others."""
        return self.encode_queries(texts)

    def _vectors(self, encode: Callable[..., Any], texts: Sequence[str], progress: bool = False) -> NDArray[np.float32]:
        with self._lock:
            vectors = encode(list(texts), show_progress_bar=progress, normalize_embeddings=True)
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)


def _load(folder: Path) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer  # takes seconds, and a shared encoder wants none of it

    show_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError) as exc:
        raise KnowledgeError(f"encoder folder {folder} cannot be loaded: {exc}") from exc
    finally:
        if show_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _share(loaded: SentenceTransformer, model: PreTrainedModel, folder: Path) -> None:
    """Put `model` in the place of the loaded transformer, once it is known to hold the same weights."""
    transformer: Any = loaded[0]
    own, other = transformer.model.state_dict(), model.state_dict()
    if own.keys() != other.keys() or not all(torch.equal(value, other[name]) for name, value in own.items()):
        raise KnowledgeError(
            f"the model lent to the sentence encoder has other weights than {folder}; load it from there"
        )
    transformer.model = model
