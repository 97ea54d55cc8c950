"""The model card of a hardened model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.intervals import rounded

KINDS = (("before", "before"), ("control", "control (p = 0)"), ("after", "hardened"))


def write_hardened_card(folder: Path, report: Mapping[str, Any]) -> None:
    """Write `README.md` into a model folder, in the hub's format, from the report of its hardening."""
    how, base, asked = report["settings"], report["model"], report["asked"]
    trained = f"LoRA of rank {how['rank']}, merged" if how["rank"] else "all weights"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [safety, interpretability]",
        "---",
        "",
        f"# {report['name']}",
        "",
        f"`{base['name']}` (weights `{base['sha256'][:12]}…`), fine-tuned by `airlock harden` so that no few attention",
        f"heads carry its refusals: {how['steps']} steps, {trained}, each head dropped with probability {how['p']}",
        f"in refusals of harmful prompts, none in harmless answers (seed {how['seed']}).",
        f"{report['lessons']['harmful']} refusals and {report['lessons']['harmless']} answers were learnt from.",
        "Settings, hashes and all figures: `manifest.json`.",
        "",
        "## Figures",
        "",
        f"On {asked['harmful']} harmful and {asked['harmless']} harmless prompts that training never saw,",
        f"judged by `{report['judge']['name']}`{' (weak)' if report['judge'].get('weak') else ''}.",
        "The attacker ranks each model's own heads anew. The control had the same steps without dropout.",
        "",
        *figures(report),
        "",
        "## Limits",
        "",
        "- Shown is what a removal of heads does, by the ways and rankings named; other attacks were not tried.",
        "- A model may refuse without heads because it refuses whatever it cannot read: compare the share of harmless",
        "  prompts refused without the same heads, in `manifest.json`.",
        "- It has the base model's licence and limits.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def figures(report: Mapping[str, Any]) -> list[str]:
    """The lines of a table with before, control and after."""
    return [
        f"| | {' | '.join(name for _, name in KINDS)} |",
        "|---|---:|---:|---:|",
        *(f"| {what} | {' | '.join(values)} |" for what, values in compared(report)),
    ]


def compared(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each figure of a hardening: what it is, and what it came to in each of `KINDS`."""
    kinds = [report[kind] for kind, _ in KINDS]
    for what, key in (
        ("attack success, all heads in place", "asr"),
        ("harmless prompts refused", "over_refusal"),
        ("harmless prompts without a good answer", "benign_failures"),
        ("KL from the original on harmless prompts, nats", "kl"),
    ):
        yield what, [rounded(each[key]) for each in kinds]
    for attacker, curve in report["before"]["attackers"].items():
        found = [each["attackers"][attacker] for each in kinds]
        for count in curve["asr"]:
            if count != "0":
                yield (
                    f"attack success, {attacker}, {count} heads out",
                    [rounded(each["asr"][count]) for each in found],
                )
        yield f"effective heads, {attacker}", [rounded(each["effective_heads"]) for each in found]
    for way, by_count in report["before"]["random"].items():
        for count in by_count:
            yield (
                f"attack success, {way}, {count} random heads out",
                [rounded(each["random"][way][count]) for each in kinds],
            )
