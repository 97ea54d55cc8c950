"""The log as text and as JSON: what stands in it, and that nobody's words ever do."""

import asyncio
import gc
import io
import json
import logging
import sys
import threading

import pytest

from guard.errors import PartFailure, UpstreamError
from guard.logs import WORKER, JsonFormatter, RequestLog, TextFormatter, set_up
from guard.observer import Observers
from guard.proxy import Gateway
from guard.telemetry import Logging, Tracing
from guard.tracing import tracer
from tests.doubles import (
    CHAT,
    PHRASE,
    EventUpstream,
    Flaky,
    Library,
    MemoryJournal,
    Server,
    Upstream,
    WordClassifier,
    asking,
    chat_answer,
    chunk,
    exchange,
    make_guard,
    raises,
    sse,
)

FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


@pytest.fixture(params=["text", "json"])
def written(request):
    """All that is logged, in a format."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    handler.setFormatter(FORMATTERS[request.param]())
    levels = {name: logging.getLogger(name).level for name in ("", "airlock")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def gateway(upstream=None, settings=None, **parts):
    return Gateway(make_guard(settings, observers=Observers(RequestLog()), **parts), Server(upstream or Upstream()))


def ask(app, body, **request):
    return asyncio.run(exchange(app, body, **request))


def lines(written):
    return [json.loads(line) for line in written.getvalue().splitlines() if line.startswith("{")]


def test_a_request_is_one_line_with_its_decision(written):
    answer = ask(gateway(), asking("a bomb"))
    (line,) = [line for line in written.getvalue().splitlines() if "airlock.requests" in line]
    assert answer.headers["x-airlock-decision"] in line
    for said in ("unsafe", "u_weapons_violence", "refuse", "chat", "200"):
        assert said in line


@pytest.mark.parametrize("setting", ["judge", "refuse"])
def test_the_field_that_decided_is_named_as_far_as_it_has_a_name(written, setting):
    app = gateway(settings={"conversation.unknown_fields": setting})
    ask(app, asking("hi") | {"system_prompt": "a bomb"})
    ask(app, asking("hi") | {f"{CANARY} hello": "a bomb"})
    said = written.getvalue()
    assert said.count("system_prompt") == 1
    assert said.count("(no plain name)") == 1
    assert CANARY not in said


def test_each_line_of_a_request_names_its_decision(written):
    app = gateway(answerer=Flaky(Library(), raises(PartFailure("knowledge", "it is down"))))
    answer = ask(app, asking("which medicine"))
    decision = answer.headers["x-airlock-decision"]
    for line in lines(written):
        if line["logger"].startswith("airlock"):
            assert line.get("decision", decision) == decision
    assert written.getvalue().count(decision) >= 2


def test_an_exception_is_type_and_place_on_one_line(written):
    try:
        raise ValueError("canary\nof two lines")
    except ValueError:
        logging.getLogger("airlock").exception("it\nbroke")
    said = written.getvalue()
    assert said.count("\n") == 1
    assert "ValueError" in said
    assert "test_guard_logs.py" in said
    assert "canary" not in said


CANARY = "canary-7f3a"
KEY = f"Bearer sk-{CANARY}"


def _whole(text):
    return Upstream(json.dumps(chat_answer(text)).encode())


def _stream(text):
    return EventUpstream(sse([chunk({"content": text}), chunk({}, finish="stop")]))


GROUNDED = {"policy.rules": [{"name": "all", "route": "forward", "ground_answer": "require"}]}
TEXT = f"{CANARY} hello"
PATHS = {
    "forwarded": (asking(TEXT), {}),
    "streamed": (asking(TEXT, stream=True), {"upstream": _stream(CANARY)}),
    "refused": (asking(f"{CANARY} bomb"), {}),
    "refused as an error": (asking(f"{CANARY} bomb"), {"settings": {"policy.on_block": "error"}}),
    "grounded": (asking(f"{CANARY} medicine"), {}),
    "abstained": (asking(f"{CANARY} medicine nothing"), {}),
    "handed over": (asking(f"{CANARY} despair"), {}),
    "unreadable": (asking(f"{CANARY} █"), {}),
    "stopped": (asking(TEXT), {"upstream": _whole(f"{CANARY} {PHRASE}")}),
    "stopped in a stream": (asking(TEXT, stream=True), {"upstream": _stream(f"{CANARY} {PHRASE}")}),
    "held against the knowledge base": (asking(TEXT), {"upstream": _whole(CANARY), "settings": GROUNDED}),
    "malformed": (f'{{"messages": "{CANARY}"'.encode(), {}),
    "no messages": ({"model": CANARY, "messages": CANARY}, {}),
    "classifier broken": (asking(TEXT), {"classifier": Flaky(WordClassifier(), raises(RuntimeError(CANARY)))}),
    "knowledge broken": (asking(f"{CANARY} medicine"), {"answerer": Flaky(Library(), raises(KeyError(CANARY)))}),
    "journal broken": (asking(TEXT), {"journal": MemoryJournal(broken=True)}),
    "upstream's error": (asking(TEXT), {"upstream": Upstream(b'{"error": "%s"}' % CANARY.encode(), status=500)}),
    "upstream broken": (asking(TEXT), {"upstream": raises(UpstreamError("broke"))}),
    "upstream's rubbish": (asking(TEXT), {"upstream": Upstream(CANARY.encode())}),
    "checked": ({"input": TEXT, "output": CANARY}, {"path": "/v1/airlock/check"}),
    "asked": ({"question": TEXT}, {"path": "/v1/airlock/ask"}),
    "ground": ({"answer": TEXT, "passages": [CANARY]}, {"path": "/v1/airlock/ground"}),
    "unknown field": (asking("hi") | {"odd": f"{CANARY} bomb"}, {}),
    "unknown field refused": (asking("hi") | {"odd": TEXT}, {"settings": {"conversation.unknown_fields": "refuse"}}),
    "wrong field": ({CANARY: 1}, {"path": "/v1/airlock/check"}),
    "not served": ({}, {"path": f"/v1/{CANARY}"}),
}


@pytest.mark.parametrize("name", PATHS)
def test_no_prompt_key_answer_or_document_is_logged_on_any_path(written, name):
    body, given = PATHS[name]
    path = given.get("path", CHAT)
    app = gateway(**{key: value for key, value in given.items() if key != "path"})
    ask(app, body, path=path, headers=[(b"authorization", KEY.encode()), (b"x-api-key", KEY.encode())])
    said = written.getvalue()
    assert "request" in said  # negative control: there is a log
    assert CANARY not in said


def test_an_app_that_crashes_is_logged_by_its_server_without_its_words(written):
    async def crashes(scope, receive, send):
        raise RuntimeError(f"cannot serve {CANARY}")

    try:
        ask(gateway(crashes), asking(TEXT))
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")  # as uvicorn does
    assert "RuntimeError" in written.getvalue()
    assert CANARY not in written.getvalue()


class Word:
    """An argument that is somebody's text."""

    def __repr__(self):
        return CANARY


