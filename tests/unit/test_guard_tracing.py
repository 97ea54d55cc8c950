"""Spans of requests through a whole gateway of doubles, kept by the SDK's own exporter in memory."""

import asyncio
import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from guard import span_names as names
from guard.errors import ConfigError, PartFailure
from guard.observer import Observers
from guard.proxy import Gateway
from guard.telemetry import Tracing
from guard.tracing import Tracer, tracer
from tests.doubles import Flaky, Library, MemoryJournal, Server, Upstream, asking, exchange, make_guard, raises

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()


class Traced:
    """A gateway and the spans that it left."""

    def __init__(self, upstream=None, *, sampler=None, **parts):
        self.upstream = upstream or Upstream()
        provider, self._exporter = TracerProvider(sampler=sampler), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.app = Gateway(make_guard(observers=Observers(Tracer(provider)), **parts), Server(self.upstream))

    def ask(self, body, *headers, **request):
        return asyncio.run(exchange(self.app, body, headers=headers, **request))

    @property
    def spans(self):
        return {span.name: span for span in self._exporter.get_finished_spans()}

    @property
    def root(self):
        return self.spans["guard chat"]


def parent_sent(upstream):
    headers = dict(upstream.requests[-1][0]["headers"])
    assert [name for name, _ in upstream.requests[-1][0]["headers"]].count(b"traceparent") == 1
    return headers[b"traceparent"].decode().split("-")


def test_a_request_is_one_span_with_a_child_for_each_part_and_the_upstream_is_told():
    traced = Traced(journal=MemoryJournal())
    answer = traced.ask(asking("hello"), (b"traceparent", TRACEPARENT), (b"tracestate", b"a=b"))
    spans, root = traced.spans, traced.root
    assert set(spans) == {"guard chat", "classify", "journal", "upstream", "output_check"}
    assert f"{root.context.trace_id:032x}" == TRACE
    assert f"{root.parent.span_id:016x}" == PARENT
    for name in ("classify", "journal", "upstream"):
        assert spans[name].parent.span_id == root.context.span_id, name
    _, trace, span, flags = parent_sent(traced.upstream)
    assert (trace, int(span, 16), flags) == (TRACE, spans["upstream"].context.span_id, "01")
    assert dict(traced.upstream.requests[-1][0]["headers"])[b"tracestate"] == b"a=b"
    said = root.attributes
    assert said[names.DECISION] == answer.headers["x-airlock-decision"]
    assert (said[names.ACTION], said[names.RULE], said[names.TIER]) == ("allow", "safe", "safe")
    assert (said[names.OUTCOME], said[names.STATUS]) == ("answered", 200)
    assert spans["upstream"].attributes[names.STATUS] == 200


def test_a_refusal_calls_no_upstream_and_is_no_error():
    traced = Traced()
    traced.ask(asking("a bomb"))
    assert "upstream" not in traced.spans
    assert traced.root.attributes[names.ACTION] == "block"
    assert traced.root.attributes[names.RISK_CATEGORY] == "u_weapons_violence"
    assert traced.root.parent is None
    assert traced.root.status.is_ok or traced.root.status.status_code.name == "UNSET"


def test_a_part_that_fails_is_an_error_without_its_words():
    traced = Traced(answerer=Flaky(Library(), raises(PartFailure("knowledge", "the user's prompt"))))
    traced.ask(asking("which medicine"))
    assert traced.spans["ground"].attributes[names.ERROR] == "failed"
    assert traced.root.status.status_code.name == "ERROR"
    assert "prompt" not in written(traced)


def test_an_app_that_crashes_leaves_no_words_either():
    traced = Traced(raises(RuntimeError("the user's prompt")))
    with pytest.raises(RuntimeError):
        traced.ask(asking("hello"))
    assert traced.spans["upstream"].attributes[names.ERROR] == "crashed"
    assert "prompt" not in written(traced)


def test_spans_hold_nothing_that_was_written():
    traced = Traced(Upstream(json.dumps({"choices": [{"message": {"content": "canary-answer"}}]}).encode()))
    for text in ("canary-prompt", "canary-prompt bomb", "canary-prompt medicine", "canary-prompt despair"):
        traced.ask(asking(text, model="canary-model"), (b"authorization", b"Bearer canary-key"))
    traced.ask(b"canary-body")
    assert len(traced._exporter.get_finished_spans()) > 10  # negative control
    assert "canary" not in written(traced)


def written(traced):
    return "".join(span.to_json() for span in traced._exporter.get_finished_spans())


def test_what_is_not_sampled_still_names_its_trace_to_the_upstream():
    traced = Traced(sampler=ParentBased(ALWAYS_OFF))
    traced.ask(asking("hello"), (b"traceparent", TRACEPARENT.replace(b"-01", b"-00")))
    assert traced.spans == {}
    version, trace, _, flags = parent_sent(traced.upstream)
    assert (version, trace, flags) == ("00", TRACE, "00")


@pytest.mark.parametrize("header", [b"", b"rubbish", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff\xfe"])
def test_a_wrong_traceparent_begins_a_new_trace(header):
    traced = Traced()
    assert traced.ask(asking("hello"), (b"traceparent", header)).status == 200
    assert traced.root.parent is None
    assert parent_sent(traced.upstream)[1] == f"{traced.root.context.trace_id:032x}"


def test_requests_side_by_side_keep_their_spans_apart():
    traced = Traced()

    async def run():
        await asyncio.gather(*(exchange(traced.app, asking(f"hello {number}")) for number in range(10)))

    asyncio.run(run())
    finished = traced._exporter.get_finished_spans()
    roots = {span.context.span_id: span.context.trace_id for span in finished if span.name == "guard chat"}
    children = [span for span in finished if span.name == "classify"]
    assert (len(set(roots.values())), len(children)) == (10, 10)
    assert {child.parent.span_id for child in children} == set(roots)
    assert all(roots[child.parent.span_id] == child.context.trace_id for child in children)


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"llm-airlock\[otel\]"):
        tracer(Tracing(endpoint="http://127.0.0.1:4318/v1/traces"))


def test_without_the_setting_nothing_of_opentelemetry_is_imported():
    script = (
        "import sys, guard.tracing; from guard.config import load_config; from guard.serving import observers_of\n"
        "observers_of(load_config(None, {'metrics.serve': 'clients'}))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True)
    assert ran.stdout.strip() == "[]"
