"""A changed configuration is taken over whole or not at all, and never by a request that has begun."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from classifier.taxonomy import Taxonomy
from guard import doors
from guard.config import load_config
from guard.errors import ConfigError
from guard.logs import TextFormatter
from guard.middleware import GuardMiddleware
from guard.reload import ConfigFile, Reloader
from guard.types import Finding, Origin, Route, Turn
from tests.doubles import (
    MemoryJournal,
    Upstream,
    WordClassifier,
    asking,
    chat_answer,
    exchange,
    make_guard,
)

TAXONOMY = Taxonomy.load(Path(__file__).parents[2] / "data/taxonomies/airlock.yaml")
REFUSE = "policy: {rules: [{name: none, route: refuse, say: Never.}]}"
FORWARD = "policy: {rules: [{name: all, route: forward}]}"
BAD = [
    "policy: {rules: [{name: all, route: forwrd}]}",
    "polic: {}",
    "policy: [",
    "policy: {rules: [{name: a, when: {category: u_nothing}, route: refuse}]}",
    "answers: {language: xx}",
    "answers: {country: XX}",
    "output: {patterns: [{name: p, regex: 'a+'}]}",
    "output: {patterns: [{name: p, regex: 'a{99999999999}'}]}",
    "output: {patterns: [{name: p, regex: a}, {name: p, regex: b}]}",
    "[" * 3000 + "]" * 3000,
    "",
    "  \n",
    None,
]


@pytest.fixture(autouse=True)
def _hears_the_log(caplog):
    caplog.set_level(logging.INFO, "airlock")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "airlock.yaml"


def write(path, text):
    """As an editor does: whole, under the old name."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def guarding(path, text=FORWARD, **parts):
    write(path, text)
    read = ConfigFile(path)
    guard = make_guard(None, taxonomy=TAXONOMY, **parts)
    guard.reload(read.load())
    return guard, Reloader(guard, read)


def decided(guard, text="hi", origin=None):
    return asyncio.run(guard.decide([Turn("user", text)], *([origin] if origin else [])))


def test_a_changed_file_is_in_force_and_each_decision_says_which(file, caplog):
    guard, reloader = guarding(file)
    before = decided(guard)
    write(file, REFUSE)
    assert reloader.reload()
    after = decided(guard)
    assert (before.route, after.route, after.rule) == (Route.FORWARD, Route.REFUSE, "none")
    assert before.policy != after.policy == guard.version == after.as_dict()["policy"]
    assert guard.refusal(after).text == "Never."
    assert after.policy in caplog.text
    assert "policy.rules" in caplog.text
    write(file, FORWARD)
    assert reloader.reload()
    assert decided(guard).policy == before.policy, "the same settings have the same version"


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_changes_nothing_and_is_one_line_in_the_log(file, bad, caplog):
    guard, reloader = guarding(file)
    before = guard.config
    if bad is None:
        file.unlink()
    else:
        write(file, bad)
    caplog.clear()
    assert not reloader.reload()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert guard.version in said
    assert "\n" not in said
    assert (guard.config, decided(guard).route) == (before, Route.FORWARD)
    write(file, REFUSE)
    assert reloader.reload()
    assert decided(guard).route is Route.REFUSE


def test_what_needs_a_restart_is_named_and_left(file, caplog):
    guard, reloader = guarding(file)
    write(
        file,
        REFUSE + "\nserver: {port: 9, extras: false}\noutput: {deadline_s: 3, hold_back: 99}\njournal: {path: x.db}",
    )
    assert reloader.reload()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert {"server.port", "server.extras", "output.deadline_s", "journal.path"} <= set(said.replace(",", "").split())
    assert "hold_back" not in said
    assert (guard.config.server.port, guard.config.output.deadline_s, guard.config.output.hold_back) == (8080, 10.0, 99)


def test_a_rule_for_a_model_that_is_new_says_that_the_model_takes_a_restart(file, caplog):
    _, reloader = guarding(file)
    rule = "policy: {rules: [{name: r, when: {category: repairs}, route: refuse}]}"
    for text, told in ((rule, False), (f"{rule}\nclassifiers: {{a: {{model: a, when: {{endpoint: chat}}}}}}", True)):
        caplog.clear()
        write(file, text)
        assert not reloader.reload()
        assert "names the category 'repairs'" in caplog.text
        assert ("only a restart loads" in caplog.text) is told


