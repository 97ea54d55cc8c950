"""The result file of a long command: its place is tried before the run, and nothing is left of the trial."""

import errno
import os
from pathlib import Path

import pytest

from attribution.types import ReportError
from training.results import check_place, write_result


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
