"""What a report or a comparison found, how sure that is, and what it does not show: in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from attribution.compare import Comparison
from attribution.report import FEWEST, AuditReport, Screen


@dataclass(frozen=True, slots=True)
class Said:
    """Sentences for people; `headline` is the one that they may remember."""

    headline: str
    found: tuple[str, ...]
    sure: tuple[str, ...]
    not_shown: tuple[str, ...]


_LIMITS = (
    "Ships measures how far the next token's probabilities move, on these prompts in this template. It does not read "
    "answers: a head that moves them much need not be one that makes the model refuse.",
    "Heads are taken out one at a time (Sahara: greedily). Heads that stand in for each other can all score low.",
    "That no head stands out on these prompts does not show that none does on others.",
)
_HALF = ("bfloat16", "float16")


def half_precision(dtype: str) -> str | None:
    """What to know of scores of weights in half precision; None for other weights."""
    if dtype not in _HALF:
        return None
    return (
        f"The weights were held in {dtype}, whose roundings move the next token too: scores, small ones above all, can "
        "be many times those of float32."
    )


def too_few(report: AuditReport) -> str:
    """That the prompts are too few for intervals."""
    count = report.prompts.count
    return f"{counted(count, 'prompt')} {'is' if count == 1 else 'are'} too few, give {FEWEST} or more"


def screened(screen: Screen, *, whole: bool) -> str:
    """How many heads a screen computed, and how many it missed of a sample of the others."""
    if not screen.sampled:
        if whole:
            return f"all {screen.chosen} heads were computed exactly, none was left out"
        return f"{screen.chosen} heads exact; what it missed was not measured, no others were sampled"
    return f"{screen.chosen} heads exact; of {screen.sampled} others {screen.missed} belong to the top"


def summary(report: AuditReport) -> Said:
    """Summarise an audit."""
    return Said(_headline(report), tuple(_found(report)), tuple(_sure(report)), _limits(report))


def comparison_summary(c: Comparison) -> Said:
    """Summarise a comparison."""
    appeared, vanished = c.of("appeared"), c.of("vanished")
    moved = len(c.of("rose")) + len(c.of("fell"))
    quiet = sum(head.clear and not (head.before.stands_out or head.after.stands_out) for head in c.heads)
    all_heads = c.computed_in_both == sum(map(len, c.difference))
    same_heads = c.computed_in_both == c.before.computed == c.after.computed
    if c.same_weights:
        headline = "Both reports are of the same weights."
    else:
        headline = _compared(c, len(appeared), len(vanished))
    found = []
    if appeared:
        found.append(f"Appeared: {_named(head.head for head in appeared)}.")
    if vanished:
        found.append(f"Vanished: {_named(head.head for head in vanished)}.")
    if c.only_before:
        found.append(f"Stand out before, not computed after: {_named(c.only_before)}.")
    if c.only_after:
        found.append(f"Stand out after, not computed before: {_named(c.only_after)}.")
    found.append(
        f"Of the {len(c.heads)} heads looked at, {moved} that stand{'s' * (moved == 1)} out in both scored clearly "
        f"higher or lower than before, and {quiet} that stand{'s' * (quiet == 1)} out in neither."
    )
    if c.spearman is not None:
        ranked = "all heads" if all_heads else f"the {c.computed_in_both} heads computed in both"
        found.append(
            f"The rankings of {ranked} correlate by {correlation(c.spearman)} (Spearman; 1 is the same order)."
        )
    if c.same_group is not None:
        found.append(f"Sahara finds {'the same group' if c.same_group else 'another group'} of heads.")
    sure = [
        "Differences are of the same prompt in both, with 95 % bootstrap intervals."
        if c.paired
        else "Scores of single prompts could not be paired: a change counts as clear only if both intervals lie apart."
    ]
    if not same_heads:
        sure.append(
            f"{counted(c.before.computed)} {_were(c.before.computed)} computed before and {c.after.computed} after, "
            f"{c.computed_in_both} of them in both: changes are told of these alone, and the effective numbers of "
            "heads are of other heads."
        )
    if (dtypes := (c.before.dtype, c.after.dtype))[0] != dtypes[1]:
        sure.append(
            f"The weights were held in {dtypes[0]} before and in {dtypes[1]} after: differences may come from "
            "roundings, not from the models."
        )
    elif note := half_precision(dtypes[0]):
        sure.append(note)
    if not c.same_prompts:
        sure.append(
            "The prompts or the template are not the same: differences may come from them, not from the models."
        )
    return Said(
        headline,
        tuple(found),
        tuple(sure),
        (
            "Only the first heads of each ranking and those that stand out of the noise are looked at one by one.",
            "A head that keeps its score may do something else than before: Ships measures how much, not what.",
        ),
    )


def counted(count: int, what: str = "head") -> str:
    """So many heads, or of something else."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def correlation(value: float | None) -> str:
    """A correlation in two digits after the point; a dash if there is none."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _compared(c: Comparison, appeared: int, vanished: int) -> str:
    """What became of the heads that stand out; of those that one report did not compute, that nobody knows."""
    unknown = len(c.only_before) + len(c.only_after)
    if appeared or vanished:
        told = f"{counted(appeared)} appeared, {vanished} vanished"
    else:
        told = _unmoved(c, "Of the heads computed in both " if unknown else "")
    if not unknown:
        return f"{told}."
    stands = "stands" if unknown == 1 else "stand"
    return f"{told}; {counted(unknown)} that {stands} out in one report {_were(unknown)} not computed in the other."


def _unmoved(c: Comparison, among: str) -> str:
    """Which heads stand out, where none appeared and none vanished."""
    if any(head.before.stands_out != head.after.stands_out for head in c.heads):
        told = "none appeared or vanished: where one stands out in one report only, its score did not change clearly"
    elif any(head.before.stands_out for head in c.heads):
        told = "the same stand out" if among else "the same heads stand out in both"
    else:
        told = "none stands out" if among else "no head stands out in either report"
    told = among + told
    return told[0].upper() + told[1:]


def _headline(report: AuditReport) -> str:
    out = report.standing_out()
    if report.few:
        return f"Whether a head stands out of the noise is not known: {too_few(report)}."
    if not out:
        return "No head stands out of the noise."
    first = out[0]
    mean = report.ships.mean
    share = (mean[first.layer][first.head] or 0.0) / sum(value or 0.0 for row in mean for value in row)
    verb = "leads" if report.top(1) == [first] else "stands out of the noise"  # one above it may hang on few prompts
    rest = f", and {len(out) - 1} more {'stands' if len(out) == 2 else 'stand'} out" if len(out) > 1 else ""
    whole = "all heads' effect" if report.whole else f"the effect of the {_computed(report)}"
    return f"Head {first} {verb} with {share:.0%} of {whole}{rest}."


def _found(report: AuditReport) -> list[str]:
    ships, out = report.ships, report.standing_out()
    among = f"{report.computed:,}" if report.whole else f"the {report.computed:,} computed"
    said = []
    if not report.few:
        said.append(
            f"{counted(len(out))} of {among} score{'s' if len(out) == 1 else ''} above what chance gives the best head"
            + (f": {_named(out)}." if out else ".")
        )
    if (beside := report.against) is not None:
        said.append(
            f"{counted(len(beside.heads))} matter{'s' if len(beside.heads) == 1 else ''} more here than on "
            f"{beside.prompts.count} harmless prompts"
            + (f": {_named(beside.heads)}." if beside.heads else ", by more than chance: nothing points at refusals.")
        )
    if ships.effective_heads.value is not None:
        effect = "The effect" if report.whole else f"The effect of the {_computed(report)}"
        said.append(f"{effect} is spread as if over {ships.effective_heads.value:.1f} equal heads.")
    if report.sahara:
        last = report.sahara[-1]
        group = _named(step.head for step in report.sahara)
        said.append(f"Together, {group} turn the model's states by {last.degrees:.1f}° (Sahara).")
    if share := next((entry for entry in report.parameter_shares if entry.heads == 3), None):
        said.append(f"Three heads are {100 * share.share:.2g} % of the model's parameters.")
    if report.behaviour and (last_point := report.behaviour.points[-1]).k:
        first = counted(last_point.k) if last_point.k > 1 else "head"
        sentence = (
            f"Without the first {first} the model answers {_percent(last_point.asr.value)} of the harmful prompts"
        )
        if whole := next((point for point in report.behaviour.points if point.k == 0), None):
            sentence += f", with all of them {_percent(whole.asr.value)}"
        if last_point.random is not None and last_point.random.value is not None:
            sentence += f", without {counted(last_point.k, 'random head')} {_percent(last_point.random.value)}"
        said.append(sentence + ".")
    return said


def _sure(report: AuditReport) -> list[str]:
    said = []
    if report.few:
        said.append(f"There are no intervals: {too_few(report)}.")
    elif first := next(iter(report.ships.ranking), None):
        span = "1" if first.rank_high == 1 else f"{first.rank_low} to {first.rank_high}"
        said.append(f"Over resamples of the {report.prompts.count} prompts, head {first.head} keeps rank {span}.")
    if halves := report.stability.halves:
        said.append(
            f"Two random halves of the prompts name {_percent(halves.overlap.value)} of their {halves.top} first heads "
            f"alike (chance: {_percent(halves.by_chance)}), and rank "
            f"{'all heads' if report.whole else f'the {_computed(report)}'} with a correlation of "
            f"{correlation(halves.spearman.value)}."
        )
    else:
        said.append("There are too few prompts to say how stable the ranking is.")
    if (screen := report.screen) and not screen.sampled:
        said.append(screened(screen, whole=report.whole).capitalize() + ".")
    elif screen:
        said.append(
            f"{screen.chosen} heads were computed exactly, chosen by an estimate; of {screen.sampled} others drawn at "
            f"random, {screen.missed} belonged to the first {screen.top}."
        )
    if checks := report.checks:
        good = all(check.passed for check in (checks.base_logits, checks.causal_leak, checks.ablation_effect))
        said.append(
            f"The run's three self-checks {'passed' if good else 'DID NOT all pass: do not trust the figures'}."
        )
    else:
        said.append("The report holds no self-checks.")
    if note := half_precision(report.model.dtype):
        said.append(note)
    if report.behaviour and report.behaviour.weak_judge:
        said.append(f"The judge of answers, {report.behaviour.judge}, is weak: take its rates for rough.")
    return said


def _limits(report: AuditReport) -> tuple[str, ...]:
    if report.behaviour:
        return _LIMITS
    return (*_LIMITS, "Whether the model answers harmful prompts without these heads was not measured.")


def _computed(report: AuditReport) -> str:
    return f"{counted(report.computed)} computed"


def _named(heads: object, most: int = 8) -> str:
    names = [str(head) for head in heads]  # type: ignore[attr-defined]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
