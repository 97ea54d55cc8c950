"""Gateway processes that are killed, started again and asked to stop."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing

import httpx
import yaml
from e2e_cases import (
    FORWARD_ALL,
    NO_MODELS,
    OddUpstream,
    Started,
    closed_port,
    decision_row,
    outcome_of,
    served,
    user,
)


def test_kill_keeps_what_was_acknowledged_and_terminate_lets_answers_finish(tmp_path):
    upstream = OddUpstream()
    journal = tmp_path / "journal.db"
    with served(upstream, lifespan="off") as address:
        # The first gateway's upstream is down.
        first = _serve(tmp_path, f"http://127.0.0.1:{closed_port()}/v1")
        acknowledged = []
        try:
            with httpx.Client(base_url=json.loads(first.line)["serving"], timeout=60) as client:
                down = client.post("/chat/completions", json={"model": "m", "messages": user("hi")})
                models = client.get("/models")
                for number in range(5):
                    checked = client.post("/airlock/check", json={"input": f"number {number}"})
                    acknowledged.append(checked.json()["decision"])
            assert (down.status_code, down.json()["error"]["code"]) == (502, "upstream_unavailable")
            assert "choices" not in down.json()
            assert models.status_code == 502
            acknowledged += [down.headers["x-airlock-decision"], models.headers["x-airlock-decision"]]
        finally:
            os.kill(first.process.pid, signal.SIGKILL)
            first.wait()
        assert "Traceback" not in first.said

        second = _serve(tmp_path, f"{address}/v1")
        try:
            body = {"model": "drip", "messages": user("hi"), "stream": True}
            url = json.loads(second.line)["serving"] + "/chat/completions"
            with httpx.stream("POST", url, json=body, timeout=60) as answer:
                pieces = answer.iter_raw()
                received = next(pieces)
                second.process.send_signal(signal.SIGTERM)
                received += b"".join(pieces)
            assert received.count(b"drop number") == OddUpstream.drops
            assert received.endswith(b"data: [DONE]\n\n")
            assert second.wait() == 0
        finally:
            second.process.kill()
            second.wait()
    assert "Traceback" not in second.said
    assert not (tmp_path / "journal.db-wal").exists()  # SQLite removes it when the last connection closes
    assert outcome_of(journal, answer.headers["x-airlock-decision"]) == "answered"
    assert [decision for decision in acknowledged if decision_row(journal, decision) is None] == []
    with closing(sqlite3.connect(journal)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _serve(folder, upstream: str) -> Started:
    settings = {
        "server": {"port": 0},
        "upstream": {"base_url": upstream},
        "policy": FORWARD_ALL,
        **NO_MODELS,
        "output": {"classifier": False, "hold_back": 30, "stride": 20},
        "journal": {"path": "journal.db"},
    }
    (folder / "airlock.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Started("guard", "serve", "-c", "airlock.yaml", "--json", cwd=folder, log=folder / "stderr.log")
