"""Finished parts of an audit, a JSON object a line: an interrupted run goes on with them, and with no other's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.sahara import Step
from attribution.types import AttributionError, HeadId


class Journal:
    """Ships by prompt, and steps of Sahara, as they are finished.

    Args:
        path: The file; without one nothing is kept.
        identity: What the run depends on: model, prompts, settings. Another run's file is refused.

    Raises:
        AttributionError: the file is of another run, or cannot be read.
    """

    def __init__(self, path: Path | None = None, identity: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._ships: dict[int, Tensor] = {}
        self._steps: list[Step] = []
        key = hashlib.sha256(json.dumps(identity or {}, sort_keys=True).encode()).hexdigest()
        if path is None:
            return
        if path.exists():
            self._read(path, key)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"run": key})

    def ships(self) -> dict[int, Tensor]:
        """Ships (layers, heads) by the prompt's place."""
        return self._ships

    def steps(self) -> list[Step]:
        """Steps of Sahara, in order."""
        return self._steps

    def add_ships(self, places: Sequence[int], scores: Tensor) -> None:
        """Write down Ships of some prompts, (prompts, layers, heads)."""
        for place, row in zip(places, scores, strict=True):
            self._write({"prompt": place, "ships": _numbers(row)})

    def add_step(self, step: Step) -> None:
        """Write down a step of Sahara."""
        self._write({"head": str(step.head), "degrees": _numbers(step.degrees)})

    def _read(self, path: Path, key: str) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise AttributionError(f"journal {path} cannot be read: {exc}; name another file") from exc
        whole, _, cut = text.rpartition("\n")
        lines = whole.split("\n") if whole else []
        try:
            rows = [json.loads(line) for line in lines]
            if not rows or rows[0]["run"] != key:
                raise AttributionError(
                    f"journal {path} is of another model, other prompts or settings; name another file, or remove it"
                )
            for row in rows[1:]:
                if "ships" in row:
                    self._ships[row["prompt"]] = _tensor(row["ships"])
                else:
                    self._steps.append(Step(HeadId.parse(row["head"]), _tensor(row["degrees"])))
        except (ValueError, KeyError, TypeError) as exc:
            raise AttributionError(f"journal {path} is damaged; remove it, and the run starts anew") from exc
        if cut:  # the line that an interruption cut off
            path.write_text(whole + "\n", encoding="utf-8")

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as exc:
            raise AttributionError(
                f"journal {self._path} cannot be written: {exc.strerror}; what it holds already is kept"
            ) from exc


def _numbers(values: Tensor) -> list[Any]:
    """Nested lists, with None where a head was not computed."""
    rows: list[list[float]] = values.tolist()
    return [[None if value != value else value for value in row] for row in rows]


def _tensor(rows: Sequence[Sequence[float | None]]) -> Tensor:
    numbers = [[float("nan") if value is None else value for value in row] for row in rows]
    return torch.tensor(numbers, dtype=torch.float64)