def test_what_the_event_loop_logs_names_no_exception_and_no_argument(written):
    async def fails():
        raise ValueError(CANARY)

    def fails_at(argument):
        raise ValueError(argument)

    async def leaves_them():
        loop = asyncio.get_running_loop()
        loop.call_soon(fails_at, Word())
        tasks = [loop.create_task(fails())]
        await asyncio.sleep(0.01)
        tasks.clear()
        gc.collect()

    asyncio.run(leaves_them())
    said = written.getvalue()
    assert "Task exception was never retrieved" in said
    assert "Exception in callback" in said
    assert said.count("ValueError") == 2
    assert CANARY not in said


def test_what_opentelemetry_says_of_a_header_does_not_quote_it(written, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization: Bearer {CANARY}")
    traces = tracer(Tracing(endpoint="http://127.0.0.1:9/v1/traces", sample=0.0))
    app = Gateway(make_guard(observers=Observers(traces)), Server(Upstream()))
    parent = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    ask(app, asking("hello"), headers=(parent, (b"tracestate", CANARY.encode())))
    traces.close()
    said = written.getvalue()
    assert "Header format invalid!" in said
    assert "w3c identifiers" in said
    assert CANARY not in said


@pytest.fixture
def served(monkeypatch):
    """The log of a served process, which is put back as it was."""
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(sys, "stderr", stream)
    for hooked, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(hooked, name, getattr(hooked, name))
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("airlock", "uvicorn.error")}
    root.handlers.clear()
    set_up(Logging())
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def _raises(*_):
    raise ValueError(CANARY)


def test_what_nobody_catches_is_one_line_with_type_and_place(served):
    thread = threading.Thread(target=_raises, name="airlock-some")
    thread.start()
    thread.join()
    try:
        _raises()
    except ValueError:
        sys.excepthook(*sys.exc_info())
    Broken = type("Broken", (), {"__del__": _raises})
    Broken()
    gc.collect()
    said = served.getvalue()
    assert said.count("\n") == 3
    assert said.count("ValueError test_guard_logs.py:") + said.count("ValueError threading.py:") == 3
    assert "airlock-some" in said
    assert CANARY not in said


def test_a_thread_that_ends_by_itself_says_nothing(served):
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert served.getvalue() == ""


def test_each_line_of_several_workers_says_which_of_them_wrote_it(written):
    record = logging.LogRecord("airlock", logging.INFO, __file__, 1, "policy %s is in force", ("p",), None)
    logging.getLogger("airlock").handle(record)
    assert "worker" not in written.getvalue(), "one process needs no name"
    record.processName, record.process = WORKER, 4711
    logging.getLogger("airlock").handle(record)
    for line in written.getvalue().splitlines()[1:]:
        assert json.loads(line)["worker"] == 4711 if line.startswith("{") else line.endswith(" worker=4711")
