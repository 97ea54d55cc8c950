"""Two reports, head by head: which safety heads appeared, vanished or moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from attribution import statistics
from attribution.report import FEWEST, AuditReport, Grid, Head, Natural, Part, Share
from attribution.types import HeadId, ReportError

Change = Literal["appeared", "vanished", "rose", "fell", "stayed"]


class Side(Part):
    """A head in one of the reports."""

    rank: int | None
    score: float
    low: float
    high: float
    stands_out: bool


class HeadChange(Part):
    """What became of a head.

    Attributes:
        change: `appeared` or `vanished`: it stands out of the noise in one report only, and its score changed clearly;
            `rose` or `fell`: it stands out in both, and its score changed clearly; else `stayed`.
        difference: Of the mean Ships, nats; with its interval where the prompts are the same, else null bounds.
    """

    head: Head
    change: Change
    before: Side
    after: Side
    difference: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether its score changed clearly; a head that stands out in neither report stays all the same."""
        if self.low is None or self.high is None:
            return self.before.high < self.after.low or self.after.high < self.before.low
        return self.low > 0 or self.high < 0


class Overlap(Part):
    """How many of the first k heads, of those computed in both, are the same, and how many would be by chance."""

    k: Natural
    share: Share
    by_chance: Share


class Named(Part):
    """Which report a side is; `effective_heads` is of the heads that it computed."""

    name: str
    weights_sha256: str
    dtype: str
    prompts: str
    template: str
    effective_heads: float | None
    standing_out: Natural
    computed: Natural


class Comparison(Part):
    """Two reports compared.

    Attributes:
        same_prompts: Whether both were made with the same prompts in the same template.
        paired: Whether differences are of the same prompt in both; otherwise a change is clear when intervals do not
            touch, which asks for more.
        spearman: Rank correlation of the means of the heads that both computed.
        computed_in_both: How many these are; only of them a change is known.
        only_before: Heads that stand out before and were not computed after; `only_after` the other way round.
        difference: Mean Ships after, less before, of every head that both computed.
    """

    schema_version: Literal[1] = 1
    before: Named
    after: Named
    same_weights: bool
    same_prompts: bool
    paired: bool
    spearman: float | None
    overlaps: tuple[Overlap, ...]
    heads: tuple[HeadChange, ...]
    computed_in_both: Natural
    only_before: tuple[Head, ...]
    only_after: tuple[Head, ...]
    sahara_before: tuple[Head, ...]
    sahara_after: tuple[Head, ...]
    same_group: bool | None
    difference: Grid

    def of(self, change: Change) -> list[HeadChange]:
        """The heads of which that became."""
        return [head for head in self.heads if head.change == change]


def compare(before: AuditReport, after: AuditReport, *, top: int = 10, other_prompts: bool = False) -> Comparison:
    """Compare two reports.

    Args:
        before: One report.
        after: The other, of a model of the same shape, made by the same method.
        top: How many of each ranking's first heads are looked at, beside all that stand out of the noise.
        other_prompts: Whether reports of other prompts, or of another template, may be compared all the same.

    Raises:
        ReportError: they cannot be compared.
    """
    same_prompts = _check(before, after, other_prompts)
    old, new = (np.array(report.ships.mean, dtype=np.float64) for report in (before, after))  # None becomes NaN
    looked = list(dict.fromkeys([*before.top(top), *after.top(top), *before.standing_out(), *after.standing_out()]))
    looked = [head for head in looked if np.isfinite(old[head]) and np.isfinite(new[head])]
    bounds = _paired(before, after, looked) if same_prompts else None
    changes = [
        _head_change(head, _side(before, head), _side(after, head), bounds[place] if bounds else None)
        for place, head in enumerate(looked)
    ]
    changes.sort(key=lambda change: (change.change == "stayed", -abs(change.difference)))
    groups = [tuple(step.head for step in report.sahara) for report in (before, after)]
    correlation = statistics.spearman(old, new)
    computed = int((np.isfinite(old) & np.isfinite(new)).sum())
    return Comparison(
        before=_named(before),
        after=_named(after),
        same_weights=before.model.weights_sha256 == after.model.weights_sha256,
        same_prompts=same_prompts,
        paired=bounds is not None,
        spearman=correlation if np.isfinite(correlation) else None,
        overlaps=tuple(
            Overlap(k=k, share=statistics.overlap(old, new, k), by_chance=k / computed)
            for k in (1, 3, 5, 10, 20)
            if k <= computed
        ),
        heads=tuple(changes),
        computed_in_both=computed,
        only_before=tuple(head for head in before.standing_out() if np.isnan(new[head])),
        only_after=tuple(head for head in after.standing_out() if np.isnan(old[head])),
        sahara_before=groups[0],
        sahara_after=groups[1],
        same_group=set(groups[0]) == set(groups[1]) if all(groups) else None,
        difference=tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in new - old),
    )


