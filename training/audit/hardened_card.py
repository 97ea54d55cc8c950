"""The model card of a hardened model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.tiers.card import rounded

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
    plain = (
        ("attack success, all heads in place", "asr"),
        ("harmless prompts refused", "over_refusal"),
        ("harmless prompts without a good answer", "benign_failures"),
        ("KL from the original on harmless prompts, nats", "kl"),
    )
    lines = [
        f"| | {' | '.join(name for _, name in KINDS)} |",
        "|---|---:|---:|---:|",
        *(f"| {what} | {' | '.join(rounded(report[kind][key]) for kind, _ in KINDS)} |" for what, key in plain),
    ]
    for attacker, curve in report["before"]["attackers"].items():
        found = [report[kind]["attackers"][attacker] for kind, _ in KINDS]
        for count in curve["asr"]:
            if count != "0":
                shown = " | ".join(rounded(each["asr"][count]) for each in found)
                lines.append(f"| attack success, {attacker}, {count} heads out | {shown} |")
        shown = " | ".join(rounded(each["effective_heads"]) for each in found)
        lines.append(f"| effective heads, {attacker} | {shown} |")
    for way, by_count in report["before"]["random"].items():
        for count in by_count:
            shown = " | ".join(rounded(report[kind]["random"][way][count]) for kind, _ in KINDS)
            lines.append(f"| attack success, {way}, {count} random heads out | {shown} |")
    return lines
