"""Labelled exchanges for the response classifier: read, checked against the taxonomy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.taxonomy import Taxonomy
from training.datasets import NO_OBJECT, Row, TrainingError, is_text, read_lines, refuse_unusable

_TEXTS = ("prompt", "system", "answer", "label", "language", "group", "split", "source", "licence")


def read_exchanges(paths: Sequence[Path], taxonomy: Taxonomy) -> list[Row]:
    """Read JSONL rows of `prompt`, `answer` and `label`, if wanted `system`, `language`, `group`, `split` and so on.

    Of an exchange that occurs twice, the first row counts. Rows without a `group` belong to that of their prompt and
    system message, so that answers to one prompt are never on two sides of a split.

    Raises:
        TrainingError: a file is missing, or lines are malformed; every kind of fault is counted in one message.
    """
    rows: dict[tuple[str, str, str], Row] = {}
    for path in paths:
        for row in _read(path, set(taxonomy.ids)):
            twin = rows.setdefault((row.text, row.prompt, row.system), row)
            if twin.category != row.category:
                raise TrainingError(
                    f"{path}: one exchange is labelled {twin.category} and {row.category}: {row.text[:60]!r}; keep one"
                )
    return list(rows.values())


def _read(path: Path, known: set[str]) -> list[Row]:
    rows: list[Row] = []
    faults: dict[str, list[int]] = defaultdict(list)
    for number, entry in read_lines(path):
        fault = _fault(entry, known)
        if fault:
            faults[fault].append(number)
            continue
        system = entry.get("system", "")
        rows.append(
            Row(
                text=entry["answer"],
                category=entry["label"],
                split=entry.get("split", "train"),
                source=entry.get("source", ""),
                licence=entry.get("licence", ""),
                lang=entry.get("language", "en"),
                prompt=entry["prompt"],
                system=system,
                group=entry.get("group") or f"{system}\n{entry['prompt']}",
            )
        )
    refuse_unusable(path, faults)
    if not rows:
        raise TrainingError(f"{path} holds no rows; need JSON lines with `prompt`, `answer` and `label`")
    return rows


def _fault(entry: Any, known: set[str]) -> str | None:  # noqa: ANN401 - parsed JSON
    if not isinstance(entry, dict):
        return NO_OBJECT
    for key in ("prompt", "answer"):
        if not isinstance(entry.get(key), str) or (key == "answer" and not entry[key].strip()):
            return f"`{key}` is missing or empty"
    if not isinstance(entry.get("label"), str) or entry["label"] not in known:
        return f"label {entry.get('label')!r} is not in the taxonomy"
    return next((f"`{key}` is not a string" for key in _TEXTS if not is_text(entry.get(key, ""))), None)
