"""Sahara: greedy search for the group of heads that turns a data set furthest (arXiv 2410.13708, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attribution.ships import Ids, Progress, Runner, generalized_ships
from attribution.types import Ablation, AttributionError, HeadId


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the search.

    Attributes:
        head: The head that was added to the group.
        degrees: Generalized Ships of each head together with the group so far, (layers, heads); NaN for the group.
    """

    head: HeadId
    degrees: Tensor

    @property
    def score(self) -> float:
        """Degrees of the group with the head."""
        return float(self.degrees[self.head])


def sahara(
    runner: Runner,
    ids: Ids,
    ablation: Ablation | None = None,
    *,
    size: int = 3,
    r_main: int = 1,
    candidates: Collection[HeadId] | None = None,
    done: Sequence[Step] = (),
    on_step: Callable[[Step], None] | None = None,
    begun: Mapping[HeadId, float] | None = None,
    on_part: Callable[[int, Mapping[HeadId, float]], None] | None = None,
    progress: Progress | None = None,
) -> list[Step]:
    """Add, `size` times, the head whose ablation together with the group so far has the largest generalized Ships.

    Args:
        runner: Runs the model.
        ids: Prompts as token ids; the angle is always against the whole model.
        ablation: How heads are taken out.
        size: S, the heads of the group; the paper finds 3 best and 5 enough.
        r_main: How many leading directions are compared.
        candidates: Heads that may join the group; all by default.
        done: Steps of an interrupted run, to go on from.
        on_step: Told of each step once it is done.
        begun: Degrees that the interrupted run found in the step after these.
        on_part: Told the number of the step and the degrees of some layers, once these are done.
        progress: Told how many heads × prompts were computed.

    Raises:
        AttributionError: a size that the model cannot have.
    """
    layers, heads = runner.shape
    choice = layers * heads if candidates is None else len(set(candidates))
    if not 1 <= size <= choice:
        raise AttributionError(f"group size {size} is not between 1 and the {choice} heads to choose from")
    steps = list(done[:size])
    while len(steps) < size:
        number = len(steps)
        degrees = generalized_ships(
            runner,
            ids,
            ablation,
            r_main=r_main,
            group=[step.head for step in steps],
            heads=candidates,
            known=begun if number == len(done) else None,
            on_part=partial(on_part, number) if on_part else None,
            progress=progress,
        )
        best = int(torch.nan_to_num(degrees, nan=-1.0).argmax())
        steps.append(Step(HeadId(*divmod(best, heads)), degrees))
        if on_step:
            on_step(steps[-1])
    return steps
