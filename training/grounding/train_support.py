"""Train the support model: LoRA on a frozen encoder, three outputs for a claim that is read with a passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.encoder import load_encoder
from rag.pairs import Base, Pair
from rag.support import CLAIM, CONTRADICTED, NOT_STATED, SUPPORTED, SupportReader, support_windows
from training.grounding.edits import SOURCE, build_edits, read_paragraphs
from training.grounding.evaluate_support import evaluate_support, judge_rows, supported, threshold_of
from training.grounding.fit_pairs import Example
from training.grounding.giveaways import guessed
from training.grounding.pair_run import PairRun, tempered
from training.grounding.rows import ClaimRow, Label, in_language, read_claims, trainable
from training.mixture import some

_OUTPUTS = {
    Label.SUPPORTED: (SUPPORTED,),
    Label.CONTRADICTED: (CONTRADICTED,),
    Label.NOT_STATED: (NOT_STATED,),
    Label.NOT_SUPPORTED: (CONTRADICTED, NOT_STATED),
}


@dataclass(frozen=True, slots=True)
class SupportTarget:
    """What is to be learnt of a pair.

    Attributes:
        outputs: those whose probabilities should sum to 1.
        weight: of the pair.
        guess: log-odds that the claim is supported, by how it was written, for a model that is to learn the rest.
    """

    outputs: tuple[int, ...]
    weight: float
    guess: float = 0.0


def train_support(
    run: PairRun,
    encoder_name: str,
    data: Sequence[Path],
    paragraphs: Sequence[Path],
    edits: int,
    *,
    beside_guesses: bool = False,
) -> dict[str, Any]:
    """Train on split `train` of labelled rows and of built pairs, choose epoch and threshold on `dev`, save, measure.

    Args:
        run: its files are those of `data` and `paragraphs`.
        encoder_name: as for `classifier.encoder.load_encoder`.
        data: JSONL files of claim rows.
        paragraphs: what pairs are built of; see `training.grounding.edits.read_paragraphs`.
        edits: built pairs to train on, at most, chosen at random; an eighth as many for `dev`.
        beside_guesses: learn what the writing of claims does not give away; see `training.grounding.giveaways`.

    Returns:
        The manifest, which is also written to ``manifest.json`` in the model's folder.

    Raises:
        TrainingError: the data cannot be trained with, or the folder holds a model or a run of other settings.
        ClassifierError: the encoder is at fault.
        KnowledgeError: the encoder does not read windows of that length.
    """
    run = replace(run, further={"edits": edits, "beside_guesses": beside_guesses})
    run.start()
    seed = run.recipe.seed
    found = read_paragraphs(paragraphs)
    claims = in_language(read_claims(data, found), run.language)
    found = in_language(found, run.language)
    built = build_edits(trainable(found, run.without, claims), seed=seed)
    train, dev = run.split(trainable(claims, run.without, found))
    train += some([row for row in built if row.split == "train"], min(edits, run.limit or edits), seed)
    dev += some([row for row in built if row.split == "dev"], min(edits, run.limit or edits) // 8 + 1, seed)
    base = load_encoder(encoder_name)
    learnt, held = (examples(base, rows, run.recipe.window) for rows in (train, dev))
    if beside_guesses:
        learnt = [
            replace(example, target=replace(example.target, guess=guess))
            for example, guess in zip(learnt, guessed(train), strict=True)
        ]
    finished, made = run.fit(base, learnt, held, support_loss)
    with torch.autocast("cpu", torch.bfloat16, enabled=run.recipe.precision == "bf16"):
        judged = judge_rows(SupportReader.load(finished, base), dev)
        run.settings(base, {"supported": threshold_of(supported(judged), dev)}).save(finished)
        figures = evaluate_support(SupportReader.load(finished, base), dev, seed=seed, judged=judged)
    counts = {"train": len(train), "built": sum(row.source == SOURCE for row in train), "dev": len(dev)}
    return run.complete(finished, {**made, "rows": counts, "figures": figures}, train)


def examples(base: Base, rows: Sequence[ClaimRow], window: int) -> list[Example[SupportTarget]]:
    """Each row as one window: of a long passage the one that shares most with the claim.

    Sources weigh as the root of their number of rows, and within a source each label the same.
    """
    by_source = tempered([row.source for row in rows])
    counts: dict[tuple[str, Label], int] = {}
    for row in rows:
        counts[row.source, row.label] = counts.get((row.source, row.label), 0) + 1
    sizes: dict[str, list[int]] = {}
    for (source, _), count in counts.items():
        sizes.setdefault(source, []).append(count)
    return [
        Example(
            _window(base, row, window),
            SupportTarget(
                _OUTPUTS[row.label],
                weight * sum(sizes[row.source]) / len(sizes[row.source]) / counts[row.source, row.label],
            ),
        )
        for row, weight in zip(rows, by_source, strict=True)
    ]


def support_loss(logits: Tensor, targets: Sequence[SupportTarget]) -> Tensor:
    """Minus the log of the probability that the right outputs have together, times the weight; the mean.

    Where a guess stands beside a row, the probability is that of the product of both.

    Args:
        logits: shape ``(batch, spans, 3)``; the claim's span counts.
        targets: one for each row of the batch.
    """
    weights = torch.tensor([target.weight for target in targets])
    right = torch.tensor([[output in target.outputs for output in range(logits.shape[-1])] for target in targets])
    said = logits[:, CLAIM].clone()
    said[:, SUPPORTED] += torch.tensor([target.guess for target in targets])
    values = said.log_softmax(-1).masked_fill(~right, float("-inf")).logsumexp(-1)
    return -(values * weights).sum() / len(targets)


def _window(base: Base, row: ClaimRow, window: int) -> Pair:
    found = support_windows(base, row.passage, row.claim, window)
    return max(found, key=lambda pair: len(set(pair.first) & set(pair.second)))
