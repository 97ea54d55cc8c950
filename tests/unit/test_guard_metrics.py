"""What the metrics say of requests through a whole gateway of doubles, read back as Prometheus reads them."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from guard.errors import PartFailure
from guard.metrics import Metrics
from guard.observer import Observers
from guard.proxy import Gateway
from tests.doubles import (
    CHAT,
    PHRASE,
    QUOTE,
    EventUpstream,
    Flaky,
    Library,
    MemoryJournal,
    PhraseCheck,
    Server,
    Upstream,
    WordClassifier,
    asking,
    chat_answer,
    chunk,
    exchange,
    hangs,
    make_guard,
    raises,
    sse,
)


class Seen:
    """A gateway whose metrics can be read."""

    def __init__(self, upstream=None, settings=None, *, tenants=False, **parts):
        self.metrics = Metrics({"classifier": 1}, tenants=tenants)
        self.guard = make_guard(
            {"metrics.serve": "clients", **(settings or {})}, observers=Observers(self.metrics), **parts
        )
        self.app = Gateway(self.guard, Server(upstream or Upstream()), self.metrics)

    def ask(self, body=None, **request):
        return asyncio.run(exchange(self.app, body, **request))

    def __getitem__(self, name):
        """Each sample of a metric, by its labels."""
        text = asyncio.run(exchange(self.app, b"", path="/metrics", method="GET")).body.decode()
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"airlock_{name}"
        }

    def one(self, name, **labels):
        return self[name].get(tuple(sorted(labels.items())), 0.0)


def test_requests_are_counted_by_how_they_ended():
    seen = Seen()
    seen.ask(asking("hello"))
    seen.ask(asking("a bomb"))
    seen.ask(b"{")
    seen.ask(asking("x"), path="/v1/airlock/check")
    assert seen["requests_total"] == {
        (("endpoint", "chat"), ("outcome", "answered"), ("status", "200")): 1,
        (("endpoint", "chat"), ("outcome", "refused"), ("status", "200")): 1,
        (("endpoint", "chat"), ("outcome", "refused"), ("status", "400")): 1,
        (("endpoint", "check"), ("outcome", "refused"), ("status", "400")): 1,
    }
    assert seen.one("request_seconds_count", endpoint="chat") == 3
    assert seen.one("first_text_seconds_count", endpoint="chat") == 3
    assert seen.one("requests_in_progress", endpoint="chat") == 0


def test_decisions_name_tier_route_rule_category_and_shadow():
    rules = [
        {"name": "trial", "mode": "shadow", "when": {"tier": "safe"}, "route": "ground"},
        {"name": "never", "when": {"tier": "unsafe"}, "route": "refuse"},
        {"name": "rest", "route": "forward"},
    ]
    seen = Seen(settings={"policy.rules": rules})
    seen.ask(asking("hello"))
    seen.ask(asking("a bomb"))
    assert seen.one("decisions_total", tier="safe", route="forward", rule="rest") == 1
    assert seen.one("decisions_total", tier="unsafe", route="refuse", rule="never") == 1
    assert seen["shadow_decisions_total"] == {(("route", "ground"), ("rule", "trial")): 1}
    assert seen.one("categories_total", tier="unsafe", category="u_weapons_violence") == 1
    assert seen.one("read_share_count") == 2
    assert seen.one("read_share_bucket", le="0.95") == 0


def test_no_client_makes_up_a_label():
    seen = Seen()
    for number in range(30):
        seen.ask(b"{}", path=f"/made/up/{number}")
        seen.ask(asking("hello", model=f"model-{number}"))
        seen.ask(b"", path=f"/v1/models/m-{number}", method="GET")
        seen.ask(b"", path=CHAT, method=f"M{number}")
    assert {dict(labels)["endpoint"] for labels in seen["requests_total"]} == {"other", "chat", "models"}
    assert len(seen["requests_total"]) <= 4
    assert len(seen["decisions_total"]) <= 4


def broken(part, fault):
    sound = {"classifier": WordClassifier, "answerer": Library, "output": PhraseCheck}
    return MemoryJournal(broken=True) if part == "journal" else Flaky(sound[part](), fault)


@pytest.mark.parametrize(
    ("part", "name"),
    [("classifier", "classifier"), ("answerer", "knowledge"), ("output", "output"), ("journal", "journal")],
)
def test_a_part_that_fails_is_counted_by_its_name(part, name):
    seen = Seen(**{part: broken(part, raises(PartFailure(name, "secret")))})
    seen.ask(asking("which medicine" if part == "answerer" else "hello"))
    assert seen.one("part_failures_total", part=name, reason="failed") >= 1
    assert seen.one("part_seconds_count", part=name) >= 1
    assert {dict(labels)["outcome"] for labels in seen["requests_total"]} == {"failed"}


def test_calls_that_hang_are_abandoned_then_refused_and_the_part_is_named_unready():
    seen = Seen(settings={"classifier.deadline_s": 0.02}, classifier=Flaky(WordClassifier(), hangs))

    async def run():
        for _ in range(9):
            await exchange(seen.app, asking("hello"))
        return await exchange(seen.app, b"", path="/readyz", method="GET")

    ready = asyncio.run(run())
    assert (ready.status, list(ready.json["parts"])) == (503, ["classifier"])
    assert seen.one("part_abandoned_total", part="classifier") == 8
    assert seen.one("part_failures_total", part="classifier", reason="late") == 8
    assert seen.one("part_failures_total", part="classifier", reason="stuck") == 1
    assert seen.one("part_calls", part="classifier") == 0
    assert seen.one("part_workers", part="classifier") == 1


def test_what_is_rare_stands_there_with_nought_so_that_the_first_of_its_kind_is_a_rise():
    seen = Seen()
    assert seen["reloads_total"] == {(("result", "taken_over"),): 0, (("result", "refused"),): 0}
    assert seen["part_abandoned_total"] == {(("part", "classifier"),): 0}
    reasons = {"late", "stuck", "failed", "crashed", "cancelled"}
    failures = seen["part_failures_total"]
    assert {(dict(labels)["part"], dict(labels)["reason"]) for labels in failures} == {
        (part, reason) for part in ("classifier", "journal") for reason in reasons
    }
    assert set(failures.values()) == {0}


def test_what_waits_for_a_part_can_be_seen_and_how_long_it_waited():
    import threading

    go, begun = threading.Event(), threading.Event()

    def slow(texts):
        begun.set()
        assert go.wait(30)
        return WordClassifier().classify(texts)

    seen = Seen(classifier=Flaky(WordClassifier(), slow))

    async def run():
        asked = [asyncio.create_task(exchange(seen.app, asking(f"hello {number}"))) for number in range(3)]
        while not begun.is_set() or depth() != 3:
            await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(*asked)

    def depth():
        return seen.metrics.registry.get_sample_value("airlock_part_calls", {"part": "classifier"})

    asyncio.run(run())
    assert seen.one("part_calls", part="classifier") == 0
    assert seen.one("part_wait_seconds_count", part="classifier") == 3


def test_a_stream_says_how_much_was_held_back_and_for_how_long():
    chunks = [chunk({"content": f"word number {number}. "}) for number in range(20)]
    seen = Seen(EventUpstream(*(sse([each], done=False) for each in chunks), sse([chunk({}, finish="stop")])))
    seen.ask(asking("hello", stream=True))
    assert seen.one("hold_back_bytes_count") == 1
    assert seen.one("hold_back_bytes_sum") > len(sse(chunks[:2], done=False))
    assert seen.one("hold_back_seconds_count") == 1
    plain = Seen()
    plain.ask(asking("hello"))
    assert plain.one("hold_back_bytes_count") == 0, "not of an answer in one piece"


def test_the_upstream_is_measured_and_its_errors_named():
    seen = Seen(Upstream(b'{"error": {"message": "no"}}', status=429))
    seen.ask(asking("hello"))
    assert seen["upstream_responses_total"] == {(("status", "429"),): 1}
    assert seen.one("upstream_first_byte_seconds_count") == 1
    assert seen.one("part_seconds_count", part="upstream") == 1
    assert seen["requests_total"] == {(("endpoint", "chat"), ("outcome", "upstream_error"), ("status", "429")): 1}

    async def breaks(scope, receive, send):
        from guard.errors import UpstreamError

        raise UpstreamError("secret", code="upstream_slow", status=504)

    seen = Seen(breaks)
    seen.ask(asking("hello"))
    assert seen.one("part_failures_total", part="upstream", reason="upstream_slow") == 1


def test_refused_requests_never_count_as_calls_of_the_upstream():
    seen = Seen()
    seen.ask(asking("a bomb"))
    assert seen.one("part_seconds_count", part="upstream") == 0


def test_grounding_says_which_share_is_supported():
    rules = [{"name": "all", "route": "forward", "ground_answer": "annotate"}]
    seen = Seen(Upstream(_answer(f"{QUOTE} Nobody knows of dragons.")), {"policy.rules": rules})
    seen.ask(asking("hello"))
    assert (seen.one("grounded_share_count"), seen.one("grounded_share_sum")) == (1, 0.5)
    seen.ask({"question": "a medicine"}, path="/v1/airlock/ask")
    seen.ask({"question": "nothing"}, path="/v1/airlock/ask")
    seen.ask({"question": "a related medicine"}, path="/v1/airlock/ask")
    results = {"answered", "related", "abstained"}
    assert seen["grounded_answers_total"] == {(("result", result),): 1 for result in results}


def _answer(text):
    import json

    return json.dumps(chat_answer(text)).encode()


def test_an_answer_that_the_output_door_stops_counts_as_stopped():
    seen = Seen(Upstream(_answer(PHRASE)))
    seen.ask(asking("hello"))
    assert seen["requests_total"] == {(("endpoint", "chat"), ("outcome", "stopped"), ("status", "200")): 1}


def test_tenants_are_counted_only_when_asked_and_not_without_end(monkeypatch):
    monkeypatch.setattr("guard.metrics._NAMED_TENANTS", 2)

    def ask_as(seen, tenant):
        async def app(scope, receive, send):
            await seen.app({**scope, "airlock.tenant": tenant}, receive, send)

        asyncio.run(exchange(app, asking("hello")))

    seen = Seen(tenants=True)
    for tenant in ("a", "b", "c", "d", "a"):
        ask_as(seen, tenant)
    assert {dict(labels)["tenant"]: count for labels, count in seen["tenant_requests_total"].items()} == {
        "a": 2,
        "b": 1,
        "other": 2,
    }
    silent = Seen()
    ask_as(silent, "a")
    assert silent["tenant_requests_total"] == {}


def test_reloads_are_counted(tmp_path):
    from guard.reload import ConfigFile, Reloader

    seen, path = Seen(), tmp_path / "airlock.yaml"
    reloader = Reloader(seen.guard, ConfigFile(path))
    path.write_text("policy: {min_positions: 1}")
    assert reloader.reload()
    path.write_text("policy: {min_positions: many}")
    assert not reloader.reload()
    assert seen["reloads_total"] == {(("result", "taken_over"),): 1, (("result", "refused"),): 1}


def test_metrics_are_for_clients_only_where_the_configuration_says_so():
    seen = Seen(settings={"metrics.serve": "apart"})
    assert seen.ask(b"", path="/metrics", method="GET").status == 404
    seen = Seen()
    answer = seen.ask(b"", path="/metrics", method="GET")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
