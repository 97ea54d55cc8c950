"""Trained classifiers that teach another one: what they say of a row stands beside its label (arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.network import network_of
from classifier.normalize import normalize
from classifier.taxonomy import Taxonomy
from training.datasets import Row, TrainingError
from training.lineage import read_manifest
from training.tiers.model_folder import load_with_encoder


class Teachers:
    """Some classifiers of one taxonomy, and what they said of rows so far.

    A teacher that was trained on some languages only says nothing of rows in others. Each reads a row as it is written,
    whatever the pupil sees of it, and its first window only.

    Args:
        folders: of the teachers; every one counts as much.
        taxonomy: the pupil's.
        precision: of the teachers' arithmetic, `fp32` or `bf16`.

    Raises:
        TrainingError: a teacher has another taxonomy.
        ClassifierError: a teacher, or its encoder, is missing or broken.
    """

    def __init__(self, folders: Sequence[Path], taxonomy: Taxonomy, precision: str) -> None:
        self._teachers = [_Teacher(folder, taxonomy, precision) for folder in folders]
        self._categories = len(taxonomy.categories)
        self._said: dict[Row, Tensor] = {}

    def of(self, rows: Sequence[Row]) -> Tensor:
        """Category probabilities ``(rows, categories)``; all are zero in a row that no teacher can read."""
        missing = list({row: None for row in rows if row not in self._said})
        total, heard = torch.zeros(len(missing), self._categories), torch.zeros(len(missing), 1)
        for teacher in self._teachers:
            known = [at for at, row in enumerate(missing) if teacher.reads(row)]
            if known:
                total[known] += teacher.probabilities([missing[at].text for at in known])
                heard[known] += 1
        self._said.update(zip(missing, (total / heard.clamp(min=1)).half(), strict=True))
        return torch.stack([self._said[row] for row in rows]).float()


class _Teacher:
    def __init__(self, folder: Path, taxonomy: Taxonomy, precision: str) -> None:
        manifest = read_manifest(folder)
        classifier, self._encoder = load_with_encoder(folder)
        if classifier.taxonomy.version != taxonomy.version:
            raise TrainingError(
                f"--teacher {folder}: it has another taxonomy; a teacher's must be the pupil's, {taxonomy.name!r}"
            )
        self._languages = manifest["settings"].get("languages") or ()
        self._room = classifier.room
        self._network = network_of(classifier.runtime)
        merged: Any = self._network.encoder.merge_and_unload()
        self._network.encoder = merged
        self._half = precision == "bf16"
        if self._half:
            self._network.encoder.to(torch.bfloat16)

    def reads(self, row: Row) -> bool:
        return not self._languages or row.lang in self._languages

    @torch.inference_mode()
    def probabilities(self, texts: Sequence[str]) -> Tensor:
        encoded = self._encoder.tokenize([normalize(text) for text in texts])["input_ids"]
        inputs = self._encoder.collate([ids[: self._room] for ids in encoded])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            logits: Tensor = self._network(**inputs)
        return logits.float().softmax(-1).clone()
