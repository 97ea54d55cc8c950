"""What /healthz and /readyz say, and when."""

import asyncio
import subprocess
import sys

import pytest

from guard.observer import CURRENT
from guard.proxy import Gateway
from guard.reach import Reached
from tests.doubles import MemoryJournal, Server, Upstream, asking, exchange, make_guard


def get(app, path):
    return asyncio.run(exchange(app, b"", path=path, method="GET"))


def test_a_gateway_that_is_well_is_ready_and_the_probes_leave_no_decision():
    journal = MemoryJournal()
    app = Gateway(make_guard(journal=journal), Server(Upstream()))
    health, ready = get(app, "/healthz"), get(app, "/readyz")
    assert (health.status, health.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json["status"], ready.json["parts"]) == (200, "ready", {})
    assert journal.decisions == []
    assert CURRENT.get() is None


@pytest.mark.parametrize(("on_error", "status"), [("refuse", 503), ("continue", 200)])
def test_a_journal_that_cannot_be_written_makes_it_unready_until_it_can(on_error, status):
    journal = MemoryJournal(broken=True)
    app = Gateway(make_guard({"journal.on_error": on_error}, journal=journal), Server(Upstream()))
    assert get(app, "/readyz").status == 200, "nothing has failed yet"
    asyncio.run(exchange(app, asking("hello")))
    ready = get(app, "/readyz")
    assert (ready.status, list(ready.json["parts"])) == (status, ["journal"] if status == 503 else [])
    assert get(app, "/healthz").status == 200
    journal.broken = False
    asyncio.run(exchange(app, asking("hello")))
    assert get(app, "/readyz").status == 200


def test_after_a_while_a_journal_that_failed_gets_another_try(monkeypatch):
    app = Gateway(make_guard(journal=MemoryJournal(broken=True)), Server(Upstream()))
    asyncio.run(exchange(app, asking("hello")))
    monkeypatch.setattr("guard.lately._RECENT_S", 0.0)
    assert get(app, "/readyz").status == 200


@pytest.mark.parametrize(("upstream", "status"), [(Upstream(b"{}"), 200), (Upstream(b"", status=502), 503)])
def test_the_upstream_counts_only_where_the_configuration_says_so(upstream, status):
    careful = Gateway(make_guard({"upstream.ready_check": True}), Server(upstream))
    assert get(careful, "/readyz").status == status
    assert upstream.requests[0][0]["path"] == "/v1/models"
    before = len(upstream.requests)
    assert get(Gateway(make_guard(), Server(upstream)), "/readyz").status == 200
    assert len(upstream.requests) == before


def test_many_probes_are_one_question_to_the_upstream():
    upstream = Upstream(b"{}")
    reached = Reached(Server(upstream), "http://x/v1")

    async def run():
        return await asyncio.gather(*(reached.fault() for _ in range(20)))

    assert asyncio.run(run()) == [""] * 20
    assert len(upstream.requests) == 1


def test_an_upstream_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("guard.reach._WITHIN_S", 0.05)

    async def silent(scope, receive, send):
        await asyncio.Event().wait()

    assert "cannot be reached" in asyncio.run(Reached(silent, "http://x/v1").fault())


def test_a_failing_part_with_a_secret_in_its_words_says_nothing_of_it():
    class Broken(MemoryJournal):
        async def decided(self, *_):
            raise RuntimeError("my secret prompt")

        async def ended(self, *_, **__):
            raise RuntimeError("my secret prompt")

    app = Gateway(make_guard(journal=Broken()), Server(Upstream()))
    asyncio.run(exchange(app, asking("hello")))
    ready = get(app, "/readyz")
    assert ready.status == 503
    assert b"secret" not in ready.body


def test_keys_that_cannot_be_looked_up_make_it_unready_until_they_can(tmp_path):
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: []")
    app = Gateway(make_guard({"access.keys": keys, "upstream.api_key_env": "HOME"}), Server(Upstream()))
    assert get(app, "/readyz").status == 200
    for spoil in (lambda: keys.write_text("keys: ["), keys.unlink):
        spoil()
        ready = get(app, "/readyz")
        assert (ready.status, ready.json["parts"]) == (503, {"access": "the keys cannot be looked up"})
        assert get(app, "/healthz").status == 200
    keys.write_text("keys: []")
    assert get(app, "/readyz").status == 200


STARTING = """
import os, signal, sys
from guard.config import load_config
from guard.listening import listen
from guard.serving import run_gateway

def started(guard, metrics):
    print(*(name for name in ("guard.api", "py3langid.langid", "guard.journal.redact") if name in sys.modules))
    os.kill(os.getpid(), signal.SIGTERM)

rules = [{"name": "all", "route": "forward"}]
config = load_config(None, {
    "server.port": 0, "classifier.kind": "none", "knowledge.kind": "none", "output.classifier": False,
    "policy.rules": rules, "journal.path": sys.argv[1], "journal.prompts": "redacted",
})
run_gateway(config, None, listen(config), started)
"""


def test_what_a_first_request_needs_is_loaded_before_a_server_says_that_it_serves(tmp_path):
    command = [sys.executable, "-c", STARTING, str(tmp_path / "j.db")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert said.split() == ["guard.api", "py3langid.langid", "guard.journal.redact"]
