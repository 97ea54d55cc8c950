"""The result files of a long command: their places are tried before the run, and nothing is left of the trial."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError
from typer.main import get_command
from typer.testing import CliRunner

import training
from attribution.types import ReportError
from attribution.whole import write_whole
from training.cli import evaluate
from training.results import check_place, check_places, write_result, written
from training.tiers.calibrate_cli import calibrate
from training.tiers.model_cli import model

EVALUATIONS = {
    "classifier": ["--data", "rows.jsonl"],
    "data": ["--data", "rows.jsonl"],
    "folds": ["--data", "rows.jsonl", "--models", "m"],
    "grounding": ["--questions", "rows.jsonl"],
    "interpreter": ["--model", "m", "--data", "rows.jsonl"],
    "premise": ["--questions", "rows.jsonl"],
    "rag": ["--questions", "rows.jsonl"],
    "reader": ["--model", "m", "--data", "rows.jsonl"],
    "responses": ["--model", "m", "--data", "rows.jsonl"],
    "retrieval": ["--data", "rows.jsonl"],
    "safety": ["--questions", "rows.jsonl"],
    "support": ["--model", "m", "--data", "rows.jsonl"],
    "why": ["--data", "rows.jsonl"],
}
COMMANDS = {
    **{name: (evaluate, [name, *given]) for name, given in EVALUATIONS.items()},
    "calibrate": (calibrate, ["m", "--data", "rows.jsonl"]),
    "compare": (model, ["compare", "m", "n", "--data", "rows.jsonl"]),
}
_SAFETENSORS_FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
PAGES = {"calibrate", "classifier", "safety"}
PLACES = [(name, option) for name in COMMANDS for option in ("--out", *(["--html"] if name in PAGES else []))]


def test_a_place_is_made_and_tried_and_what_is_there_stays(tmp_path):
    place = tmp_path / "deep" / "a.json"
    check_place("--out", place)
    assert list(place.parent.iterdir()) == []
    place.write_text("{}")
    check_place("--out", place)
    assert [path.name for path in place.parent.iterdir()] == ["a.json"]
    assert place.read_text() == "{}"
    check_place("--html", None)


def test_a_place_that_cannot_be_is_named_with_its_option(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "b.json.partial").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "b.json", tmp_path / ("a" * 300)):
        with pytest.raises(ReportError, match=r"^--out .* cannot be written: .*; make room or name another file$"):
            check_place("--out", path)
    with pytest.raises(ReportError, match=r"^--out .* is a folder; name a file in it$"):
        check_place("--out", tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ReportError, match=r"^--out .* cannot be written: No space left on device; make room"):
        write_result("--out", tmp_path / "c.json", {})
    with pytest.raises(ReportError, match=r"^--html .* cannot be written: No space left on device; make room"):
        with written("--html", tmp_path / "c.html"):
            write_whole(tmp_path / "c.html", "<html>")


def test_every_command_writes_its_results_by_their_options():
    """`write_json` alone raises an OSError that nobody turns into a line."""
    for path in sorted(Path(training.__file__).parent.rglob("*cli.py")):
        if path.name != "surgery_cli.py":  # its file is a part of a model
            assert "write_json" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), _SAFETENSORS_FULL])
def test_a_disk_that_is_full_is_one_line(monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("training.tiers.model_folder.describe", full)
    found = CliRunner().invoke(model, ["show", "m"])
    assert found.exit_code == 1
    assert found.stderr.startswith("airlock: the disk is full (")
    assert found.stderr.count("\n") == 1


def test_another_error_of_a_file_is_not_taken_for_a_full_disk(monkeypatch):
    def gone(*_, **__):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr("training.tiers.model_folder.describe", gone)
    assert isinstance(CliRunner().invoke(model, ["show", "m"]).exception, FileNotFoundError)


def test_every_evaluation_is_among_the_commands():
    assert set(EVALUATIONS) == set(get_command(evaluate).commands)


@pytest.mark.parametrize(("name", "option"), PLACES)
def test_a_command_finds_out_first_that_its_result_has_no_place(tmp_path, monkeypatch, name, option):
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    app, given = COMMANDS[name]
    for place, words in (
        ("rows.jsonl/x", "cannot be written"),
        ("./rows.jsonl", "would overwrite a file that is read"),
    ):
        found = CliRunner().invoke(app, [*given, option, place]).exception
        assert isinstance(found, ReportError), found
        assert str(found).startswith(f"{option} {Path(place)} {words}")
        assert "name another file" in str(found)
    assert rows.read_text() == "{}\n"


def test_two_results_have_two_places(tmp_path):
    place = tmp_path / "a"
    with pytest.raises(ReportError, match=r"^--html .*a would overwrite that of --out; name another file$"):
        check_places({"--out": place, "--suspects": None, "--html": tmp_path / "." / "a"}, [None])
