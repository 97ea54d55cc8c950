"""The model card of a model that reads pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.pairs import Task
from training.card import lineage_told, measured, trained_on
from training.grounding.rows import Sourced, origin_of

_WHAT: Mapping[Task, tuple[str, str]] = {
    "reader": (
        "question-answering",
        "It reads a question with a passage and says for each sentence, and for the passage as a whole, how likely it "
        "answers.",
    ),
    "support": (
        "text-classification",
        "It reads a passage with a claim and says how likely the passage supports it, contradicts it, or does neither.",
    ),
}
_LIMITS: Mapping[Task, Sequence[str]] = {
    "reader": (
        "Most training questions were written while reading the passage; real ones share fewer words with it.",
        "A passage put in the place of the right one may answer as well; it was taught that it does not.",
    ),
    "support": (
        "Labels of several sources do not tell *contradicted* from *not stated*.",
        "Built pairs differ in one place; what a text contradicts in other words is harder than these figures say.",
    ),
}


def write_pair_card(folder: Path, manifest: Mapping[str, Any], rows: Sequence[Sourced]) -> None:
    """Write `README.md` into a model folder, in the hub's format, from its manifest and its training rows."""
    task: Task = manifest["task"]
    pipeline, what = _WHAT[task]
    settings, figures = manifest["settings"], manifest["figures"]
    lines = [
        "---",
        "library_name: peft",
        f"pipeline_tag: {pipeline}",
        "tags: [rag, grounding, lora]",
        "---",
        "",
        f"# {manifest['name']}",
        "",
        f"A LoRA adapter and head for the encoder `{manifest['encoder']}`, trained by `airlock train {task}` on",
        f"{len(rows)} rows (seed {manifest['seed']}, rank {settings['rank']}, {settings['epochs']} epochs).",
        *lineage_told(manifest["start"]),
        what,
        "Settings, hashes and all figures: `manifest.json`. Thresholds, chosen on `dev`: `model.json`.",
        "",
        "## Figures",
        "",
        "On split `dev`, which chose the epoch and the thresholds; 95 % bootstrap intervals.",
        "",
        *measured(figures),
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS[task]),
        "- Measured on the sources it was trained on: on others expect clearly worse.",
        "",
        *trained_on((_source(row), row.licence) for row in rows),
        *_before(manifest["start"]),
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _before(start: Mapping[str, Any] | None) -> list[str]:
    """The sources of the model that a run went on from, and of those before."""
    return [f"The model that it went on from learnt from: {', '.join(start['trained_on'])}.", ""] if start else []


def _source(row: Sourced) -> str:
    origin = origin_of(row)
    return (row.source or "(not named)") + (f" of {origin}" if origin else "")
