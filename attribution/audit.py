"""An audit of a model's heads from first to last: screen if asked, Ships, Sahara; it can be interrupted and go on."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.journal import Journal
from attribution.report import Screen
from attribution.sahara import Step, sahara
from attribution.ships import Ids, Progress, Runner, ships
from attribution.statistics import ranked_heads, spearman
from attribution.types import Ablation, AttributionError, HeadId

_GROUP = 16  # prompts whose Ships are written down together


@dataclass(frozen=True, slots=True)
class Plan:
    """What an audit computes.

    Attributes:
        ablation: How heads are taken out.
        size: S, the heads of Sahara's group; 0 leaves Sahara out.
        r_main: Leading directions that generalized Ships compares.
        screen: Heads that are computed exactly, chosen by an estimate; None computes all.
        sampled: Heads drawn at random from the others, to measure what the estimate misses.
        top: How many heads count as the top when that is measured.
        seed: Of that sample.
    """

    ablation: Ablation
    size: int = 3
    r_main: int = 1
    screen: int | None = None
    sampled: int = 16
    top: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.screen is not None and self.screen < max(self.top, self.size):
            least = max(self.top, self.size)
            raise AttributionError(
                f"screen {self.screen} computes fewer heads than the {least} that are looked for; give {least} or "
                "more, or leave it out to compute all"
            )


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit found.

    Attributes:
        ships: Nats, float64, (prompts, layers, heads); NaN where a head was not computed.
        steps: Sahara's; the first one's degrees are the generalized Ships of single heads.
        screened: How well the estimate chose, if there was one.
        seconds: What the computation took, without what a journal brought.
    """

    ships: Tensor
    steps: tuple[Step, ...]
    screened: Screen | None
    seconds: float


