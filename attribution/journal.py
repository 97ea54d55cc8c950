"""Finished parts of an audit of heads: an interrupted run goes on with them, and with no other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.finished import Finished, run_id
from attribution.sahara import Step
from attribution.types import AttributionError, HeadId


class Journal(Finished):
    """The estimate, Ships by prompt, steps of Sahara and answers without heads, as they are finished.

    Without a file it keeps nothing on disk, and need not be entered.

    Args:
        path: The file, JSONL.
        identity: What the run depends on: model, prompts, settings. Another run's file is refused.
        shape: Layers and query heads a layer.

    Raises:
        AttributionError: the file is of another run, is damaged, or cannot be read or written.
    """

    def __init__(
        self,
        path: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(path, run_id(identity), setting="journal")
        self._shape = shape

    def estimate(self) -> Tensor | None:
        """Estimated mean Ships, (layers, heads)."""
        return self._tensor(self.get("estimate"))

    def add_estimate(self, guess: Tensor) -> None:
        """Write down the estimate, (layers, heads)."""
        self.add("estimate", _numbers(guess))

    def ships(self, prompts: int, name: str = "ships") -> dict[int, Tensor]:
        """Ships (layers, heads) by the prompt's place, of so many prompts."""
        found = {place: self._tensor(self.get(f"{name} {place}")) for place in range(prompts)}
        return {place: scores for place, scores in found.items() if scores is not None}

    def add_ships(self, places: Sequence[int], scores: Tensor, name: str = "ships") -> None:
        """Write down Ships of some prompts, (prompts, layers, heads)."""
        for place, row in zip(places, scores, strict=True):
            self.add(f"{name} {place}", _numbers(row))

    def steps(self, size: int) -> list[Step]:
        """Steps of Sahara, in order, at most so many."""
        steps: list[Step] = []
        while len(steps) < size and (found := self.get(f"step {len(steps)}")) is not None:
            match found:
                case {"head": str(head), "degrees": rows}:
                    degrees, named = self._tensor(rows), HeadId.parse(head)
                    if degrees is None or named.layer >= degrees.shape[0] or named.head >= degrees.shape[1]:
                        raise self._damaged()
                    steps.append(Step(named, degrees))
                case _:
                    raise self._damaged()
        return steps

    def add_step(self, number: int, step: Step) -> None:
        """Write down a step of Sahara; the first is number 0."""
        self.add(f"step {number}", {"head": str(step.head), "degrees": _numbers(step.degrees)})

    def begun(self, number: int) -> dict[HeadId, float]:
        """Degrees of the heads that are finished in a step of Sahara."""
        found: dict[HeadId, float] = {}
        part = 0
        while (rows := self.get(f"step {number} part {part}")) is not None:
            try:
                new = {HeadId.parse(head): float(degrees) for head, degrees in rows.items()}
            except (AttributeError, TypeError, ValueError) as exc:
                raise self._damaged() from exc
            if not all(self._has(head) and degrees == degrees for head, degrees in new.items()):
                raise self._damaged()
            found |= new
            part += 1
        return found

    def add_part(self, number: int, degrees: Mapping[HeadId, float]) -> None:
        """Write down the degrees of some heads in a step of Sahara."""
        part = 0
        while self.get(f"step {number} part {part}") is not None:
            part += 1
        named = {str(head): value for head, value in degrees.items()}
        self.add(f"step {number} part {part}", named)

    def _has(self, head: HeadId) -> bool:
        return self._shape is None or (head.layer < self._shape[0] and head.head < self._shape[1])

    def answers(self, key: str) -> Any:  # noqa: ANN401 (what `add_answers` was given)
        """What was measured of the answers without some heads; None if it was not."""
        return self.get(f"answers {key}")

    def add_answers(self, key: str, figures: Mapping[str, float | None]) -> None:
        """Write down what was measured of the answers without some heads."""
        self.add(f"answers {key}", dict(figures))

    def _tensor(self, rows: Any) -> Tensor | None:  # noqa: ANN401 (what JSON holds)
        if rows is None:
            return None
        try:
            numbers = [[float("nan") if value is None else float(value) for value in row] for row in rows]
            scores = torch.tensor(numbers, dtype=torch.float64)
        except (TypeError, ValueError) as exc:
            raise self._damaged() from exc
        if scores.dim() != 2 or (self._shape is not None and tuple(scores.shape) != self._shape):
            raise self._damaged()
        return scores

    def _damaged(self) -> AttributionError:
        return AttributionError(f"journal {self._path} is damaged; remove it, and the run starts anew")


def _numbers(values: Tensor) -> list[list[float | None]]:
    """Nested lists, with None where a head was not computed."""
    return [[None if value != value else value for value in row] for row in values.tolist()]
