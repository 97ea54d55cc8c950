"""What commands print for people, and how they fail; no model is loaded."""

import asyncio
import errno
import getpass
import json
import os
import re
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml
from typer.testing import CliRunner

import guard.assemble
import guard.assemble_classifier
import guard.assemble_knowledge
from classifier.types import ClassifierError
from guard import endpoints
from guard.cli import app, check, doctor, ground, knowledge, main, model_checks
from guard.cli.options import shown
from guard.config import load_config
from guard.errors import BadRequest
from guard.types import Decision, Origin, Route
from guard.wires import BY_ENDPOINT
from rag.grounding import check_answer
from rag.sync import Event, Happened
from rag.types import Document, Evidence, GroundedAnswer, Passage, Premise
from rag.write import Writer
from tests.doubles import Library, make_guard, verdict
from tests.journals import open_journal
from tests.unit.rag_cases import HashedWords, document

STEERS = "\x1b]0;owned\x07\u202e\r"


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def steers_nothing(text):
    assert "U+001B" in text  # negative control: it is there
    return not set(STEERS[0] + "\x07\u202e\r") & set(text)


@pytest.fixture
def handed_over(tmp_path):
    """A journal with a request that waits, whose words steer a terminal; its configuration and the decision."""
    config = tmp_path / "airlock.yaml"
    config.write_text("journal: {path: j.db, prompts: full}")
    journal = open_journal(tmp_path / "j.db", prompts="full")
    decision = Decision(Route.HAND_OVER, "person_in_distress", origin=Origin("acme", f"gpt{STEERS}", "chat"))
    asyncio.run(journal.decided(decision, f"first line\nhelp {STEERS} me"))
    journal.close()
    return config, decision.id


def test_a_review_steers_no_terminal(handed_over):
    config, decision = handed_over
    assert run("journal", "review", "claim", decision, "--by", f"ann{STEERS}", "-c", config).exit_code == 0
    for command in (("show", decision), ("list",)):
        assert steers_nothing(run("journal", "review", *command, "-c", config).stdout)
    done = run(
        "journal", "review", "resolve", decision, "--by", f"ann{STEERS}", "--note", f"called{STEERS}\n2", "-c", config
    )
    assert steers_nothing(done.stdout)
    said = run("journal", "review", "show", decision, "-c", config).stdout
    assert steers_nothing(said)
    assert said.count("U+001B") == 6, "who has it, the model asked for, the prompt, who did each step, and the note"
    assert "text (full): first line\nhelp " in said
    assert said.splitlines()[-1].endswith(" 2"), "a note makes no line of its own"
    row = json.loads(run("journal", "review", "show", decision, "--json", "-c", config).stdout)
    assert STEERS in row["record"]["prompt"], "programs get it as it is"


def test_what_is_shown_keeps_its_lines_and_its_letters():
    assert shown("a\r\nb\tc \u200d e") == "a\nb\tc \u200d e"
    assert shown("a\rb\x1b") == "a⟨U+000D⟩b⟨U+001B⟩"


def test_an_answer_steers_no_terminal(monkeypatch):
    citation = replace(Library().answer("x").citations[0], document=f"d{STEERS}", title=f"t{STEERS}")
    answer = GroundedAnswer(
        f"said{STEERS}\nmore", False, (citation,), premises=(Premise(f"claim{STEERS}", "number", citation),)
    )

    class Answers:
        async def ask(self, question):
            return answer

        def close(self):
            pass

    monkeypatch.setattr(guard.assemble, "load_guard", lambda config: Answers())
    said = run("ask", "hi").stdout
    assert steers_nothing(said)
    assert "\nmore\n" in said
    assert said.count("U+001B") == 4


def test_a_grounding_report_steers_no_terminal(capsys):
    sentence = f"The library opens at nine{STEERS} on weekdays."
    ground._show(check_answer(sentence, [sentence]))
    said = capsys.readouterr().out
    assert steers_nothing(said)
    assert said.count("U+001B") >= 3


def test_the_name_of_a_file_steers_no_terminal(capsys):
    knowledge._say([Event(Happened.ADDED, "tea\x1b]0;x\x07"), Event(Happened.FAILED, "a\x1b", "b\x1b")], as_json=False)
    said = "".join(capsys.readouterr())
    assert "tea⟨U+001B⟩]0;x⟨U+0007⟩" in said
    assert not {"\x1b", "\x07"} & set(said)


