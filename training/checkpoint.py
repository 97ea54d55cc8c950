"""Where a training run stands, kept on disk so that it can be taken up again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.datasets import TrainingError

_EVERY = 100  # steps
_STATE = "state.json"

Groups = Mapping[str, Mapping[str, Tensor]]  # the tensors of a run: kind → name → value


@dataclass(slots=True)
class State:
    """What a run must know to go on, beside its tensors.

    Attributes:
        step: steps done.
        total: sum of the losses of this epoch's steps so far.
        epochs: losses of each finished epoch; of a hardening, those of the last steps.
    """

    step: int = 0
    total: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)

    def due(self) -> bool:
        """Whether it is time to save, on every device at the same step."""
        return self.step % _EVERY == 0


class Checkpoint:
    """A folder with the tensors and the state of one run."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity

    @classmethod
    def at(cls, folder: Path, recipe: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of a recipe.

        Raises:
            TrainingError: the folder holds a run of another recipe.
        """
        identity = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        old = _old(folder)
        if old.exists() and not folder.exists():  # the run ended while it saved
            with contextlib.suppress(FileNotFoundError):  # another device was faster
                old.rename(folder)
        state = folder / _STATE
        if state.exists() and _identity(state) != identity:
            raise TrainingError(
                f"{folder} holds an interrupted run of other settings or data; start that one again, or remove it"
            )
        return cls(folder, identity)

    def save(self, state: State, groups: Groups, optimizer: torch.optim.Optimizer) -> None:
        """Write everything beside what is there, then put it in its place.

        Raises:
            TrainingError: it cannot be written; what was there stays.
        """
        try:
            self._save(state, groups, optimizer)
        except (OSError, SafetensorError) as exc:
            raise TrainingError(
                f"{self._folder}: step {state.step} of the run cannot be saved ({exc}); make room and start the run "
                "again: it goes on from the last step that was saved"
            ) from exc

    def _save(self, state: State, groups: Groups, optimizer: torch.optim.Optimizer) -> None:
        fresh = self._folder.with_name(self._folder.name + ".partial")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors = {
            **{f"{group}.{name}": value for group, named in groups.items() for name, value in named.items()},
            **{
                f"optimizer.{index}.{name}": value
                for index, moments in optimizer.state_dict()["state"].items()
                for name, value in moments.items()
            },
        }
        save_file(
            {name: value.detach().contiguous().clone() for name, value in tensors.items()},
            fresh / "tensors.safetensors",
        )
        data = {"identity": self._identity, "step": state.step, "total": state.total, "epochs": state.epochs}
        (fresh / _STATE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        old = _old(self._folder)
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.rename(old)
        fresh.rename(self._folder)
        shutil.rmtree(old, ignore_errors=True)

    def restore(self, groups: Groups, optimizer: torch.optim.Optimizer) -> State:
        """Fill the tensors from the folder, if it holds a run; the state to go on from."""
        if not (self._folder / _STATE).exists():
            return State()
        try:
            data = json.loads((self._folder / _STATE).read_text(encoding="utf-8"))
            tensors = load_file(self._folder / "tensors.safetensors")
            with torch.no_grad():
                for group, named in groups.items():
                    for name, value in named.items():
                        value.copy_(tensors[f"{group}.{name}"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
            raise TrainingError(f"{self._folder} is damaged ({exc}); remove it, and the run begins anew") from exc
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, kind = name.split(".")
                moments.setdefault(int(index), {})[kind] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return State(step=data["step"], total=data["total"], epochs=data["epochs"])

    def remove(self) -> None:
        """The run is finished: nothing is left to take up again."""
        for folder in (self._folder, _old(self._folder)):
            shutil.rmtree(folder, ignore_errors=True)


def _identity(state: Path) -> str:
    try:
        return str(json.loads(state.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(f"{state} is damaged ({exc}); remove {state.parent}, and the run begins anew") from exc


def _old(folder: Path) -> Path:
    """Where a checkpoint waits while the next one takes its place."""
    return folder.with_name(folder.name + ".old")
