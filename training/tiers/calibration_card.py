"""A calibration in words, for the command line and the model card, and as one HTML page with the diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from math import floor
from pathlib import Path
from typing import Any

from training.intervals import told
from training.report import provenance_rows, reliability_plot, write_page

_HEADING = "## Calibration"
_OLD_POINT = "It says Unsafe from a probability"
_COUNTED = {
    "miss": ("risky texts (of any tier but Safe)", "judged {sure}Safe: those with a risk below {value:g}"),
    "false_flag": ("ordinary Safe texts", "{sure}flagged: those with a risk from {value:g} on"),
    "false_refusal": ("ordinary Safe texts", "judged Unsafe: those with a probability of Unsafe from {value:g} on"),
}


def in_words(result: Mapping[str, Any]) -> Iterator[str]:
    """What `training.tiers.calibrate.calibrate` found, a sentence or two for each thing."""
    before, after = (result["figures"][name] for name in ("before", "after"))
    rows = result["rows"]
    unfit = result["temperature_unfit"]
    how = f"as trained, for {unfit}" if unfit else f"fitted on {rows['temperature']} rows"
    yield (
        f"Temperature {result['temperature']:g}, {how} ({rows['chosen']}); on "
        f"{rows['thresholds']} others the calibration error over tiers goes from "
        f"{told(before['calibration'], 'all', 'ece')} to {told(after['calibration'], 'all', 'ece')}."
    )
    point = result["operating_point"]
    sure = "surely " if "doubt" in point else ""
    for kind, guarantee in result["guarantees"].items():
        yield _guarantee(kind, guarantee, sure)
        yield from _limited(kind, guarantee)
        yield from _elsewhere(guarantee, result["held_out_sources"].get(kind, {}))
    yield (
        f"Operating point: Unsafe from a probability of {point['unsafe']:g} on, else not Safe from a risk of "
        f"{point['risk']:g} on."
    )
    yield from _of_several(result)
    if "doubt" in point:
        yield (
            f"In doubt from a risk of {point['doubt']['safe_below']:g} to {point['doubt']['risky_from']:g}: "
            f"{told(after, 'unsure_of_ordinary')} of the ordinary Safe rows, {told(after, 'unsure_of_look_alikes')} of "
            f"the Safe rows that look harmful and {told(after, 'unsure_of_risky')} of the risky ones; the policy "
            "decides what becomes of them."
        )
    yield (
        f"On these rows: {told(after, 'missed')} of the risky ones missed (before: {told(before, 'missed')}), "
        f"{told(after, 'flagged')} of the ordinary Safe ones flagged ({told(before, 'flagged')}), "
        f"{told(after, 'refused')} judged Unsafe ({told(before, 'refused')}); of those that look harmful "
        f"{told(after, 'look_alikes_flagged')} and {told(after, 'look_alikes_refused')}."
    )


def told_in_card(path: Path, result: Mapping[str, Any]) -> None:
    """Put a calibration into a model card, in the place of an earlier one and of the operating point of training."""
    before, _, earlier = path.read_text(encoding="utf-8").partition(f"\n{_HEADING}\n")
    _, heading, after = earlier.partition("\n## ")
    lines = [line for line in before.splitlines() if not line.startswith(_OLD_POINT)]
    day = date.fromisoformat(result["time"][:10])
    lines += [
        "",
        _HEADING,
        "",
        f"By `airlock calibrate`, {day:%Y-%m-%d}; the figures above were measured before it.",
        "",
    ]
    lines += [f"- {sentence}" for sentence in in_words(result)]
    path.write_text("\n".join(lines) + "\n" + heading + after, encoding="utf-8")


def write_calibration(path: Path, result: Mapping[str, Any]) -> None:
    """Write a calibration as one self-contained HTML file, making its folder; whole or not at all."""
    before, after = (result["figures"][name]["calibration"] for name in ("before", "after"))
    write_page(
        path,
        "calibration.html.j2",
        result=result,
        sentences=list(in_words(result)),
        diagrams=[
            {
                "name": name,
                "before": before[name],
                "after": found,
                "plot": reliability_plot(found["bins"]),
                "old": reliability_plot(before[name]["bins"])["line"],
            }
            for name, found in after.items()
        ],
        provenance=provenance_rows(result),
    )


def _of_several(result: Mapping[str, Any]) -> Iterator[str]:
    """What became of the thresholds of texts of several windows, where there were any."""
    earlier, kept = (result[name].get("several") for name in ("earlier_point", "operating_point"))
    if kept:
        yield (
            f"Of a text of several windows: Unsafe from a probability of {kept['unsafe']:g} on, else not Safe from a "
            f"risk of {kept['risk']:g} on."
        )
    elif earlier:
        yield (
            f"Texts of several windows had thresholds of their own (Unsafe from {earlier['unsafe']:g} on, else not "
            f"Safe from {earlier['risk']:g} on); these are gone, as the budgets hold for texts of any length."
        )


def _guarantee(kind: str, found: Mapping[str, Any], sure: str) -> str:
    whole = found["groups"][0]
    who, what = _COUNTED[kind]
    return (
        f"Of {who} like these at most {found['rate']:.2%} are {what.format(sure=sure, value=found['value'])}. "
        f"This holds in {found['confidence']:.0%} of draws of calibration rows, as the rate itself and as counted in "
        f"the next {whole['rows']} such texts (at most {floor(found['rate'] * whole['rows'])}); {whole['rows']} rows "
        f"chose it, of which {whole['errors']} go wrong."
    )


def _limited(kind: str, found: Mapping[str, Any]) -> Iterator[str]:
    """Where the budget would have let a threshold go further than it went."""
    own = [group["threshold"] for group in found["groups"] if group["threshold"] is not None]
    if kind == "miss" and found["value"] < min(own):
        yield (
            f"The budget would allow it up to {min(own):g}; it stays where it was in training, for a budget of misses "
            "alone does not loosen a model. Give `--max-false-flag` beside it to stop fewer harmless texts."
        )
    elif kind != "miss" and found["value"] > max(own):
        yield (
            f"The budget would allow it down to {max(own):g}; it goes no lower than training goes, for below that "
            "hardly a text that is unlike these would pass."
        )


def _elsewhere(found: Mapping[str, Any], sources: Mapping[str, Any]) -> Iterator[str]:
    groups = found["groups"][1:]
    sure = ", ".join(
        f"{group['group']} ({group['errors']} of {group['rows']})" for group in groups if group["threshold"]
    )
    few = ", ".join(f"{group['group']} ({group['rows']} rows)" for group in groups if group["threshold"] is None)
    if sure:
        yield f"The same holds of each of these by itself: {sure}."
    if few:
        yield f"Too few rows to say it of {few} by itself; there the guarantee for all rows together is the only one."
    if sources:
        kept = sum(source["held"] for source in sources.values())
        name, worst = max(sources.items(), key=lambda source: source[1]["rate"])
        yield (
            f"No guarantee covers texts of another kind: chosen without a source, the threshold kept to the budget in "
            f"{kept} of {len(sources)} sources; worst in {name or 'rows without a source'}, {worst['rate']:.1%}."
        )
