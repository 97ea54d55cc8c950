import hashlib
import json
import os
import subprocess

import pytest

from training import manifest
from training.manifest import file_sha256, provenance, write_json


def test_a_file_is_named_by_its_hash(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"content" * 10_000)
    assert file_sha256(path) == hashlib.sha256(b"content" * 10_000).hexdigest()


@pytest.mark.parametrize(("dirty", "commit"), [("", "0123456789ab"), (" M a.py", "0123456789ab+changes")])
def test_provenance_says_what_a_result_was_made_from(tmp_path, monkeypatch, dirty, commit):
    monkeypatch.setattr(manifest, "_git", lambda _, command, *__: dirty if command == "status" else "0123456789ab")
    (tmp_path / "rows.jsonl").write_text("{}")
    said = provenance(seed=7, data=[tmp_path / "rows.jsonl"])
    assert said["commit"] == commit
    assert said["seed"] == 7
    assert said["data"] == {"rows.jsonl": file_sha256(tmp_path / "rows.jsonl")}
    assert said["machine"]["cores"] == os.cpu_count()
    assert said["machine"]["cpu"]
    assert {"torch", "transformers", "peft"} <= set(said["libraries"])
    assert str(tmp_path) not in json.dumps(said)


def test_outside_a_checkout_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "manifest.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance(seed=0, data=[])["commit"] == "unknown"


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_without_git_the_commit_is_unknown(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert provenance(seed=0, data=[])["commit"] == "unknown"


def test_a_result_is_written_whole_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "r.json"
    write_json(path, {"text": "ä", "value": 0.5})
    write_json(path, {"text": "ö"})
    assert path.read_text(encoding="utf-8") == '{\n  "text": "ö"\n}\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]


def test_a_failed_write_leaves_the_old_result(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1}

    def full(self, text, **_):
        self.write_bytes(text.encode()[:3])
        raise OSError("no space left on device")

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"value": 2})
    assert json.loads(path.read_bytes()) == {"value": 1}