def test_a_rule_that_can_never_match_is_a_warning(file, caplog):
    guard, reloader = guarding(file)
    write(file, "policy: {rules: [{name: all, route: refuse}, {name: late, route: forward}]}")
    assert reloader.reload()
    assert guard.warnings
    assert "'late' can never match" in caplog.text


def test_output_is_taken_over_for_texts_that_come_later(file):
    guard, reloader = guarding(file)
    write(file, FORWARD + "\noutput: {classifier: false, patterns: [{name: word, regex: teapot}]}")
    held = guard.held()
    assert reloader.reload()
    assert asyncio.run(guard.find(["a teapot"])) == Finding("output_pattern:word")
    assert asyncio.run(held.find(["a teapot"])) is None
    write(file, FORWARD + "\noutput: {patterns: []}")
    assert reloader.reload()
    assert asyncio.run(guard.find(["a bomb, with the double's word for unsafe"])) == Finding(
        "output_unsafe", "u_weapons_violence"
    )


def test_trusted_roles_are_taken_over(file):
    guard, reloader = guarding(file, "")
    turns = [Turn("system", "a bomb"), Turn("user", "hi")]
    assert asyncio.run(guard.decide(turns)).route is Route.FORWARD
    write(file, "conversation: {trusted_roles: []}")
    assert reloader.reload()
    assert asyncio.run(guard.decide(turns)).route is Route.REFUSE


def test_a_conversation_is_judged_and_weighed_by_one_edition(file, monkeypatch):
    guard, reloader = guarding(file, "")
    turns, held, old = [Turn("system", "a bomb"), Turn("user", "hi")], guard.held, guard.version

    def held_before_a_reload():
        found = held()
        write(file, "conversation: {trusted_roles: []}")
        assert reloader.reload()
        return found

    monkeypatch.setattr(guard, "held", held_before_a_reload)
    decision = asyncio.run(guard.decide(turns))
    assert (decision.policy, decision.route) == (old, Route.FORWARD)
    assert len(decision.judgements) == 1, "the system message is not judged, as its edition says"


def test_messages_are_read_and_let_in_by_one_edition(file, monkeypatch):
    guard, reloader = guarding(file, FORWARD + "\nconversation: {non_text_parts: pass}")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    old, unjudged = guard.version, doors.unjudged

    def after_a_reload(*arguments):
        write(file, FORWARD + "\nconversation: {non_text_parts: refuse}")
        assert reloader.reload()
        return unjudged(*arguments)

    monkeypatch.setattr(doors, "unjudged", after_a_reload)
    entered = asyncio.run(doors.enter(guard, [{"role": "user", "content": [{"type": "text", "text": "hi"}, image]}]))
    assert (entered.decision.policy, entered.decision.unjudged) == (old, ("image_url",))
    assert guard.version != old


class Waiting(WordClassifier):
    """Judges once it may."""

    def __init__(self):
        super().__init__()
        self.begun, self.may = threading.Event(), threading.Event()

    def classify(self, texts):
        self.begun.set()
        assert self.may.wait(30)
        return super().classify(texts)


def test_a_request_that_is_being_judged_keeps_its_own_policy(file):
    classifier, journal = Waiting(), MemoryJournal()
    guard, reloader = guarding(file, classifier=classifier, journal=journal)
    old = guard.version

    async def meanwhile():
        first = asyncio.create_task(guard.admit([Turn("user", "hi")]))
        await asyncio.to_thread(classifier.begun.wait, 30)
        write(file, REFUSE)
        assert await asyncio.to_thread(reloader.reload)
        classifier.may.set()
        return await first, await guard.admit([Turn("user", "hi")])

    (before, _), (after, _) = asyncio.run(meanwhile())
    assert (before.route, before.policy) == (Route.FORWARD, old)
    assert (after.route, after.policy) == (Route.REFUSE, guard.version)
    assert [decision.policy for decision, _ in journal.decisions] == [old, guard.version]


