"""Labelled rows for the classifier: read, checked against the taxonomy, split."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifier.taxonomy import Taxonomy

_OPTIONAL = ("split", "source", "licence", "lang")
DROP = "drop"
NO_OBJECT = "not a JSON object"
NO_JSONL = "no line is a JSON object, where each must be one with `text` and `category`; convert the file to JSON lines"
LOOK_ALIKES = "s_benign_contrast"  # Safe rows that look harmful, and rude comments; other Safe rows are ordinary


class TrainingError(Exception):
    """Data or settings that cannot be trained with; the message names the file, the value and the way out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text.

    Attributes:
        text: as written.
        category: id in the taxonomy.
        split: `train`, `dev`, or whatever the file says; `train` when it says nothing.
        source: the data set it came from, or an empty string.
        licence: of that data set, or an empty string.
        lang: ISO 639-1 code; `en` when the file says nothing.
        prompt: what was asked, where the text is an answer.
        system: what the operator told the model beforehand, where the text is an answer.
        group: rows of a group are never on two sides of a split; empty for a row that stands alone.
    """

    text: str
    category: str
    split: str
    source: str
    licence: str = ""
    lang: str = "en"
    prompt: str = ""
    system: str = ""
    group: str = ""


def text_key(text: str) -> str:
    """The hash by which a decision names a text: the first 16 hex digits of the SHA-256 of it in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_all(
    paths: Sequence[Path], taxonomy: Taxonomy, labels: Path | None = None, *, unsplit: str = "train"
) -> list[Row]:
    """The rows of several files, with decisions applied; of a text that occurs twice, the first row.

    So files stand in order of trust. `training.tiers.checks.check` counts the texts that have several labels.

    Args:
        paths: the files.
        taxonomy: holds the categories that are allowed.
        labels: see `read_decisions`.
        unsplit: the split of the rows of a file that names no split at all.

    Raises:
        TrainingError: a file is missing or malformed.
    """
    decisions = read_decisions(labels, taxonomy) if labels else {}
    rows: dict[str, Row] = {}
    for path in paths:
        found = read_rows(path, taxonomy, decisions)
        if unsplit != "train" and not names_splits(path):
            found = [replace(row, split=unsplit) for row in found]
        for row in found:
            rows.setdefault(row.text, row)
    return list(rows.values())


def names_splits(path: Path) -> bool:
    """Whether any line of a JSONL file says its `split`.

    Raises:
        TrainingError: the file is missing or not UTF-8.
    """
    return any(isinstance(entry, dict) and "split" in entry for _, entry in read_lines(path))


def read_decisions(path: Path, taxonomy: Taxonomy) -> dict[str, str]:
    """Categories decided by reading: CSV with the columns `key` (see `text_key`) and `category`, which may be `drop`.

    Raises:
        TrainingError: the file is missing or malformed, or a key has two categories.
    """
    known = {*taxonomy.ids, DROP}
    decisions: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for entry in csv.DictReader(file):
                key, category = entry["key"], entry["category"]
                if decisions.setdefault(key, category) != category:
                    raise TrainingError(f"labels {path}: {key} is given {decisions[key]!r} and {category!r}; keep one")
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as exc:
        raise TrainingError(f"labels {path}: {exc}; give a CSV file with the columns `key` and `category`") from exc
    wrong = next((key for key, category in decisions.items() if category not in known), None)
    if wrong is not None:
        raise TrainingError(f"labels {path}: {wrong} is given {decisions[wrong]!r}, which is not in the taxonomy")
    return decisions


def read_rows(path: Path, taxonomy: Taxonomy, decisions: Mapping[str, str] | None = None) -> list[Row]:
    """Read JSONL rows with at least `text` and `category`.

    Args:
        path: the file.
        taxonomy: holds the categories that are allowed.
        decisions: categories that replace those of the file, by `text_key`; rows without a category need one, and those
            decided to be dropped are left out.

    Raises:
        TrainingError: the file is missing or a line is malformed; every kind of fault is counted in one message.
    """
    numbered, faults = read_usable(path, taxonomy, decisions)
    refuse_unusable(path, faults)
    if not numbered:
        raise TrainingError(f"{path} holds no rows; need JSON lines with `text` and `category`")
    return [row for _, row in numbered]


