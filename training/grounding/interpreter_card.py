"""The model card of a generative interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.card import measured, trained_on
from training.grounding.interpreter_kinds import Example, Kind

_LIMITS = (
    "What it writes is a proposal: use it behind the citation gate only.",
    "It quotes; where an answer needs other words than the passages', it learnt to leave it.",
    "Of a question in several parts it answers those that the passages answer, and does not say which are missing.",
    "False premises and contradictions were built by one edit of a number, a date, a name or a negation; real ones are "
    "harder.",
    "A passage put in the place of the right one may answer as well; it was taught that it does not.",
    "Measured on the sources it was trained on: on others expect clearly worse.",
)


def write_interpreter_card(folder: Path, manifest: Mapping[str, Any], rows: Sequence[Example]) -> None:
    """Write `README.md` into a model folder, in the hub's format, from its manifest and its training rows."""
    settings, figures = manifest["settings"], manifest["figures"]
    kinds, left_out = manifest["kinds"], manifest["left_out"]
    lines = [
        "---",
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags: [rag, grounding, lora, sft, trl]",
        "---",
        "",
        f"# {manifest['name']}",
        "",
        f"A LoRA adapter for the causal language model `{Path(manifest['base']).name}`",
        f"(SHA-256 `{manifest['base_sha256'][:12]}…`), trained by `airlock train interpreter` on {len(rows)} rows",
        f"(seed {manifest['seed']}, rank {settings['rank']}, {settings['epochs']} epochs), on the completions only.",
        "It answers a question from numbered passages in their own sentences, or writes `NO_ANSWER`.",
        "Settings, hashes and all figures: `manifest.json`. The base's licence holds for it too.",
        "",
        "## Figures",
        "",
        f"On {figures['rows']} rows of split `dev`; 95 % bootstrap intervals over passages.",
        "",
        *measured(figures),
        f"Loss on dev: {manifest['dev_loss']['before']} before, {manifest['dev_loss']['after']} after.",
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS),
        "",
        "## Rows",
        "",
        "| kind | train | dev | asked for of each question that can give one |",
        "|---|---:|---:|---:|",
        *(
            f"| {kind.value} | {kinds['train'][kind.value]} | {kinds['dev'][kind.value]} "
            f"| {manifest['mix'][kind.value]:.0%} |"
            for kind in Kind
        ),
        "",
        f"Left out of training: {left_out['stopped_by_the_gate']} whose completion the citation gate stops, "
        f"{left_out['too_long']} that do not fit {settings['max_length']} tokens.",
        "",
        *trained_on((row.source, row.licence) for row in rows),
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