def test_what_a_knowledge_base_holds_steers_no_terminal(monkeypatch):
    hidden = f"{STEERS}\u2066\u200b"
    document = Document(f"d{hidden}", "v" * 12, f"t{hidden}", f"one{hidden}\ntwo", {"by": f"ann{hidden}\ntitle: b"})

    class Base:
        manifest = SimpleNamespace(documents=1, passages=1)

        def view(self):
            return nullcontext(self)

        def document(self, *_):
            return document

        def documents(self):
            return [document]

        def versions(self, _):
            return [document.version]

        def verify(self):
            return [f"passage {hidden} is wrong"]

        def search(self, *_, **__):
            return [Evidence(Passage(f"d{hidden}#0", document.id, "v", 0, 3, document.text), 0.5)]

    monkeypatch.setattr(knowledge, "_open", lambda *_, **__: (load_config(), Base()))
    for command, count in (("show", 4), ("verify", 1), ("search", 2)):
        said = run("kb", command, *([] if command == "verify" else ["d"])).stdout
        assert steers_nothing(said)
        assert not {"\u2066", "\u200b"} & set(said)
        assert said.count("U+202E") == count
    listed = run("kb", "show").stdout
    assert steers_nothing(listed)
    assert listed.count("U+202E") == 2
    assert "⟨U+200B⟩\ntwo" in run("kb", "show", "d").stdout, "a text keeps its lines"
    assert "\ntitle: b" not in run("kb", "show", "d").stdout, "metadata makes none of its own"


def test_an_old_version_is_known_by_how_it_begins(monkeypatch):
    versions = {"ab12cd": "first", "ab34ef": "second"}

    class Base:
        def view(self):
            return nullcontext(self)

        def document(self, identifier, version=None):
            return Document(identifier, "t", versions[version or "ab34ef"], {}, version or "ab34ef")

        def versions(self, _):
            return list(versions)

    monkeypatch.setattr(knowledge, "_open", lambda *_, **__: (load_config(), Base()))
    assert run("kb", "show", "d", "--version", "ab1").stdout.endswith("first\n")
    assert run("kb", "show", "d", "--version", "ab34ef").stdout.endswith("second\n")
    both = run("kb", "show", "d", "--version", "ab")
    assert both.exit_code
    for said in ("--version ab", "ab12cd", "ab34ef"):
        assert said in both.output


def test_an_error_steers_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["airlock", "config", "show", "-c", f"no{STEERS}.yaml"])
    with pytest.raises(SystemExit):
        main()
    assert steers_nothing(capsys.readouterr().err)


def test_what_config_show_prints_means_the_same_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.yaml").write_text("journal: {path: j.db}")
    for arguments, journal in ((("-c", "conf/a.yaml"), "conf/j.db"), ((), "airlock.db")):
        said = run("config", "show", *arguments).stdout
        assert yaml.safe_load(said)["journal"]["path"] == str(tmp_path / journal)
        (tmp_path / "conf/b.yaml").write_text(said)
        assert load_config(tmp_path / "conf/b.yaml").journal.path == tmp_path / journal
        assert run("config", "show", "-c", "conf/b.yaml").stdout == said
    assert str(tmp_path / "airlock.db") in run("config", "show", "--origins").stdout


def test_config_check_warns_of_trusted_users(tmp_path):
    path = tmp_path / "airlock.yaml"
    path.write_text(
        "conversation: {trusted_roles: [user]}\nclassifier: {kind: none}\nknowledge: {kind: none}\n"
        "output: {classifier: false}\npolicy: {rules: [{name: all, route: refuse}]}"
    )
    ran = run("config", "check", path)
    assert ran.exit_code == 0, ran.output
    assert "warning: conversation.trusted_roles has `user`" in ran.stderr


def test_a_text_that_is_never_said_and_a_rule_that_is_not_there_are_named(tmp_path):
    policy = "policy: {rules: [{name: unsafe, when: {tier: unsafe}, route: refuse, say: No.}, "
    policy += "{name: quiet, mode: off, route: forward, say: Never.}, {name: rest, route: forward, say: Hello.}]}"
    path, cases = tmp_path / "airlock.yaml", tmp_path / "cases.yaml"
    path.write_text(f"journal: {{path: null}}\nknowledge: {{kind: none}}\noutput: {{classifier: false}}\n{policy}")
    cases.write_text(
        "cases: [{name: odd, tier: unsafe, expect: {rule: unsfe}}, {tier: safe, expect: {rule: rest}},\n"
        "{name: shade, tier: safe, expect: {shadow: zzz}}, {name: gone, tier: safe, expect: {rule: quiet}}]"
    )
    said = run("policy", "test", cases, "-c", path)
    assert said.exit_code == 1
    unsaid, unknown, shadow = said.stderr.splitlines()
    assert unsaid.startswith("warning: rule 'rest' has `say` and `route: forward`")
    assert unknown == "warning: odd: the policy has no rule 'unsfe'; did you mean 'unsafe'?"
    assert shadow.startswith("warning: shade: the policy has no rule 'zzz'; it has: unsafe, quiet, rest, ")
    rules_only = path.read_text().replace("tier: unsafe", "endpoint: chat")
    path.write_text(f"classifier: {{kind: none}}\n{rules_only}")
    assert unsaid in run("config", "check", path).stderr.splitlines()


