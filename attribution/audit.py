"""An audit of a model's heads from first to last: screen if asked, Ships, Sahara; it can be interrupted and go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor

from attribution.journal import Journal
from attribution.sahara import Step, sahara
from attribution.ships import Ids, Progress, Runner, ships
from attribution.types import Ablation, AttributionError, HeadId

_GROUP = 16  # prompts whose Ships are written down together


@dataclass(frozen=True, slots=True)
class Screened:
    """How well an estimate chose the heads that were computed exactly.

    Attributes:
        chosen: Heads that the estimate put first.
        sampled: Heads drawn at random from the others, and computed too.
        missed: Of the sampled, those that belong to the exact top.
        top: How many heads count as the top.
        spearman: Rank correlation of estimate and exact score over all heads that were computed.
    """

    chosen: int
    sampled: int
    missed: int
    top: int
    spearman: float

    @property
    def miss_rate(self) -> float:
        """Share of the sampled heads that belong to the exact top."""
        return self.missed / self.sampled if self.sampled else 0.0


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
            raise AttributionError(
                f"screen {self.screen} computes fewer heads than the {max(self.top, self.size)} that are looked for"
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
    screened: Screened | None
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
        progress: Told how many heads × prompts were computed.

    Raises:
        AttributionError: `plan.screen` without an estimate, or a size that the model cannot have.
    """
    start = time.monotonic()
    journal = journal or Journal()
    guess = heads = None
    if plan.screen is not None:
        if estimate is None:
            raise AttributionError("a screened audit needs an estimate; pass one, or leave `screen` out")
        guess = estimate(ids).mean(dim=0)
        heads = _choose(guess, plan)
    scores = _ships(runner, ids, plan, heads, journal, progress)
    steps: list[Step] = []
    if plan.size:
        done = journal.steps()
        candidates = _first(guess, plan.screen) if guess is not None and plan.screen else None
        steps = sahara(
            runner,
            ids,
            plan.ablation,
            size=plan.size,
            r_main=plan.r_main,
            candidates=candidates,
            done=done,
            on_step=journal.add_step,
            progress=progress,
        )
    screened = None if guess is None else _screened(guess, scores.mean(dim=0), plan)
    return Findings(scores, tuple(steps), screened, time.monotonic() - start)


def work(shape: tuple[int, int], prompts: int, plan: Plan) -> int:
    """Heads × prompts that an audit computes."""
    every = shape[0] * shape[1]
    single = every if plan.screen is None else min(every, plan.screen + plan.sampled)
    group = every if plan.screen is None else min(every, plan.screen)
    return prompts * (single + sum(group - step for step in range(plan.size)))


def _ships(
    runner: Runner,
    ids: Ids,
    plan: Plan,
    heads: Collection[HeadId] | None,
    journal: Journal,
    progress: Progress | None,
) -> Tensor:
    scores = torch.full((len(ids), *runner.shape), torch.nan, dtype=torch.float64)
    for place, row in journal.ships().items():
        scores[place] = row
    left = sorted((place for place in range(len(ids)) if place not in journal.ships()), key=lambda at: len(ids[at]))
    for start in range(0, len(left), _GROUP):
        places = left[start : start + _GROUP]
        scores[places] = ships(runner, [ids[at] for at in places], plan.ablation, heads=heads, progress=progress)
        journal.add_ships(places, scores[places])
    return scores


def _first(guess: Tensor, count: int) -> list[HeadId]:
    """The heads that an estimate (layers, heads) puts first."""
    heads = guess.shape[1]
    return [HeadId(*divmod(int(at), heads)) for at in guess.flatten().argsort(descending=True)[:count]]


def _choose(guess: Tensor, plan: Plan) -> list[HeadId]:
    """What is computed exactly: the estimate's first, and a random sample of the others."""
    ranked = _first(guess, guess.numel())
    rest = ranked[plan.screen :]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(plan.seed))
    return ranked[: plan.screen] + [rest[int(at)] for at in order[: plan.sampled]]


def _screened(guess: Tensor, exact: Tensor, plan: Plan) -> Screened:
    assert plan.screen is not None
    heads: Sequence[HeadId] = _choose(guess, plan)
    chosen, sampled = heads[: plan.screen], heads[plan.screen :]
    bar = sorted((float(exact[head]) for head in heads), reverse=True)[: plan.top][-1]
    return Screened(
        chosen=len(chosen),
        sampled=len(sampled),
        missed=sum(float(exact[head]) >= bar for head in sampled),
        top=plan.top,
        spearman=float(spearmanr([float(guess[h]) for h in heads], [float(exact[h]) for h in heads]).statistic),
    )
