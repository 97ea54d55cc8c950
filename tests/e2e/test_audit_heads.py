"""`airlock audit heads`, once as a process of its own."""

import json
import subprocess
import sys

from e2e_cases import environment, strict

COMMAND = ("audit", "heads", "--testbed", "--limit", "5", "--asr", "no", "--journal", "j.jsonl")


def test_the_shipped_test_bed_is_audited_by_the_real_command(tmp_path, airlock):
    words = [sys.executable, "-m", "guard", *COMMAND, "--size", "1", "--out", "a.json", "--html", "a.html"]
    ended = subprocess.run(words, cwd=tmp_path, env=environment(OMP_NUM_THREADS="1"), capture_output=True, timeout=200)
    assert ended.returncode == 0, ended.stderr.decode()
    report = strict((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert report["ships"]["ranking"][0]["head"] in ended.stdout.decode()
    assert "<html" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert len((tmp_path / "j.jsonl").read_text().splitlines()) == 6
    refused = airlock(*COMMAND, "--size", "2", "--out", "b.json")
    assert refused.status == 1
    said = refused.err.splitlines()
    assert [line for line in said if line.startswith("airlock: ")] == said[-1:]
    assert "another model" in said[-1]
    assert not (tmp_path / "b.json").exists()
    assert json.loads((tmp_path / "j.jsonl").read_text().splitlines()[0])["part"].startswith("ships")