def refuse_unusable(path: Path, faults: Mapping[str, Sequence[int]]) -> None:
    """Raise TrainingError where lines are faulty: in one message the commonest faults, with counts and first lines.

    Args:
        path: of the file.
        faults: the numbers of the lines that have each fault.
    """
    if faults:
        total = sum(len(lines) for lines in faults.values())
        commonest = sorted(faults.items(), key=lambda item: -len(item[1]))[:5]
        listed = "; ".join(f"{fault} ({len(lines)} lines, first: {lines[0]})" for fault, lines in commonest)
        raise TrainingError(f"{path} has {total} unusable lines: {listed}. Correct or remove them")


def read_usable(
    path: Path, taxonomy: Taxonomy, decisions: Mapping[str, str] | None = None
) -> tuple[list[tuple[int, Row]], dict[str, list[int]]]:
    """The rows of `read_rows` that are sound with their line numbers, and those of the others by what is wrong.

    Raises:
        TrainingError: the file is missing or not UTF-8.
    """
    rows: list[tuple[int, Row]] = []
    faults: dict[str, list[int]] = defaultdict(list)
    known = set(taxonomy.ids)
    for number, entry in read_lines(path):
        if decisions and isinstance(entry, dict) and isinstance(entry.get("text"), str):
            decided = decisions.get(text_key(entry["text"]))
            if decided == DROP or (decided is None and entry.get("category", "") is None):
                continue
            entry["category"] = decided or entry.get("category")
        fault = _fault(entry, known)
        if fault:
            faults[fault].append(number)
            continue
        row = Row(
            text=entry["text"],
            category=entry["category"],
            split=entry.get("split", "train"),
            source=entry.get("source", ""),
            licence=entry.get("licence", ""),
            lang=entry.get("lang", "en"),
        )
        rows.append((number, row))
    if not rows and faults.keys() == {NO_OBJECT}:  # CSV, a JSON array, JSON over several lines
        return [], {NO_JSONL: faults[NO_OBJECT]}
    return rows, dict(faults)


def hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Split rows into (kept, held out), the same share of each category, by the hash of their texts.

    So what is held out here is held out again, but for a few rows at the edge, where the rows are others: a model that
    goes on from another one is not judged by what that one was trained on. Rows of a group stay together.
    """
    if any(row.group for row in rows):
        groups = sorted({row.group or row.text for row in rows}, key=text_key)
        apart = set(groups[: round(len(groups) * share)])
        sides = [(row.group or row.text) in apart for row in rows]
        return [row for row, out in zip(rows, sides, strict=True) if not out], [
            row for row, out in zip(rows, sides, strict=True) if out
        ]
    by_category: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_category[row.category].append(row)
    held = {
        row.text
        for members in by_category.values()
        for row in sorted(members, key=lambda row: text_key(row.text))[: round(len(members) * share)]
    }
    return [row for row in rows if row.text not in held], [row for row in rows if row.text in held]


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a JSONL file with their numbers, parsed; None for one that is no JSON.

    Raises:
        TrainingError: the file is missing or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig")
                if text.strip():
                    try:
                        yield number, json.loads(text)
                    except (ValueError, RecursionError):
                        yield number, None
    except OSError as exc:
        raise TrainingError(f"data file {path}: {exc.strerror}; give a JSONL file of labelled rows") from exc
    except UnicodeDecodeError as exc:
        raise TrainingError(f"data file {path} is not UTF-8 (line {number}); give JSON lines in UTF-8") from exc


def _fault(entry: Any, known: set[str]) -> str | None:  # noqa: ANN401 - parsed JSON
    if not isinstance(entry, dict):
        return NO_OBJECT
    if not isinstance(entry.get("text"), str) or not entry["text"].strip():
        return "`text` is missing or empty"
    if not is_text(entry["text"]):
        return "`text` holds half a character (a lone surrogate)"
    category = entry.get("category")
    if not isinstance(category, str) or category not in known:
        near = difflib.get_close_matches(str(category), sorted(known), n=1)
        return f"category {category!r} is not in the taxonomy" + (f"; did you mean {near[0]!r}?" if near else "")
    return next((f"`{key}` is not a string" for key in _OPTIONAL if not is_text(entry.get(key, ""))), None)


def is_text(value: Any) -> bool:  # noqa: ANN401 - parsed JSON
    """Whether it is a string that can be written again: JSON can hold half a character, UTF-8 cannot."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
