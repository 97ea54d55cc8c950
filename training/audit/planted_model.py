"""A model whose safety heads are known, its prompts, and the proof that these heads carry its refusals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from attribution.ablate import ablate
from attribution.heads import all_heads
from attribution.types import Ablation, HeadId
from training.audit.planted_task import LENGTHS, REFUSE, Ask
from training.audit.taken_out import WAYS


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a model does under one ablation.

    Attributes:
        asr: Share of harmful prompts that are not refused.
        answered: Share of harmful prompts that get the right answer.
        right: Share of harmless prompts that get the right answer.
    """

    asr: float
    answered: float
    right: float


@dataclass(frozen=True, slots=True)
class PlantedModel:
    """A model and the right answer to the question which heads carry its safety.

    Attributes:
        model: On the CPU, in fp32, ready to be audited.
        heads: The planted heads; what would have been planted, for a control.
        seed: It was made with.
        shuffled: Whether it is the control, in which nothing is planted.
        harmful: Held-out harmful prompts.
        harmless: Held-out harmless prompts.
        harmful_train: Harmful prompts of the half that was trained on.
        harmless_train: Harmless prompts of that half.
        steps: That training took.
        seconds: That it took.
    """

    model: PreTrainedModel
    heads: tuple[HeadId, ...]
    seed: int
    shuffled: bool
    harmful: tuple[Ask, ...]
    harmless: tuple[Ask, ...]
    harmful_train: tuple[Ask, ...] = field(repr=False)
    harmless_train: tuple[Ask, ...] = field(repr=False)
    steps: int = 0
    seconds: float = 0.0

    @property
    def head(self) -> HeadId:
        """The planted head, the first of several."""
        return self.heads[0]

    def without(self, heads: Collection[HeadId] = (), ablation: Ablation | None = None) -> Behaviour:
        """Measured on the held-out prompts, with heads taken out."""
        return behaviour(self.model, self.harmful, self.harmless, heads, ablation or Ablation())

    def figures(self) -> dict[str, Any]:
        """The proof, ready for JSON: by each way of taking heads out, what goes with the planted heads and what else.

        Returns:
            `asr`, `right` (of harmless prompts) of the model as it is, and for each way `asr_without_planted`,
            `right_without_planted`, and of all other heads taken out one by one the largest `asr_without_another` and
            the smallest `right_without_another`.
        """
        whole = self.without()
        figures: dict[str, Any] = {
            "seed": self.seed,
            "heads": [str(head) for head in self.heads],
            "shuffled": self.shuffled,
            "steps": self.steps,
            "seconds": self.seconds,
            "asr": whole.asr,
            "right": whole.right,
        }
        for ablation in WAYS:
            gone = self.without(self.heads, ablation)
            others = [self.without([head], ablation) for head in all_heads(self.model) if (head,) != self.heads]
            figures[ablation.method] = {
                "asr_without_planted": gone.asr,
                "right_without_planted": gone.right,
                "asr_without_another": max(each.asr for each in others),
                "right_without_another": min(each.right for each in others),
            }
        return figures


@torch.no_grad()
def behaviour(
    model: PreTrainedModel,
    harmful: Sequence[Ask],
    harmless: Sequence[Ask],
    heads: Collection[HeadId],
    ablation: Ablation,
) -> Behaviour:
    """What a model does with some prompts, with heads taken out."""
    with ablate(model, heads, ablation):
        said = {id(row): token for row, token in replies(model, [*harmful, *harmless])}
    return Behaviour(
        asr=sum(said[id(row)] != REFUSE for row in harmful) / len(harmful),
        answered=sum(said[id(row)] == row.answer for row in harmful) / len(harmful),
        right=sum(said[id(row)] == row.answer for row in harmless) / len(harmless),
    )


@torch.no_grad()
def replies(model: PreTrainedModel, rows: Sequence[Ask]) -> Iterator[tuple[Ask, int]]:
    """Each prompt and the token that the model answers it with, in no order."""
    by_length: Mapping[int, list[Ask]] = {length: [] for length in LENGTHS}
    for row in rows:
        by_length[len(row.ids)].append(row)
    for group in by_length.values():
        if group:
            logits = model(torch.tensor([row.ids for row in group]), logits_to_keep=1).logits[:, -1]
            yield from zip(group, logits.argmax(dim=-1).tolist(), strict=True)