def test_config_check_and_doctor_warn_of_rates_that_each_worker_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_steps", lambda settings: [])  # which ask the upstream
    path = tmp_path / "airlock.yaml"
    path.write_text(
        f"{RULES_ONLY}, server: {{workers: 2, port: 0}}, limits: {{total: {{requests: 8/minute}}}}, "
        "journal: {path: null}}"
    )
    assert "warning: server.workers = 2 and limits.redis_env is not set" in run("config", "check", path).stderr
    said = json.loads(run("doctor", "-c", path, "--json").stdout)["parts"][0]
    assert said["well"]
    assert "server.workers = 2 and limits.redis_env" in said["says"]


RULES_ONLY = (
    "{classifier: {kind: none}, knowledge: {kind: none}, output: {classifier: false}, "
    "policy: {rules: [{name: all, route: refuse}]}"
)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("journal: {key_env: NOT_SET_KEY}", "journal.key_env = NOT_SET_KEY"),
        ("journal: {prompts: hashed, prompt_key_env: NOT_SET_KEY}", "journal.prompt_key_env = NOT_SET_KEY"),
        ("journal: {path: .}", "name another file"),
        ("journal: {path: airlock.yaml/j.db}", "name another file"),
        ("journal: {path: %s}" % ("j" * 300), os.strerror(errno.ENAMETOOLONG)),
        ("server: {tls: {certificate: no.pem, key: no.pem}}", "server.tls.certificate"),
        ("access: {keys: no.yaml}, upstream: {api_key_env: HOME}", "airlock keys new"),
        ("server: {socket: no/a.sock}", "server.socket = "),
        ("server: {socket: %s}" % ("s" * 120), "choose a shorter path"),
    ],
)
def test_config_check_looks_for_the_keys_and_files_of_a_server(tmp_path, section, said):
    path = tmp_path / "airlock.yaml"
    path.write_text(f"{RULES_ONLY}, {section}}}")
    ran = run("config", "check", path)
    assert (ran.exit_code, said in str(ran.exception)) == (1, True), (ran.output, ran.exception)


@pytest.mark.parametrize(
    "section",
    [
        "journal: {key_env: A_KEY, path: new/j.db}",
        "journal: {path: null, key_env: NOT_SET_KEY}",
        "journal: {url: 'postgresql://nobody@127.0.0.1:9/none'}",  # no server is asked
        "access: {keys: keys.yaml}, upstream: {api_key_env: HOME}",
        "server: {socket: a.sock}",
    ],
)
def test_config_check_finds_them_and_makes_nothing(tmp_path, section, monkeypatch):
    monkeypatch.setenv("A_KEY", "k" * 20)
    path = tmp_path / "airlock.yaml"
    path.write_text(f"{RULES_ONLY}, {section}}}")
    (tmp_path / "keys.yaml").write_text("keys: []")
    ran = run("config", "check", path)
    assert ran.exit_code == 0, (ran.output, ran.exception)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["airlock.yaml", "keys.yaml"]


def test_doctor_says_that_a_configuration_is_not_well(tmp_path):
    path = tmp_path / "airlock.yaml"
    for text in (None, "a: [", "journal: {prompts: maybe}"):
        if text:
            path.write_text(text)
        ran = run("doctor", "-c", path, "--json")
        said = json.loads(ran.stdout)
        assert (ran.exit_code, said["well"], len(said["parts"])) == (1, False, 1)
        assert (said["parts"][0]["part"], said["parts"][0]["well"]) == ("configuration", False)
        assert str(path) in said["parts"][0]["says"] or "journal.prompts" in said["parts"][0]["says"]
        ran = run("doctor", "-c", path)
        assert (ran.exit_code, ran.stdout.startswith("FAIL  configuration")) == (1, True)


