"""The reranker: a cross-encoder that reads query and passage together, from a local sentence-transformers folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import CrossEncoder

from rag.types import KnowledgeError


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder on the CPU; an `rag.types.Reranker`.

    Args:
        model: gives one figure for a pair of texts.
    """

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model

    @classmethod
    def load(cls, folder: Path) -> CrossEncoderReranker:
        """Load a folder of safetensors weights; nothing is fetched and no code in it is run.

        Raises:
            KnowledgeError: files are missing or broken, or the model gives several figures for a pair.
        """
        if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
            raise KnowledgeError(
                f"reranker folder {folder} lacks model.safetensors or config.json; give a cross-encoder's folder"
            )
        try:
            model = CrossEncoder(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError) as exc:
            raise KnowledgeError(f"reranker folder {folder} cannot be loaded: {exc}") from exc
        if model.num_labels != 1:
            raise KnowledgeError(
                f"reranker folder {folder} gives {model.num_labels} figures for a pair; give a model that gives one"
            )
        return cls(model)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """One figure for each text, the higher the better; what exceeds the model's maximum length is not read."""
        scores = self._model.predict([(query, text) for text in texts], show_progress_bar=False)
        return [float(score) for score in np.asarray(scores)]
