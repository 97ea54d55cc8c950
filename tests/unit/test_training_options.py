"""Options that several commands share: what each command accepts."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from training.audit.cli import audit
from training.audit.harden_cli import harden
from training.cli import evaluate, train
from training.tiers.calibrate_cli import calibrate
from training.tiers.model_cli import model

APPS = {"train": train, "eval": evaluate, "model": model, "audit": audit, "calibrate": calibrate, "harden": harden}


def commands(command, path):
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{path} {name}")


def test_no_command_takes_a_seed_below_nought():
    found = {
        path: option
        for name, app in APPS.items()
        for path, command in commands(get_command(app), name)
        for option in command.params
        if option.name == "seed"
    }
    assert len(found) >= 20
    assert {"train classifier", "eval support", "calibrate", "model compare", "audit fingerprint"} <= found.keys()
    for path, option in found.items():
        assert option.min == 0, path
        assert option.help.startswith("Of "), path


@pytest.mark.parametrize(
    ("app", "given"),
    [(train, ("support", "--data", "x.jsonl", "--out", "x")), (calibrate, ("x", "--data", "x.jsonl"))],
)
def test_a_negative_seed_is_refused_before_anything_is_read(app, given):
    ran = CliRunner().invoke(app, [*given, "--seed", "-1"])
    assert ran.exit_code == 2
    assert "--seed" in ran.output