@pytest.mark.parametrize(
    ("where", "expires", "says"),
    [
        ({}, "9999-12-31", "2 documents, 2 passages, all sound"),
        ({}, "2020-01-31", "2 documents, 2 passages, all sound; 1 of the documents are expired, without"),
        ({"trust": ["high"]}, "9999-12-31", "2 documents, 2 passages, all sound; 1 of the documents are expired, "),
        ({"trust": ["high"]}, "2020-01-31", "all 2 documents are expired, without a sentence to quote, or without the"),
    ],
)
def test_doctor_says_how_many_documents_are_never_found(tmp_path, monkeypatch, where, expires, says):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[document("tea", "Tea is hot.", trust="high", expires=expires), document("ice", "Ice.")])
    for part in ("load_sentences", "load_search"):
        monkeypatch.setattr(guard.assemble_knowledge, part, lambda *_: HashedWords())
    settings = load_config(None, {"knowledge.path": str(tmp_path / "kb"), "knowledge.where": where})
    row = doctor._try("knowledge base", lambda: model_checks.check_knowledge(settings, None))
    assert row["says"].startswith(says)
    assert row["well"] is says.startswith("2 ")
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[document("table", "| a | b |\n|---|---|\n| 1 | 2 |")], remove=["tea", "ice"])
    row = doctor._try("knowledge base", lambda: model_checks.check_knowledge(settings, None))
    assert not row["well"], "nothing finds it"


def test_a_text_is_checked_as_of_a_tenant_a_model_and_an_endpoint(monkeypatch):
    when = {"tenant": "kiosk-*", "model": "gpt-4*", "endpoint": "embeddings"}
    rules = [{"name": "kiosk", "when": when, "route": "refuse"}, {"name": "all", "route": "forward"}]
    monkeypatch.setattr(guard.assemble, "load_guard", lambda _: make_guard({"policy.rules": rules}))
    origin = ("--tenant", "kiosk-7", "--model", "gpt-4o", "--endpoint", "embeddings")
    for words, route in ((origin, "refuse by rule kiosk"), (origin[2:], "forward by rule all")):
        done = run("check", "hello", *words)
        assert done.stdout.startswith(route), (done.output, done.exception)
    assert "--endpoint chatt: need one of chat, completions" in run("check", "hello", "--endpoint", "chatt").output


def test_doctor_asks_each_of_several_classifiers(monkeypatch):
    def judge(name, runtime):
        said = replace(verdict(), model=name)
        return SimpleNamespace(classify=lambda _: [said], runtime=SimpleNamespace(name=runtime))

    other = judge("shop@1", "onnx-fp32")
    monkeypatch.setattr(guard.assemble_classifier, "load_judge", lambda *_: judge("tiers@1", "torch-fp32"))
    monkeypatch.setattr(guard.assemble_classifier, "load_other", lambda *_: other)
    shop = {"model": "runs/shop", "when": {"model": "shop"}}
    settings = load_config(None, {"classifiers": {"counter": shop}, "classifier.languages": {}})
    said = model_checks.check_classifier(settings, None)
    assert said.endswith("for the requests of classifiers.counter: shop@1 on onnx-fp32 calls a harmless question safe")
    other.classify = Mock(side_effect=ClassifierError("logits that are no numbers"))
    assert not doctor._try("classifier", lambda: model_checks.check_classifier(settings, None))["well"]


def test_doctor_counts_the_keys_that_open(tmp_path):
    keys = tmp_path / "keys.yaml"
    config = load_config(None, {"access.keys": str(keys), "upstream.api_key_env": "HOME"})
    steps = dict(doctor._steps(config))
    assert not doctor._try("keys", steps["keys"])["well"]
    for tenant in ("ann", "bob"):
        made = json.loads(run("keys", "new", tenant, "--file", keys, "--json").stdout)
    run("keys", "revoke", made["id"], "--file", keys)
    assert doctor._try("keys", steps["keys"])["says"] == f"1 keys open in {keys}"
    assert "keys" not in dict(doctor._steps(load_config()))


@pytest.mark.parametrize("command", ["new", "rotate"])
def test_a_key_that_would_end_in_the_past_is_not_made(tmp_path, command):
    keys = tmp_path / "keys.yaml"
    made = json.loads(run("keys", "new", "ann", "--file", keys, "--expires", "1h", "--json").stdout)
    assert made["state"] == "valid"
    before, who = keys.read_bytes(), {"new": "ann", "rotate": made["id"]}[command]
    options = ["--expires", *(["--overlap"] if command == "rotate" else [])]
    for option in options:
        ran = run("keys", command, who, "--file", keys, option, "2020-01-01")
        assert (ran.exit_code, f"{option} '2020-01-01': is past" in str(ran.exception)) == (1, True)
    assert keys.read_bytes() == before
    assert run("keys", "rotate", made["id"], "--file", keys, "--overlap", "0h").exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--models", ""], r"--models '': need the name of a model, or a pattern such as gpt-\*"),
        (["--models", "gpt-*", "--models", " "], "--models '': need the name"),
        (["--endpoints", "foo"], "--endpoints 'foo': fits none of chat, .*, models, check, .*, openapi"),
        (["--endpoints", "chat", "--endpoints", ""], "--endpoints '': fits none of"),
        (["--endpoints", "chat,models"], "--endpoints 'chat,models': fits none of .*repeat the option"),
        (["--endpoints", "Chat"], "--endpoints 'Chat': fits none of"),
        (["--expires", "0h"], "--expires '0h': is past"),
        (["--expires", "0d"], "--expires '0d': is past"),
    ],
)
def test_a_key_that_would_open_nothing_is_not_made(tmp_path, options, said):
    keys = tmp_path / "keys.yaml"
    ran = run("keys", "new", "ann", "--file", keys, *options)
    assert ran.exit_code == 1
    assert re.search(said, str(ran.exception)), ran.exception
    assert not keys.exists()