def _check(before: AuditReport, after: AuditReport, other_prompts: bool) -> bool:
    few = next((report for report in (before, after) if report.few), None)
    if few is not None:
        raise ReportError(
            f"the report of {few.model.name} is of {few.prompts.count} prompts, too few to tell what changed clearly; "
            f"audit with {FEWEST} or more"
        )
    shapes = [(report.model.layers, report.model.heads) for report in (before, after)]
    if shapes[0] != shapes[1]:
        raise ReportError(
            f"reports of {shapes[0][0]} layers of {shapes[0][1]} heads and of {shapes[1][0]} of {shapes[1][1]} cannot "
            "be compared head by head; compare checkpoints of one architecture"
        )
    families = (before.model.family, after.model.family)
    if families[0] != families[1]:
        raise ReportError(
            f"reports of model types {families[0]!r} and {families[1]!r} cannot be compared head by head; compare "
            "checkpoints of one architecture"
        )
    for name in ("method", "epsilon"):
        one, other = getattr(before.settings, name), getattr(after.settings, name)
        if one != other:
            raise ReportError(f"reports with {name} {one} and {other} cannot be compared; audit both with the same")
    same = (before.prompts.sha256, before.prompts.template) == (after.prompts.sha256, after.prompts.template)
    if not same and not other_prompts:
        what = "templates" if before.prompts.sha256 == after.prompts.sha256 else "prompts"
        raise ReportError(
            f"the reports are of other {what}, so that a difference says nothing of the models alone; audit both with "
            "the same, or compare them all the same with --other-prompts"
        )
    return same


def _paired(before: AuditReport, after: AuditReport, heads: Sequence[HeadId]) -> list[statistics.Bounds] | None:
    one, other = before.ships.per_prompt, after.ships.per_prompt
    if one is None or other is None or one.shape != other.shape or not heads:
        return None
    rows, columns = [head.layer for head in heads], [head.head for head in heads]
    return statistics.paired_difference(one.unpack()[:, rows, columns], other.unpack()[:, rows, columns])


def _side(report: AuditReport, head: HeadId) -> Side:
    ships = report.ships
    low, high = (ships.low[head.layer][head.head], ships.high[head.layer][head.head])
    score = ships.mean[head.layer][head.head]
    assert score is not None  # heads that were not computed are not looked at
    rank = next((row.rank for row in ships.ranking if row.head == head), None)
    low, high = (score if end is None else end for end in (low, high))
    return Side(rank=rank, score=score, low=low, high=high, stands_out=low > ships.noise.chance)


def _head_change(head: HeadId, before: Side, after: Side, paired: statistics.Bounds | None) -> HeadChange:
    """What became of a head: told by how its scores moved prompt by prompt, or else by both intervals."""
    found = HeadChange(
        head=head,
        change="stayed",
        before=before,
        after=after,
        difference=paired.value if paired else after.score - before.score,
        low=paired.low if paired else None,
        high=paired.high if paired else None,
    )
    return found.model_copy(update={"change": _change(before, after, clear=found.clear)})


def _change(before: Side, after: Side, *, clear: bool) -> Change:
    if not clear or not (before.stands_out or after.stands_out):  # of noise the largest always seems to have moved
        return "stayed"
    if before.stands_out != after.stands_out:
        return "appeared" if after.stands_out else "vanished"
    return "rose" if after.score > before.score else "fell"


def _named(report: AuditReport) -> Named:
    return Named(
        name=report.model.name,
        weights_sha256=report.model.weights_sha256,
        dtype=report.model.dtype,
        prompts=report.prompts.file,
        template=report.prompts.template,
        effective_heads=report.ships.effective_heads.value,
        standing_out=len(report.standing_out()),
        computed=report.computed,
    )
