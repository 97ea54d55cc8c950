"""Train the evidence reader: LoRA on a frozen encoder, an output for each sentence and one for the passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from classifier.encoder import load_encoder
from rag.pairs import Base
from rag.reader import PASSAGE, SENTENCE, EvidenceReader, reading_windows
from training.grounding.evaluate_reader import choose_thresholds, evaluate_reader, excerpt
from training.grounding.fit_pairs import Example
from training.grounding.negatives import swapped
from training.grounding.pair_run import PairRun, tempered
from training.grounding.rows import EvidenceRow, in_language, read_evidence, trainable

_SENTENCES = 2.0  # weight of the sentences' loss beside the passage's


@dataclass(frozen=True, slots=True)
class ReadingTarget:
    """What is to be learnt of a window.

    Attributes:
        sentences: for each of its sentences whether it answers.
        weight: of the window.
    """

    sentences: tuple[bool, ...]
    weight: float


def train_reader(run: PairRun, encoder_name: str) -> dict[str, Any]:
    """Train on split `train`, choose epoch and thresholds on `dev`, save, measure on `dev`.

    Each answerable row is seen with its passage and with another one, which does not answer it.

    Args:
        run: its files are JSONL files of evidence rows.
        encoder_name: as for `classifier.encoder.load_encoder`.

    Returns:
        The manifest, which is also written to ``manifest.json`` in the model's folder.

    Raises:
        TrainingError: the data cannot be trained with, or the folder holds a model or a run of other settings.
        ClassifierError: the encoder is at fault.
        KnowledgeError: the encoder does not read windows of that length.
    """
    run.start()
    train, dev = run.split(trainable(in_language(read_evidence(run.files), run.language), run.without))
    base = load_encoder(encoder_name)
    learnt, held = (
        examples(base, [*rows, *swapped(rows, seed=run.recipe.seed)], run.recipe.window) for rows in (train, dev)
    )
    finished, made = run.fit(base, learnt, held, reader_loss)
    thresholds = choose_thresholds(EvidenceReader.load(finished, base), dev, seed=run.recipe.seed)
    run.settings(base, thresholds).save(finished)
    figures = evaluate_reader(EvidenceReader.load(finished, base), dev, seed=run.recipe.seed)
    counts = {"train": len(train), "dev": len(dev), "windows": len(learnt)}
    return run.complete(finished, {**made, "rows": counts, "figures": figures}, train)


def examples(base: Base, rows: Sequence[EvidenceRow], window: int) -> list[Example[ReadingTarget]]:
    """The windows of all rows, each with its sentences that answer."""
    weights = tempered([row.source for row in rows])
    return [
        Example(part.pair, ReadingTarget(tuple(at in row.answers for at in part.sentences), weight))
        for row, weight in zip(rows, weights, strict=True)
        for part in reading_windows(base, excerpt(row), window)
    ]


def reader_loss(logits: Tensor, targets: Sequence[ReadingTarget]) -> Tensor:
    """Binary cross-entropy of the passage and, twice as heavy, of its sentences, times the weights; means.

    The weights are 1 on average over all rows, so that a batch counts as much as its rows weigh.

    Args:
        logits: shape ``(batch, spans, 2)``; span 0 speaks for the passage, the others for its sentences.
        targets: one for each row of the batch.
    """
    weights = torch.tensor([target.weight for target in targets])
    passage = functional.binary_cross_entropy_with_logits(
        logits[:, 0, PASSAGE], torch.tensor([float(any(target.sentences)) for target in targets]), reduction="none"
    )
    rows = [at for at, target in enumerate(targets) for _ in target.sentences]
    spans = [span for target in targets for span, _ in enumerate(target.sentences, 1)]
    answers = torch.tensor([float(answer) for target in targets for answer in target.sentences])
    sentence = functional.binary_cross_entropy_with_logits(logits[rows, spans, SENTENCE], answers, reduction="none")
    return (passage * weights).sum() / len(targets) + _SENTENCES * (sentence * weights[rows]).sum() / len(rows)
