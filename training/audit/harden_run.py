"""Where a hardening stands, beside the folder that it will fill: an interrupted one goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from attribution.finished import Finished, run_id
from training.checkpoint import Checkpoint
from training.datasets import TrainingError

Made = TypeVar("Made")


class HardenRun(Finished):
    """Finished parts of a hardening and the state of the training that is under way; a context manager.

    Args:
        out: Folder of the hardened model; the run is kept in a folder beside it, `<out>.run`.
        identity: What the run depends on: model, lessons, settings. Another run is refused.

    Raises:
        AttributionError: the folder holds another run, or cannot be read or written.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.run")
        super().__init__(self.folder / "parts.jsonl", run_id(identity), setting="interrupted hardening")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, exc, traceback)
        if isinstance(exc, TrainingError) and exc.__cause__ is None:
            self.remove()  # the same would happen again; with other settings it is another run
        # One with a cause (no memory, a damaged file) is of this machine, now: what is finished stays good.

    def once(self, part: str, make: Callable[[], Made]) -> Made:
        """A part as it was made before, or made now and written down: anything that JSON gives back as it was."""
        if (known := self.get(part)) is not None:
            made: Made = known["made"]
            return made
        made = make()
        self.add(part, {"made": made})
        return made

    def training(self, kind: str) -> Checkpoint:
        """The state of one of the trainings."""
        return Checkpoint.at(self.folder / kind, {"run": self._run, "kind": kind})

    def remove(self) -> None:
        """The hardening is finished: nothing is left to take up again."""
        shutil.rmtree(self.folder, ignore_errors=True)
