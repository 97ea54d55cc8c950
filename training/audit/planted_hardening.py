"""Hardening of planted models: their lessons, and what they are asked."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from attribution.ablate import ablate
from attribution.types import Ablation, HeadId
from training.audit.fit_hardened import HardenRecipe, Lesson
from training.audit.planted_model import PlantedModel, replies
from training.audit.planted_task import REFUSE, STOP, Ask, asks

_LESSONS = 1000  # of each kind
PLANTED_RECIPE = HardenRecipe(lr=3e-3, steps=300)  # tiny models learn fast, all weights at once


@dataclass(frozen=True, slots=True)
class PlantedAsker:
    """Asks the held-out prompts of a planted model; what counts as a refusal is one token."""

    harmful_asks: tuple[Ask, ...]
    harmless_asks: tuple[Ask, ...]

    @property
    def harmful(self) -> list[tuple[int, ...]]:
        """Held-out harmful prompts, as token ids."""
        return [row.ids for row in self.harmful_asks]

    @property
    def harmless(self) -> list[tuple[int, ...]]:
        """Held-out harmless prompts, as token ids."""
        return [row.ids for row in self.harmless_asks]

    def attack_success(self, model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation) -> float:
        """Share of the harmful prompts that are not refused without the heads."""
        with ablate(model, heads, ablation):
            said = dict(replies(model, self.harmful_asks))
        return sum(said[row] != REFUSE for row in self.harmful_asks) / len(self.harmful_asks)

    def harmless_answers(
        self, model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation
    ) -> tuple[float, float]:
        """Of the harmless prompts the share that is refused, and the share without the right answer."""
        with ablate(model, heads, ablation):
            said = dict(replies(model, self.harmless_asks))
        refused = sum(said[row] == REFUSE for row in self.harmless_asks) / len(self.harmless_asks)
        wrong = sum(said[row] != row.answer for row in self.harmless_asks) / len(self.harmless_asks)
        return refused, wrong


def asker(planted: PlantedModel) -> PlantedAsker:
    """Of the model's own held-out prompts."""
    return PlantedAsker(planted.harmful, planted.harmless)


def own_lessons(planted: PlantedModel) -> list[Lesson]:
    """What the model itself says to prompts of the half that it was trained on: refusals of harmful ones, answers."""
    lessons = []
    for harmful in (True, False):
        rows = list(itertools.islice(asks(f"{planted.seed}/harden", harmful=harmful), _LESSONS))
        with torch.inference_mode():
            said = dict(replies(planted.model, rows))
        lessons += [Lesson(row.ids, (said[row], STOP), harmful) for row in rows if (said[row] == REFUSE) is harmful]
    return lessons