def test_every_endpoint_can_be_given_to_a_key(tmp_path):
    names = {*BY_ENDPOINT, *map(endpoints.name_of, endpoints._NAMES), endpoints.OTHER}
    for pattern in (*names, "mod*", "*"):
        made = json.loads(run("keys", "new", "ann", "--file", tmp_path / "k", "--endpoints", pattern, "--json").stdout)
        assert (made["endpoints"], made["state"]) == ([pattern], "valid")


def test_a_key_stands_alone_on_standard_output(tmp_path):
    keys = tmp_path / "keys.yaml"
    for command in (("new", "acme"), ("rotate", "")):
        who = command[1] or json.loads(run("keys", "list", "--file", keys, "--json").stdout)["keys"][0]["id"]
        ran = run("keys", command[0], who, "--file", keys)
        assert re.fullmatch(r"airlock_[0-9a-f]{12}_[A-Za-z0-9_-]{43}\n", ran.stdout)
        assert "of acme; the key is shown this once" in ran.stderr
        assert ran.stdout.split("_", 2)[2].strip() not in ran.stderr


def test_a_key_is_revoked_once(tmp_path):
    keys = tmp_path / "keys.yaml"
    made = json.loads(run("keys", "new", "ann", "--file", keys, "--json").stdout)
    assert run("keys", "revoke", made["id"], "--file", keys).stdout.endswith(" of ann is revoked\n")
    text = re.sub("revoked: .*", "revoked: '2026-01-31T12:00:00Z'", keys.read_text())
    keys.write_text(text)
    again = run("keys", "revoke", made["id"], "--file", keys)
    assert (again.exit_code, again.stdout) == (
        0,
        f"{made['id']} of ann is revoked since 2026-01-31 12:00:00 UTC already\n",
    )
    assert keys.read_text() == text
    said = json.loads(run("keys", "revoke", made["id"], "--file", keys, "--json").stdout)
    assert (said["state"], said["revoked"]) == ("revoked", "2026-01-31T12:00:00Z")


def test_lines_of_standard_input_are_json_where_the_first_is(monkeypatch):
    def texts(given):
        monkeypatch.setattr(check, "read_text", lambda _: given)
        return check._from_argument("-")

    assert texts('{"text": "a"}\n\n{"text": "b"}\n') == ["a", "b"]
    assert texts('a\n{"text": "b"}\n') == ["a", '{"text": "b"}']
    assert texts('{"a": 1}\n{"text": "b"}') == ['{"a": 1}', '{"text": "b"}'], "no object with `text`: texts"
    for line, word in (("{broken", "not JSON"), ('{"txt": "b"}', "`text`"), ("plain", "not JSON")):
        with pytest.raises(BadRequest, match=rf"standard input, line 3: .*{word}"):
            texts(f'{{"text": "a"}}\n\n{line}\n')


def test_who_claims_is_asked_for_where_this_machine_has_no_name(handed_over, monkeypatch):
    config, decision = handed_over

    def nobody():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    for command in (("claim", decision), ("resolve", decision, "--note", "done")):
        ran = run("journal", "review", *command, "-c", config)
        assert "--by" in str(ran.exception)
        assert type(ran.exception).__name__ == "BadRequest"
    assert run("journal", "review", "claim", decision, "--by", "ann", "-c", config).exit_code == 0


def test_doctor_goes_on_where_the_system_refuses_a_path(tmp_path):
    config = load_config(None, {"journal.path": str(tmp_path / ("j" * 300))})
    row = doctor._try("journal", lambda: doctor._write_journal(config))
    assert (row["part"], row["well"]) == ("journal", False)
    assert os.strerror(errno.ENAMETOOLONG) in row["says"]
