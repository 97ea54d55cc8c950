"""A gateway process takes a changed file over, keeps the old policy when the file is bad, and hears SIGHUP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import yaml
from e2e_cases import FORWARD_ALL, NO_MODELS, Started, decision_row, served, user

REFUSE_ALL = {"rules": [{"name": "closed", "route": "refuse", "say": "Closed today."}]}
TEAPOT = {"classifier": False, "patterns": [{"name": "teapot", "regex": "teapot"}]}


class HeldUpstream:
    """Answers with a teapot once it may."""

    def __init__(self):
        self.arrived, self.may = threading.Event(), threading.Event()

    async def __call__(self, scope, receive, send):
        await receive()
        self.arrived.set()
        assert await asyncio.to_thread(self.may.wait, 60)
        message = {"role": "assistant", "content": "I am a teapot."}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


def test_a_running_gateway_takes_over_what_its_file_says(tmp_path):
    upstream = HeldUpstream()
    path = tmp_path / "airlock.yaml"

    def write(policy, text=None, **more):
        settings = {
            "server": {"port": 0},
            "upstream": {"base_url": f"{address}/v1"},
            "policy": policy,
            **NO_MODELS,
            "output": {"classifier": False},
            "journal": {"path": "journal.db"},
        }
        path.with_suffix(".new").write_text(text or yaml.safe_dump(settings | more), encoding="utf-8")
        os.replace(path.with_suffix(".new"), path)

    with served(upstream, lifespan="off") as address:
        write(FORWARD_ALL)
        started = Started("guard", "serve", "-c", "airlock.yaml", "--json", cwd=tmp_path, log=tmp_path / "stderr.log")
        try:
            said = json.loads(started.line)
            with httpx.Client(base_url=said["serving"], timeout=60) as client, ThreadPoolExecutor(1) as pool:

                def in_force():
                    return client.post("/airlock/check", json={"input": "hi"}).json()["policy"]

                def ask():
                    return client.post("/chat/completions", json={"model": "m", "messages": user("hi")})

                old = in_force()
                assert old == said["policy"]
                held = pool.submit(ask)
                assert upstream.arrived.wait(60)
                write(REFUSE_ALL, output=TEAPOT, journal={"path": "other.db"})
                until(lambda: in_force() != old)
                new = in_force()
                upstream.may.set()
                answer = held.result()
                assert answer.json()["choices"][0]["message"]["content"] == "I am a teapot.", "by its own policy"
                refused = ask()
                assert refused.json()["choices"][0]["message"]["content"] == "Closed today."
                assert f"policy {new} is in force" in started.said
                assert "a restart is needed for journal.path" in started.said
                for response, policy in ((answer, old), (refused, new)):
                    row = decision_row(tmp_path / "journal.db", response.headers["x-airlock-decision"])
                    assert row["policy"] == policy

                write({}, text="policy: {rules: [{name: open, route: forwad}]}")
                until(lambda: "not taken over" in started.said)
                assert "policy.rules.0.route = 'forwad'" in started.said
                assert in_force() == new

                write(REFUSE_ALL, output=TEAPOT)
                until(lambda: "nothing changed" in started.said)
                started.process.send_signal(signal.SIGHUP)
                until(lambda: started.said.count("nothing changed") == 2)
                assert in_force() == new

                write(FORWARD_ALL)
                until(lambda: in_force() == old)
                assert ask().json()["choices"][0]["message"]["content"] == "I am a teapot."
            started.process.send_signal(signal.SIGTERM)
            assert started.wait() == 0
        finally:
            started.process.kill()
            started.wait()
    assert "Traceback" not in started.said


def until(holds):
    """Wait for something that another process does."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")