def test_an_answer_on_its_way_is_checked_by_the_policy_of_its_request(file):
    guard, reloader = guarding(file)
    version = guard.version
    answer = json.dumps(chat_answer("a teapot")).encode()

    class Slow(Upstream):
        async def __call__(self, scope, receive, send):
            if not self.requests:
                write(file, FORWARD + "\noutput: {classifier: false, patterns: [{name: word, regex: teapot}]}")
                assert await asyncio.to_thread(reloader.reload)
            await super().__call__(scope, receive, send)

    app = GuardMiddleware(Slow(answer), guard)
    first = asyncio.run(exchange(app, asking("hi")))
    assert guard.version != version
    second = asyncio.run(exchange(app, asking("hi")))
    assert first.body == answer
    assert b"teapot" not in second.body


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
@pytest.mark.parametrize("watch", [True, False])
def test_sighup_reads_the_file_again(file, watch):
    guard, reloader = guarding(file)
    before = signal.getsignal(signal.SIGHUP)
    with reloader.running(watch=watch):
        write(file, REFUSE)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: guard.config.policy.rules[0].name == "none")
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize("link", [False, True])
def test_the_file_is_watched(file, link, tmp_path):
    """Changed in place, replaced, removed and made again; also where the name that was given is a link to it."""
    guard, reloader = guarding(file)
    if link:
        beside = tmp_path / "etc"
        beside.mkdir()
        named = beside / "named.yaml"
        named.symlink_to(file)
        read = ConfigFile(named)
        read.load()
        reloader = Reloader(guard, read)
    with reloader.running(watch=True):
        for name in ("one", "two"):
            file.write_text(REFUSE.replace("none", name), encoding="utf-8")
            until(lambda name=name: guard.config.policy.rules[0].name == name)
        write(file, FORWARD)
        until(lambda: guard.config.policy.rules[0].name == "all")
        file.unlink()
        write(file, REFUSE)
        until(lambda: guard.config.policy.rules[0].name == "none")


def test_the_watch_goes_on_after_whatever_a_reload_raises(file, monkeypatch, caplog):
    guard, reloader = guarding(file)
    take, raised = guard.reload, threading.Event()

    def breaks(config):
        if config.policy.rules[0].name == "none":
            raised.set()
            raise KeyError("canary")
        return take(config)

    monkeypatch.setattr(guard, "reload", breaks)
    with reloader.running(watch=True):
        write(file, REFUSE)
        assert raised.wait(30)
        write(file, FORWARD.replace("all", "next"))
        until(lambda: guard.config.policy.rules[0].name == "next")
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "not taken over" in said.getMessage()
    assert "canary" not in TextFormatter().format(said)
    assert "KeyError" in TextFormatter().format(said)


def test_trusted_users_are_a_warning_at_the_start_and_at_each_reload(file, caplog):
    _, reloader = guarding(file)
    with reloader.running(watch=False):
        pass
    assert "trusted_roles" not in caplog.text
    write(file, "conversation: {trusted_roles: [system, user]}")
    assert reloader.reload()
    assert caplog.text.count("conversation.trusted_roles has `user`") == 1
    with reloader.running(watch=False):
        pass
    assert caplog.text.count("conversation.trusted_roles has `user`") == 2
    with reloader.running(watch=False, warn=False):
        pass
    assert caplog.text.count("conversation.trusted_roles has `user`") == 2


def test_a_file_that_changed_while_the_models_loaded_is_taken_over(file):
    guard, reloader = guarding(file)
    write(file, REFUSE)
    with reloader.running(watch=True):
        until(lambda: guard.config.policy.rules[0].name == "none")


def test_a_file_that_is_being_written_is_waited_for(file):
    guard, reloader = guarding(file)
    whole = "policy:\n  rules:\n  - {name: one, when: {tier: unsafe}, route: refuse}\n  - {name: two, route: forward}\n"
    reading = threading.Thread(target=reloader.reload)
    with file.open("w", encoding="utf-8") as open_file:
        reading.start()
        for line in whole.splitlines(keepends=True):
            open_file.write(line)
            open_file.flush()
            threading.Event().wait(0.05)
    reading.join(30)
    assert [rule.name for rule in guard.config.policy.rules] == ["one", "two"]


def test_what_is_written_in_the_moment_of_reading_is_taken_over_at_the_next_look(file, monkeypatch):
    write(file, FORWARD)
    read = ConfigFile(file)
    load = read.load

    def late():
        write(file, REFUSE)
        return load()

    monkeypatch.setattr(read, "load", late)
    with pytest.raises(ConfigError, match="is being written"):
        read.load_again()
    assert read.is_other
    monkeypatch.setattr(read, "load", load)
    assert read.load_again().policy.rules[0].name == "none"
    assert not read.is_other


