"""What commands print for people, and how they fail; no model is loaded."""

import asyncio
import errno
import getpass
import json
import os
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

import guard.assemble
from guard.cli import app, doctor, ground, knowledge
from guard.cli.options import shown
from guard.config import load_config
from guard.types import Decision, Origin, Route
from rag.grounding import check_answer
from rag.sync import Event, Happened
from rag.types import GroundedAnswer, Premise
from tests.doubles import Library
from tests.journals import open_journal

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
    assert "tea\N{REPLACEMENT CHARACTER}]0;x" in said
    assert not {"\x1b", "\x07"} & set(said)


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