def audit(
    runner: Runner,
    ids: Ids,
    plan: Plan,
    *,
    estimate: Callable[[Ids], Tensor] | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Find the heads that carry a model's answers to some prompts.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids.
        plan: What is computed.
        estimate: Estimated Ships (prompts, layers, heads), for `plan.screen`; see `attribution.screen`.
        journal: Where finished parts are kept and found again.
        progress: Told how many heads × prompts were computed, or brought by the journal.

    Raises:
        AttributionError: `plan.screen` without an estimate, or a size that the model cannot have.
    """
    start = time.monotonic()
    journal = journal or Journal()
    check_plan(runner, ids, plan)
    guess = heads = candidates = None
    if plan.screen is not None:
        guess = _guess(ids, estimate, journal)
        heads, candidates = _choose(guess, plan), ranked_heads(guess)[: plan.screen]
    scores = ships_in_parts(runner, ids, plan.ablation, heads=heads, journal=journal, progress=progress)
    steps: list[Step] = []
    if plan.size:
        done = journal.steps(plan.size)
        if done and progress:
            progress(len(ids) * sum(_group(runner.shape, plan) - step for step in range(len(done))))
        numbers = itertools.count(len(done))
        steps = sahara(
            runner,
            ids,
            plan.ablation,
            size=plan.size,
            r_main=plan.r_main,
            candidates=candidates,
            done=done,
            on_step=lambda step: journal.add_step(next(numbers), step),
            begun=journal.begun(len(done)),
            on_part=journal.add_part,
            progress=progress,
        )
    screened = None if guess is None else _screened(guess, scores.mean(dim=0), plan)
    return Findings(scores, tuple(steps), screened, time.monotonic() - start)


def check_plan(runner: Runner, ids: Ids, plan: Plan) -> None:
    """Refuse at once what would fail hours later.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids.
        plan: What is to be computed.

    Raises:
        AttributionError: a group larger than the heads to choose from, a group with one prompt, or more directions than
            prompts or than the model's width.
    """
    choice = _group(runner.shape, plan)
    if not 0 <= plan.size <= choice:
        raise AttributionError(
            f"group size {plan.size} is not between 0 and the {choice} heads to choose from; give fewer, or 0 to leave "
            "Sahara out"
        )
    if not plan.size:
        return
    if len(ids) == 1:
        raise AttributionError(
            f"group size {plan.size}: the states of one prompt have no direction that turns; give 2 prompts or more, "
            "or 0 to leave Sahara out"
        )
    if not 1 <= plan.r_main <= len(ids):
        raise AttributionError(
            f"r_main {plan.r_main} is not between 1 and the {len(ids)} prompts; give fewer, or more prompts"
        )
    if plan.r_main > 1 and plan.r_main > (width := runner.states(ids[:1]).shape[-1]):
        raise AttributionError(f"r_main {plan.r_main} is not between 1 and {width}, the width of the model; give fewer")


def work(shape: tuple[int, int], prompts: int, plan: Plan) -> int:
    """Heads × prompts that an audit computes."""
    return prompts * (singles(shape, plan) + sum(_group(shape, plan) - step for step in range(plan.size)))


def singles(shape: tuple[int, int], plan: Plan) -> int:
    """Heads that are taken out one at a time, on each prompt."""
    every = shape[0] * shape[1]
    return every if plan.screen is None else min(every, plan.screen + plan.sampled)


def _group(shape: tuple[int, int], plan: Plan) -> int:
    """Heads that may join Sahara's group."""
    every = shape[0] * shape[1]
    return every if plan.screen is None else min(every, plan.screen)


def _guess(ids: Ids, estimate: Callable[[Ids], Tensor] | None, journal: Journal) -> Tensor:
    """The estimated mean, (layers, heads)."""
    if (known := journal.estimate()) is not None:
        return known
    if estimate is None:
        raise AttributionError("a screened audit needs an estimate; pass one, or leave `screen` out")
    guess = estimate(ids).mean(dim=0)
    journal.add_estimate(guess)
    return guess


def ships_in_parts(
    runner: Runner,
    ids: Ids,
    ablation: Ablation,
    *,
    heads: Collection[HeadId] | None = None,
    journal: Journal | None = None,
    name: str = "ships",
    progress: Progress | None = None,
) -> Tensor:
    """Ships as `attribution.ships.ships` gives them, some prompts at a time, each written down once finished.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids.
        ablation: How a head is taken out.
        heads: These only; the others are NaN.
        journal: Where finished parts are kept and found again.
        name: Of the parts, in the journal.
        progress: Told how many heads × prompts were computed, or brought by the journal.
    """
    journal = journal or Journal()
    scores = torch.full((len(ids), *runner.shape), torch.nan, dtype=torch.float64)
    known = journal.ships(len(ids), name)
    for place, row in known.items():
        scores[place] = row
    if known and progress:
        progress(len(known) * (runner.shape[0] * runner.shape[1] if heads is None else len(heads)))
    left = sorted((place for place in range(len(ids)) if place not in known), key=lambda at: len(ids[at]))
    for start in range(0, len(left), _GROUP):
        places = left[start : start + _GROUP]
        scores[places] = ships(runner, [ids[at] for at in places], ablation, heads=heads, progress=progress)
        journal.add_ships(places, scores[places], name)
    return scores


def _choose(guess: Tensor, plan: Plan) -> list[HeadId]:
    """What is computed exactly: the estimate's first, and a random sample of the others."""
    ranked = ranked_heads(guess)
    rest = ranked[plan.screen :]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(plan.seed))
    return ranked[: plan.screen] + [rest[int(at)] for at in order[: plan.sampled]]


def _screened(guess: Tensor, exact: Tensor, plan: Plan) -> Screen:
    assert plan.screen is not None
    heads: Sequence[HeadId] = _choose(guess, plan)
    chosen, sampled = heads[: plan.screen], heads[plan.screen :]
    ranked = sorted(range(len(heads)), key=lambda at: -float(exact[heads[at]]))  # of equal ones, the chosen first
    correlation = spearman([float(guess[head]) for head in heads], [float(exact[head]) for head in heads])
    return Screen(
        chosen=len(chosen),
        sampled=len(sampled),
        missed=sum(at >= len(chosen) for at in ranked[: plan.top]),
        top=plan.top,
        spearman=None if math.isnan(correlation) else correlation,
    )