def test_a_category_is_looked_up_where_the_taxonomy_is_known():
    settings = {"policy.rules": [{"name": "a", "route": "refuse", "when": {"category": "u_nothing"}}]}
    with pytest.raises(ConfigError, match="u_nothing"):
        make_guard(settings, taxonomy=Taxonomy("few", TAXONOMY.categories[:3]))
    assert make_guard(settings).config == load_config(None, settings)


def until(holds):
    """Wait for something that happens elsewhere."""
    for _ in range(600):
        if holds():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen within 30 s")


def test_where_a_request_comes_from_decides():
    rules = [
        {"name": "team", "when": {"tenant": "team-*", "tier": "safe"}, "route": "ground"},
        {"name": "big", "when": {"model": ["gpt-4*", "o?"]}, "route": "hand_over"},
        {"name": "wire", "when": {"endpoint": "messages"}, "route": "refuse"},
        {"name": "rest", "route": "forward"},
    ]
    guard = make_guard({"policy.rules": rules})
    found = [
        decided(guard, "hi", Origin(*origin)).rule
        for origin in [("team-a", "gpt-4", "chat"), (None, "o3", "chat"), ("x", "m", "messages"), ("x", "m", "chat")]
    ]
    assert found == ["team", "big", "wire", "rest"]
    result = asyncio.run(exchange(GuardMiddleware(Upstream(), guard), {**asking("hi"), "model": "GPT-4o"}))
    assert result.json["airlock"]["rule"] == "big", "the middleware says which model is asked for"


SHADOWS = {
    "policy.rules": [
        {"name": "strict", "mode": "shadow", "when": {"tier": ["unsafe", "safe"]}, "route": "refuse"},
        {"name": "page", "mode": "shadow", "when": {"text": "tool_result"}, "route": "hand_over"},
        {"name": "mild", "mode": "shadow", "when": {"tier": "conditionally_safe"}, "route": "forward"},
        {"name": "gone", "mode": "off", "route": "refuse"},
        {"name": "all", "route": "forward"},
        {"name": "late", "mode": "shadow", "route": "refuse"},
    ]
}


@pytest.mark.parametrize(
    ("turns", "shadow"),
    [
        ([("user", "hi")], ["strict"]),
        ([("user", "the election")], []),
        ([("user", "my medicine")], ["mild"]),
        ([("user", "the election"), ("tool", "the election"), ("user", "the election")], ["page"]),
        # An earlier turn has a say by a shadow that refuses, and none by a mild one.
        ([("user", "hi"), ("assistant", "Hello."), ("user", "the election")], ["strict"]),
        ([("user", "my medicine"), ("assistant", "Hello."), ("user", "the election")], []),
        ([("user", "hi"), ("assistant", "Hello."), ("user", "my medicine")], ["mild", "strict"]),
    ],
)
def test_shadow_rules_are_written_down_and_change_nothing(turns, shadow):
    journal = MemoryJournal()
    guard = make_guard(SHADOWS, journal=journal)
    conversation = [Turn(role, text) for role, text in turns]
    decision, reply = asyncio.run(guard.admit(conversation))
    assert (decision.route, decision.rule, reply) == (Route.FORWARD, "all", None)
    assert [each.rule for each in decision.shadow] == shadow
    assert journal.decisions[0][0].as_dict()["shadow"] == [
        {"rule": each.rule, "route": each.route.value} for each in decision.shadow
    ]


LOADING = """
import os, pathlib, signal, sys
from guard import assemble
from guard.listening import listen
from guard.reload import ConfigFile
from guard.serving import run_gateway

path = pathlib.Path(sys.argv[1])
file = ConfigFile(path, {})
config = file.load()
load_guard = assemble.load_guard

def load(*arguments):
    path.write_text(path.read_text().replace("forward", "refuse"))
    os.kill(os.getpid(), signal.SIGHUP)
    return load_guard(*arguments)

def started(guard, metrics):
    print(guard.config.policy.rules[0].route.value)
    os.kill(os.getpid(), signal.SIGTERM)

assemble.load_guard = load
run_gateway(config, file, listen(config), started)
"""


def test_a_hang_up_while_it_loads_ends_no_server_and_is_heard_before_it_serves(file):
    write(
        file,
        FORWARD
        + """
server: {port: 0, watch: false}
classifier: {kind: none}
knowledge: {kind: none}
output: {classifier: false}
journal: {path: journal.db}
""",
    )
    command = [sys.executable, "-c", LOADING, str(file)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=file.parent)
    assert (said.returncode, said.stdout) == (0, "refuse\n"), said.stderr
