"""Lines that the model cards share: figures, what a model was trained on, the models that it went on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from training.intervals import told


def measured(figures: Mapping[str, Any]) -> list[str]:
    """The lines of a card that give each figure with its interval."""
    found = {name: figure for name, figure in figures.items() if isinstance(figure, Mapping) and "low" in figure}
    return ["| figure | value |", "|---|---|", *(f"| {name} | {told(found, name)} |" for name in found), ""]


def trained_on(rows: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of a card that name what a model was trained on: of each row the source and its licence."""
    sources = Counter((source or "(not named)", licence or "(not named)") for source, licence in rows)
    return [
        "## Trained on",
        "",
        "| source | rows | licence |",
        "|---|---:|---|",
        *(f"| {source} | {count} | {licence} |" for (source, licence), count in sorted(sources.items())),
        "",
    ]


def lineage_told(start: Mapping[str, Any] | None) -> list[str]:
    """The models that a run went on from, the last one first."""
    if start is None:
        return []
    name, sha256 = start["name"], start["adapter_sha256"][:12]
    mean = f"seeds {', '.join(map(str, start['seeds']))}, " if "seeds" in start else ""
    mean = f"mean with `{start['averaged_with']}`, " if "averaged_with" in start else mean
    of_it = f"{start['rows']['train']} rows, {mean}epochs: {start['settings']['epochs']}, adapter SHA-256 `{sha256}…`"
    return [f"It went on from `{name}` ({of_it}).", *lineage_told(start["start"])]
