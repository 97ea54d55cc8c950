"""What stands in `deploy/`, held against the gateway itself and the linters of its kind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser as promql
import pytest

from guard.config import Config, load_config
from tests.doubles import (
    QUOTE,
    EventUpstream,
    Flaky,
    MemoryJournal,
    Upstream,
    WordClassifier,
    asking,
    chat_answer,
    chunk,
    hangs,
    sse,
)
from tests.unit.test_guard_metrics import Seen

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "airlock.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
FROM_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, tuple[set[str], dict[str, set[str]]]]:
    """Every sample of /metrics after requests of all kinds: by name, its labels and their values."""
    import asyncio

    from guard.reload import ConfigFile, Reloader
    from tests.doubles import exchange

    def ask(seen, body, tenant=None, **request):
        async def app(scope, receive, send):
            await seen.app({**scope, "airlock.tenant": tenant}, receive, send)

        asyncio.run(exchange(app, body, **request))

    whole = json.dumps(chat_answer(QUOTE)).encode()
    shadow = {"name": "trial", "mode": "shadow", "route": "refuse"}
    forward = {"name": "all", "route": "forward", "ground_answer": "annotate"}
    gateways = [
        Seen(Upstream(whole), {"policy.rules": [shadow, forward]}, tenants=True),
        Seen(EventUpstream(sse([chunk({"content": "hello"}), chunk({}, finish="stop")]))),
        Seen(settings={"classifier.deadline_s": 0.02}, classifier=Flaky(WordClassifier(), hangs)),
        Seen(journal=MemoryJournal(broken=True)),
        Seen(settings={"output.responses.mode": "shadow", "output.responses.model": None}),
    ]
    for seen in gateways:
        ask(seen, asking("hello", stream=seen is gateways[1]), tenant="somebody")
        ask(seen, {"question": "a medicine"}, path="/v1/airlock/ask")
    copied = " ".join(["The upstream says hello to everybody who asks it for a word"] * 2)
    turns = [{"role": "system", "content": copied}, {"role": "user", "content": "hello"}]
    ask(gateways[-1], {"input": turns, "output": copied}, path="/v1/airlock/check")
    path = tmp_path_factory.mktemp("reload") / "airlock.yaml"
    path.write_text("policy: {min_positions: 1}")
    Reloader(gateways[0].guard, ConfigFile(path)).reload()

    found: dict[str, tuple[set[str], dict[str, set[str]]]] = {}
    for seen in gateways:
        for family in seen.metrics.registry.collect():
            for sample in family.samples:
                names, values = found.setdefault(sample.name, (set(), {}))
                names |= set(sample.labels)
                for name, value in sample.labels.items():
                    values.setdefault(name, set()).add(value)
    return found


def parsed(query: str):
    return promql.parse(query.replace("$__rate_interval", "5m").replace("$job", ".*"))


def selectors(node):
    """The metrics that a query selects."""
    if isinstance(node, promql.VectorSelector):
        yield node
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql.AggregateExpr | promql.ParenExpr):
        yield from selectors(node.expr)


def grouped(node) -> set[str]:
    """The labels that a query groups by, anywhere."""
    if isinstance(node, promql.AggregateExpr):
        return set(node.modifier.labels if node.modifier else ()) | grouped(node.expr)
    if isinstance(node, promql.BinaryExpr):
        return grouped(node.lhs) | grouped(node.rhs)
    if isinstance(node, promql.Call):
        return set().union(*(grouped(argument) for argument in node.args))
    return grouped(node.expr) if isinstance(node, promql.ParenExpr) else set()


@pytest.mark.parametrize(("query", "legend"), QUERIES)
def test_each_query_of_the_dashboard_asks_for_metrics_and_labels_that_there_are(samples, query, legend):
    tree = parsed(query)
    found = list(selectors(tree))
    assert found, query
    for selector in found:
        assert selector.name in samples, f"/metrics has no {selector.name}"
        names, values = samples[selector.name]
        assert grouped(tree) <= names
        for matcher in selector.matchers.matchers:
            assert matcher.name in names | FROM_PROMETHEUS, f"{selector.name} has no label {matcher.name}"
            if matcher.op == promql.MatchOp.Equal:
                assert matcher.value in values[matcher.name]
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped(tree)


def test_the_check_of_the_dashboard_can_fail(samples):
    (selector,) = selectors(parsed('sum by (outcome) (rate(airlock_request_total{job=~"$job"}[1m]))'))
    assert selector.name not in samples
    assert "outcome" not in samples["airlock_decisions_total"][0]


def test_every_metric_is_on_the_dashboard(samples):
    shown = {selector.name for query, _ in (param.values for param in QUERIES) for selector in selectors(parsed(query))}
    families = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in samples}
    assert families == {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in shown}


def test_the_dashboard_is_whole():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells


def test_the_dockerfile_passes_its_linter_and_copies_what_there_is():
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed")
    ran = subprocess.run([linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular_and_its_context_holds_what_the_build_needs():
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    final = text.rpartition("\nFROM ")[2]
    assert text.count("\nFROM ") == 2
    assert re.search(r"^USER 10001$", final, re.MULTILINE)
    assert "pip install" not in final
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for name in (entry[1:] for entry in allowed if entry.startswith("!")):
        assert (DEPLOY.parent / name).exists(), name
    packages = {"guard", "classifier", "rag", "attribution", "training", "data/audit", "pyproject.toml", "README.md"}
    assert {f"!{name}" for name in packages} <= set(allowed)


def test_the_configuration_of_the_image_is_one(tmp_path):
    config = load_config(DEPLOY / "airlock.yaml")
    assert config.metrics.serve == "apart"
    assert config.logging.format == "json"
    unit = (DEPLOY / "airlock.service").read_text(encoding="utf-8")
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert stop >= config.server.shutdown_s + 10 > Config().server.shutdown_s


def test_the_unit_passes_its_linter_and_leaves_little_to_an_intruder(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    text = (DEPLOY / "airlock.service").read_text(encoding="utf-8")
    unit = tmp_path / "airlock.service"
    unit.write_text(text.replace("/opt/airlock/bin/airlock", sys.executable), encoding="utf-8")
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr.strip()) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout[-300:]
