"""What a report or a comparison found, how sure that is, and what it does not show: in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from attribution.compare import Comparison
from attribution.report import AuditReport


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


def summary(report: AuditReport) -> Said:
    """Summarise an audit."""
    return Said(_headline(report), tuple(_found(report)), tuple(_sure(report)), _limits(report))


def comparison_summary(c: Comparison) -> Said:
    """Summarise a comparison."""
    appeared, vanished = c.of("appeared"), c.of("vanished")
    moved = len(c.of("rose")) + len(c.of("fell"))
    if c.same_weights:
        headline = "Both reports are of the same weights."
    elif not appeared and not vanished:
        headline = "The same heads stand out in both."
    else:
        headline = f"{_heads(len(appeared))} appeared, {len(vanished)} vanished."
    found = []
    if appeared:
        found.append(f"Appeared: {_named(head.head for head in appeared)}.")
    if vanished:
        found.append(f"Vanished: {_named(head.head for head in vanished)}.")
    found.append(f"Of the {len(c.heads)} heads looked at, {moved} others scored clearly higher or lower than before.")
    if c.spearman is not None:
        found.append(
            f"The rankings of all heads correlate by {correlation(c.spearman)} (Spearman; 1 is the same order)."
        )
    if c.same_group is not None:
        found.append(f"Sahara finds {'the same group' if c.same_group else 'another group'} of heads.")
    sure = [
        "Differences are of the same prompt in both, with 95 % bootstrap intervals."
        if c.paired
        else "Scores of single prompts could not be paired: a change counts as clear only if both intervals lie apart."
    ]
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


def correlation(value: float | None) -> str:
    """A correlation in two digits after the point; a dash if there is none."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _headline(report: AuditReport) -> str:
    out = report.standing_out()
    if not out:
        return "No head stands out of the noise."
    first = next(row for row in report.ships.ranking if row.stands_out)
    verb = "leads" if first.rank == 1 else "stands out of the noise"  # one with a higher mean may hang on few prompts
    rest = f", and {len(out) - 1} more {'stands' if len(out) == 2 else 'stand'} out" if len(out) > 1 else ""
    return f"Head {first.head} {verb} with {first.share:.0%} of all heads' effect{rest}."


def _found(report: AuditReport) -> list[str]:
    ships, model = report.ships, report.model
    out = report.standing_out()
    said = [
        f"{_heads(len(out))} of {model.layers * model.heads:,} score above what chance gives the best head"
        + (f": {_named(out)}." if out else ".")
    ]
    if (beside := report.against) is not None:
        said.append(
            f"{_heads(len(beside.heads))} matter{'s' if len(beside.heads) == 1 else ''} more here than on "
            f"{beside.prompts.count} harmless prompts"
            + (f": {_named(beside.heads)}." if beside.heads else ", by more than chance: nothing points at refusals.")
        )
    if ships.effective_heads.value is not None:
        said.append(f"The effect is spread as if over {ships.effective_heads.value:.1f} equal heads.")
    if report.sahara:
        last = report.sahara[-1]
        group = _named(step.head for step in report.sahara)
        said.append(f"Together, {group} turn the model's states by {last.degrees:.1f}° (Sahara).")
    if share := next((entry for entry in report.parameter_shares if entry.heads == 3), None):
        said.append(f"Three heads are {100 * share.share:.2g} % of the model's parameters.")
    if report.behaviour:
        points = report.behaviour.points
        last_point = points[-1]
        sentence = (
            f"Without the first {last_point.k} heads the model answers {_percent(last_point.asr.value)} of the harmful "
            f"prompts, with all of them {_percent(points[0].asr.value)}"
        )
        if last_point.random is not None and last_point.random.value is not None:
            sentence += f", without {last_point.k} random heads {_percent(last_point.random.value)}"
        said.append(sentence + ".")
    return said


def _sure(report: AuditReport) -> list[str]:
    said = []
    if first := next(iter(report.ships.ranking), None):
        span = "1" if first.rank_high == 1 else f"{first.rank_low} to {first.rank_high}"
        said.append(f"Over resamples of the {report.prompts.count} prompts, head {first.head} keeps rank {span}.")
    if halves := report.stability.halves:
        said.append(
            f"Two random halves of the prompts name {_percent(halves.overlap.value)} of their {halves.top} first heads "
            f"alike (chance: {_percent(halves.by_chance)}), and rank all heads with a correlation of "
            f"{correlation(halves.spearman.value)}."
        )
    else:
        said.append("There are too few prompts to say how stable the ranking is.")
    if report.screen:
        screen = report.screen
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
    if report.behaviour and report.behaviour.weak_judge:
        said.append(f"The judge of answers, {report.behaviour.judge}, is weak: take its rates for rough.")
    return said


def _limits(report: AuditReport) -> tuple[str, ...]:
    if report.behaviour:
        return _LIMITS
    return (*_LIMITS, "Whether the model answers harmful prompts without these heads was not measured.")


def _named(heads: object, most: int = 8) -> str:
    names = [str(head) for head in heads]  # type: ignore[attr-defined]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _heads(count: int) -> str:
    return "1 head" if count == 1 else f"{count} heads"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
