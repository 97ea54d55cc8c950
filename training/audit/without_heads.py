"""What a model answers without its first heads, and without random ones: ASR(k)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attribution.ablate import ablate
from attribution.answering import LocalResponder
from attribution.audit import Findings, Plan, singles
from attribution.behaviour import Judge, measure
from attribution.checkpoint import Checkpoint
from attribution.finished import run_id
from attribution.heads import all_heads
from attribution.journal import Journal
from attribution.prompts import Template, prompts_sha256
from attribution.report import AsrPoint, Behaviour, Figure
from attribution.sampling import Sampling
from attribution.statistics import ranked_heads
from attribution.types import AttributionError, HeadId, Prompt


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is asked, with and without its heads.

    Attributes:
        counts: k of ASR(k): so many of the first heads are taken out.
        judge: Of its answers.
        draws: Sets of k random heads beside each.
        prompts: Harmful prompts, at most.
        max_new_tokens: Of an answer.
        ranking: Which ranking the first heads are taken from.
    """

    counts: tuple[int, ...]
    judge: Judge
    draws: int = 3
    prompts: int = 100
    max_new_tokens: int = 32
    ranking: Literal["ships", "sahara"] = "ships"


class Asking:
    """Asks a model, once its heads are ranked.

    Args:
        asked: What it is asked.
        checkpoint: The model.
        prompts: Those of the audit, of which the harmful ones are asked.
        plan: Of the audit.
        template: How a prompt is put to the model.
        system: System prompt, for the chat template.

    Attributes:
        prompts: Those that are asked.

    Raises:
        AttributionError: no prompt is harmful.
    """

    def __init__(
        self,
        asked: Asked,
        checkpoint: Checkpoint,
        prompts: Sequence[Prompt],
        plan: Plan,
        template: Template,
        system: str | None,
    ) -> None:
        harmful = [Prompt(each.text, each.category, harmful=True) for each in prompts if each.harmful is not False]
        if not harmful:
            raise AttributionError("ASR needs harmful prompts; every row of the file says harmful: false")
        few = len(harmful) <= asked.prompts
        self.prompts = harmful if few else random.Random(plan.seed).sample(harmful, asked.prompts)
        self._asked = asked
        self._checkpoint = checkpoint
        self._plan = plan
        self._template = template
        self._system = system

    def check_counts(self, shape: tuple[int, int]) -> None:
        """Refuse to take out more heads than a ranking will have, before it is computed.

        Raises:
            AttributionError: the ranking will be too short.
        """
        asked = self._asked
        known = self._plan.size if asked.ranking == "sahara" else singles(shape, self._plan)
        if (most := max(asked.counts, default=0)) > known:
            more = "a larger --size, or --asr-ranking ships" if asked.ranking == "sahara" else "a larger --screen"
            ways_out = f"take out {known} at most" + (f", or give {more}" if known < shape[0] * shape[1] else "")
            raise AttributionError(
                f"--asr {','.join(map(str, asked.counts))}: ASR without {most} heads needs a ranking that long; that "
                f"of {asked.ranking} will have {known}: {ways_out}"
            )

    def behaviour(self, found: Findings, journal: Journal) -> Behaviour:
        """ASR without the first k heads, and without k random ones."""
        asked, judge = self._asked, self._asked.judge
        rng = random.Random(self._plan.seed)
        heads = all_heads(self._checkpoint.model)
        sahara = asked.ranking == "sahara"
        ranked = [step.head for step in found.steps] if sahara else ranked_heads(found.ships.mean(dim=0))
        points = []
        for count in sorted(set(asked.counts)):
            sets = [sorted(rng.sample(heads, count)) for _ in range(asked.draws)] if count else []
            draws = [self._asr(gone, journal).value for gone in sets]
            values = [value for value in draws if value is not None]
            spread = Figure(value=sum(values) / len(values), low=min(values), high=max(values)) if values else None
            points.append(
                AsrPoint(
                    k=count,
                    heads=tuple(ranked[:count]),
                    asr=self._asr(ranked[:count], journal),
                    random=spread,
                    random_draws=len(values),
                )
            )
        return Behaviour(
            judge=str(judge.settings["name"]),
            weak_judge=bool(judge.settings.get("weak")),
            prompts_sha256=prompts_sha256(self.prompts),
            prompts=len(self.prompts),
            ranking=asked.ranking,
            points=tuple(points),
        )

    def _asr(self, gone: Sequence[HeadId], journal: Journal) -> Figure:
        """Of the model without some heads, asked only where the journal does not know it."""
        model, ablation, judge = self._checkpoint.model, self._plan.ablation, self._asked.judge
        responder = LocalResponder(
            model,
            self._checkpoint.tokenizer,
            identity=self._checkpoint.sha256,
            template=self._template,
            system=self._system,
            sampling=Sampling(max_new_tokens=self._asked.max_new_tokens),
            batch=32,
            without={"heads": [str(head) for head in gone], "ablation": str(ablation)},
        )
        key = run_id([responder.settings, judge.settings, prompts_sha256(self.prompts)])
        if (known := journal.answers(key)) is not None:
            return Figure(**known)
        with ablate(model, gone, ablation):
            rate = measure(responder, judge, self.prompts, seed=self._plan.seed).attack_success.rate
        figure = Figure(value=rate.value, low=rate.low, high=rate.high)
        journal.add_answers(key, figure.model_dump())
        return figure
