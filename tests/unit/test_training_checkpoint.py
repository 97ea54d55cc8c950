import errno
import json
import os

import pytest
import torch
from safetensors import SafetensorError

from training import checkpoint as checkpoint_module
from training.checkpoint import Checkpoint, State
from training.datasets import TrainingError

RECIPE = {"settings": {"lr": 0.1, "whole": ("a",)}, "data": {"rows.jsonl": "ab"}, "limit": None}


class Run:
    """Two parameters, their running mean and best, and an optimizer with two groups."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.learnt = {"a.b": torch.nn.Parameter(torch.randn(3, 2)), "c": torch.nn.Parameter(torch.randn(4))}
        self.mean = {name: torch.randn_like(value) for name, value in self.learnt.items()}
        self.best = {name: torch.randn_like(value) for name, value in self.learnt.items()}
        first, second = self.learnt.values()
        self.optimizer = torch.optim.AdamW([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.2}])

    def step(self, by):
        sum((value * by).sum() for value in self.learnt.values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def parts(self):
        return {"learnt": self.learnt, "mean": self.mean, "best": self.best}, self.optimizer

    def values(self):
        return [value.tolist() for kind in (self.learnt, self.mean, self.best) for value in kind.values()]


def test_what_is_saved_is_restored_and_goes_on_the_same(tmp_path):
    saved, other = Run(0), Run(1)
    saved.step(1.0)
    saved.step(-0.5)
    checkpoint = Checkpoint.at(tmp_path / "deep" / "checkpoint", RECIPE)
    checkpoint.save(State(2, 1.5, [{"train": 0.1, "validation": 0.2}]), *saved.parts())
    assert sorted(path.name for path in (tmp_path / "deep").rglob("*")) == [
        "checkpoint",
        "state.json",
        "tensors.safetensors",
    ]
    state = Checkpoint.at(tmp_path / "deep" / "checkpoint", RECIPE).restore(*other.parts())
    assert (state.step, state.total, state.epochs) == (2, 1.5, [{"train": 0.1, "validation": 0.2}])
    assert other.values() == saved.values()
    assert [group["lr"] for group in other.optimizer.param_groups] == [0.1, 0.2]
    saved.step(0.3)
    other.step(0.3)
    assert other.values() == saved.values()


def test_where_nothing_is_saved_a_run_begins(tmp_path):
    run = Run(0)
    before = run.values()
    state = Checkpoint.at(tmp_path / "checkpoint", RECIPE).restore(*run.parts())
    assert (state.step, state.total, state.epochs) == (0, 0.0, [])
    assert run.values() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"settings": {"lr": 0.2}}, {"data": {"rows.jsonl": "ac"}}, {"limit": 3}, {"more": 1}]
)
def test_a_run_of_another_recipe_is_refused_and_kept(tmp_path, change):
    run = Run(0)
    Checkpoint.at(tmp_path, RECIPE).save(State(1), *run.parts())
    with pytest.raises(TrainingError, match=r"holds an interrupted run of other settings or data; .*or remove it"):
        Checkpoint.at(tmp_path, {**RECIPE, **change})
    assert Checkpoint.at(tmp_path, dict(reversed(RECIPE.items()))).restore(*run.parts()).step == 1


def test_a_later_save_replaces_the_earlier_and_a_broken_one_does_not(tmp_path, monkeypatch):
    run = Run(0)
    checkpoint = Checkpoint.at(tmp_path / "checkpoint", RECIPE)
    (tmp_path / "checkpoint.partial").mkdir()  # of a run that stopped while it saved
    (tmp_path / "checkpoint.partial" / "state.json").write_text("{")
    checkpoint.save(State(1), *run.parts())
    checkpoint.save(State(2), *run.parts())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("training.checkpoint.save_file", full)
    with pytest.raises(TrainingError, match=r"no space.*make room"):
        checkpoint.save(State(3), *run.parts())
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 2
    checkpoint.remove()
    checkpoint.remove()
    assert not (tmp_path / "checkpoint").exists()


def test_saving_is_due_at_the_same_steps_on_every_device():
    assert [step for step in range(1, 301) if State(step).due()] == [100, 200, 300]


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_damaged_checkpoint_is_named_and_kept(tmp_path, file):
    Checkpoint.at(tmp_path, RECIPE).save(State(1), *Run(0).parts())
    content = (tmp_path / file).read_bytes()[:-40]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"{tmp_path}.* is damaged .*remove .*the run begins anew"):
        Checkpoint.at(tmp_path, RECIPE).restore(*Run(0).parts())
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_save_without_room_names_the_folder_and_leaves_the_last_one(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    run = Run(0)
    checkpoint = Checkpoint.at(tmp_path / "checkpoint", RECIPE)
    checkpoint.save(State(1), *run.parts())
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module, "save_file", full)
        with pytest.raises(TrainingError, match=r"checkpoint: step 2 of the run cannot be saved .*No space.*make room"):
            checkpoint.save(State(2), *run.parts())
    assert Checkpoint.at(tmp_path / "checkpoint", RECIPE).restore(*run.parts()).step == 1
