"""Replay, exports and the command line of the journal."""

import asyncio
import csv
import getpass
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.cli.journal import app
from guard.config import load_config
from guard.errors import AirlockError, BadRequest, JournalError
from guard.journal.content import decision_content, judgements
from guard.journal.export import export, moment
from guard.journal.records import Kind, Record, canonical
from guard.journal.replay import replay
from guard.types import Decision, Finding, Judgement, Origin, Route, TextKind, Turn
from tests.doubles import Flaky, WordClassifier, make_guard, returns, verdict
from tests.journals import open_journal, records, write

STRICT = [
    {"name": "no_medicine", "when": {"category": "c_medical"}, "route": "refuse"},
    {"name": "unsafe", "when": {"tier": "unsafe"}, "route": "refuse"},
    {"name": "all", "route": "forward"},
]


def conversation(*texts):
    return [Turn("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(texts)]


def admitted(told, *conversations, **parts):
    """The records of what a gateway decided."""
    guard = make_guard(told, **parts)
    decisions = [asyncio.run(guard.admit(turns))[0] for turns in conversations]
    return [as_record(n, decision) for n, decision in enumerate(decisions, 1)]


def as_record(n, decision):
    content = decision_content(decision) | {"prompt": None, "prompts": "off"}
    return Record(n, float(n), "decision", decision.id, canonical(content), "", "")


WORDS = st.sampled_from(["hi", "a bomb", "medicine", "despair", "nothing of medicine", "politics"])


@settings(max_examples=8)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=3, max_size=12))
def test_the_same_policy_decides_the_same(texts):
    found = admitted(None, *(conversation(*each) for each in texts))
    result = replay(found, load_config(None))
    assert (result.decisions, result.changed, result.changes) == (len(texts), 0, [])
    assert result.replayed + sum(result.left_out.values()) == len(texts)


def test_another_policy_says_what_would_change():
    said = ["medicine", "hi", "a bomb", "medicine and more"]
    found = admitted(None, *(conversation(each) for each in said))
    result = replay(found, load_config(None, {"policy.rules": STRICT}))
    assert (result.replayed, result.changed, result.rerouted) == (4, 3, 2)
    changed = {(each.before.rule, each.after.rule): each for each in result.changes}
    medicine = changed["sensitive_ground", "no_medicine"]
    assert (medicine.before.route, medicine.after.route, medicine.count) == ("ground", "refuse", 2)
    assert medicine.examples == [found[0].decision, found[3].decision]
    assert changed["safe", "all"].count == 1
    assert sum(each["count"] for each in result.as_dict()["changes"]) == 3


def test_what_was_unsure_is_replayed_as_such():
    unsure = replace(verdict(), sure=False)
    guard = make_guard(classifier=Flaky(WordClassifier(), returns([unsure])))
    found = as_record(1, asyncio.run(guard.admit(conversation("hi")))[0])
    assert json.loads(found.payload)["sure"] is False
    assert replay([found], load_config(None)).changed == 0
    lax = [{"name": "lax", "when": {"sure": False}, "route": "forward"}]
    (change,) = replay([found], load_config(None, {"policy.rules": lax})).changes
    assert (change.before.rule, change.after.rule) == ("unsure", "lax")
    (change,) = replay([found], load_config(None, {"policy.rules": [{"name": "all", "route": "forward"}]})).changes
    assert change.after.rule == "no_rule_matched"


def test_what_followed_a_ruling_is_no_change_of_policy():
    found = admitted({"policy.on_abstain": "refuse"}, conversation("medicine, nothing of it"))
    assert json.loads(found[0].payload)["route"] == "refuse"
    assert replay(found, load_config(None)).changed == 0


def test_what_the_policy_did_not_decide_is_left_out():
    finding = Finding("pattern")
    refused = Decision(Route.REFUSE, finding.rule, verdict(), "assistant_turn")
    failed = Decision(Route.REFUSE, "on_error", verdict(), "last_turn", cause="output: x")
    found = [refused, failed, Decision(Route.FORWARD, "open_path"), Decision(Route.FORWARD, "safe", verdict())]
    found += [Decision(Route.REFUSE, "invalid_request", cause="invalid_json")]  # no part's fault
    result = replay([as_record(n, each) for n, each in enumerate(found, 1)], load_config(None))
    assert (result.decisions, result.replayed) == (5, 0)
    assert result.left_out == {
        "an assistant's turn was refused": 1,
        "a part failed": 1,
        "no text was judged": 2,
        "written before verdicts were kept": 1,
    }


def test_no_answer_in_words_is_grounded_in_either_policy():
    told = {"policy.rules": [{"name": "all", "route": "forward", "ground_answer": "annotate"}]}
    guard = make_guard(told)
    kinds = (("embeddings", False), ("chat", True))
    decisions = [
        asyncio.run(guard.admit(conversation("hi"), Origin(endpoint=endpoint), answers=answers))[0]
        for endpoint, answers in kinds
    ]
    assert [decision.ground_answer for decision in decisions] == ["off", "annotate"]
    found = [as_record(n, each) for n, each in enumerate(decisions, 1)]
    assert replay(found, load_config(None, told)).changed == 0
    (change,) = replay(found, load_config(None, {"policy.rules": [{"name": "all", "route": "forward"}]})).changes
    assert change.examples == [decisions[1].id]


def test_earlier_turns_are_replayed_too():
    rules = [
        {"name": "sick", "when": {"text": "earlier_turn", "category": "c_medical"}, "route": "refuse"},
        *STRICT[1:],
    ]
    found = admitted(None, conversation("medicine", "ok", "hi"))
    (change,) = replay(found, load_config(None, {"policy.rules": rules})).changes
    assert (change.before.route, change.after.route, change.after.rule) == ("forward", "refuse", "sick")


@given(
    st.lists(
        st.tuples(st.sampled_from(TextKind), st.sampled_from(Tier), st.sampled_from(Handling), st.floats(0, 1)),
        max_size=70,
    )
)
def test_verdicts_come_back_and_a_long_conversation_keeps_the_weightiest(found):
    judged = tuple(
        Judgement(
            where,
            Verdict(tier, "s_x", handling, dict.fromkeys(Tier, share), share, Span(0, 1), Coverage(1, 1, share), "m"),
        )
        for where, tier, handling, share in found
    )
    content = json.loads(canonical(decision_content(Decision(Route.FORWARD, "safe", judgements=judged))))
    back = judgements(content)
    assert len(back) + content["texts_left_out"] == len(judged)
    assert len(back) == min(50, len(judged))
    if len(judged) <= 50:
        assert [(each.where, each.verdict.tier, each.verdict.handling) for each in back] == [each[:3] for each in found]
        assert all(
            abs(each.verdict.coverage.read - share) < 1e-8 for each, (*_, share) in zip(back, found, strict=True)
        )
    lasts = [each for each in judged if each.where is TextKind.LAST_TURN]
    assert sum(each.where is TextKind.LAST_TURN for each in back) == min(50, len(lasts))


def test_a_record_that_cannot_be_read_is_named():
    (found,) = admitted(None, conversation("hi"))
    content = json.loads(found.payload)
    content["texts"][0]["tier"] = "mauve"
    damaged = Record(7, 1.0, "decision", found.decision, canonical(content), "", "")
    with pytest.raises(JournalError, match="record 7 cannot be replayed"):
        replay([damaged], load_config(None))


NOW = datetime(2026, 5, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        ("2026-05-01T10:00:00+02:00", datetime(2026, 5, 1, 8, tzinfo=UTC)),
        ("7d", datetime(2026, 5, 1, tzinfo=UTC)),
        ("12h", datetime(2026, 5, 7, 12, tzinfo=UTC)),
        ("1w", datetime(2026, 5, 1, tzinfo=UTC)),
    ],
)
def test_moments(text, found):
    assert moment(text, "--since", NOW) == found.timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "7", "d", "999999w", "2026-13-01"])
def test_moments_that_are_none(text):
    with pytest.raises(BadRequest, match="--since"):
        moment(text, "--since", NOW)


@pytest.mark.parametrize(
    "prompt",
    ['=cmd|" /C calc"!A0', "+1", "-1", "@SUM(A1)", "two\nlines, and a comma", 'a "quote"', "hi\r=1+1", "\r=1+1"],
)
def test_a_table_is_read_back_and_runs_no_formula(prompt):
    content = {"route": "forward", "rule": "safe", "prompt": prompt, "tiers": {}}
    record = Record(1, 2.5, "decision", "dec_1", canonical(content), "p", "h")
    (row,) = csv.DictReader(io.StringIO("".join(export([record], "csv")), newline=""))
    assert (row["seq"], row["time"], row["route"], row["hash"]) == ("1", "2.5", "forward", "h")
    assert row["prompt"].removeprefix("'") == prompt
    assert row["prompt"][0] not in "=+-@"


@pytest.fixture
def airlock(tmp_path, monkeypatch):
    """The command line in a folder with a journal of three decisions, the second of them handed over."""
    monkeypatch.chdir(tmp_path)
    told = {"journal": {"path": "j.db", "prompts": "redacted"}}
    (tmp_path / "airlock.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    guard = make_guard(journal=open_journal(tmp_path / "j.db", prompts="redacted"))
    for text in ("hi", "despair, call me at 020 7946 0958", "a bomb"):
        asyncio.run(guard.admit(conversation(text)))
    guard.close()

    def run(*words, status=0):
        ended = CliRunner().invoke(app, [*words, "-c", "airlock.yaml"])
        if isinstance(ended.exception, AirlockError):
            assert status == 1
            return str(ended.exception)
        assert ended.exit_code == status, ended.output
        return json.loads(ended.stdout) if "--json" in words else ended.stdout

    return run


def test_verify_says_what_it_found(airlock, tmp_path):
    said = airlock("verify", "--json")
    assert (said["sound"], said["records"], said["head"][:9]) == (True, 3, "3:sha256:")
    assert "the chain holds: 3 records; head 3:sha256:" in airlock("verify", "--head", said["head"])
    assert "not the one of --head" in airlock("verify", "--head", "2:sha256:00", status=1)
    later = airlock("verify", "--head", "9:sha256:00", "--json", status=1)
    assert later["shown"] == ["--head names record 9, the last one is 3: the end is missing"]


def test_export(airlock):
    rows = [json.loads(line) for line in airlock("export").splitlines() if line.startswith("{")]
    assert [row["payload"]["route"] for row in rows] == ["forward", "hand_over", "refuse"]
    assert airlock("export", "--until", "1d") == ""
    assert len(airlock("export", "--since", "1d", "--format", "csv").splitlines()) >= 4
    assert "--since" in airlock("export", "--since", "then", status=1)


def test_replay_asks_another_configuration(airlock, tmp_path):
    assert airlock("replay", "--json")["changed"] == 0
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({"policy": {"rules": STRICT}}), encoding="utf-8")
    said = airlock("replay", "--policy", "new.yaml", "--since", "7d", "--json")
    assert (said["replayed"], said["rerouted"]) == (3, 1)
    assert "hand_over by person_in_distress -> forward by all, such as dec_" in airlock(
        "replay", "--policy", "new.yaml"
    )


def test_replay_refuses_a_policy_about_a_category_that_there_is_not(airlock, tmp_path):
    rules = [{"name": "typo", "when": {"category": "c_medicall"}, "route": "refuse"}, *STRICT]
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({"policy": {"rules": rules}}), encoding="utf-8")
    assert "'typo' names the category 'c_medicall'" in airlock("replay", "--policy", "new.yaml", status=1)


def test_a_stretch_of_time_that_ends_before_it_begins_is_refused(airlock):
    for command in ("export", "replay"):
        assert "--since 1d and --until 2d" in airlock(command, "--since", "1d", "--until", "2d", status=1)
        assert "--since" in airlock(command, "--since", "", status=1), "not set in a script: no reason to take all"


def test_prune_needs_to_know_how_old(airlock):
    assert "journal.retention_days" in airlock("prune", status=1)
    assert airlock("prune", "--days", "1", "--json") == {"records": 0, "through": 0, "unresolved": 0}
    assert airlock("prune", "--days", "0") == "3 records deleted, 1 of them requests that nobody resolved\n"
    assert airlock("verify", "--json")["pruned"] == 3


def test_review(airlock, tmp_path):
    (waiting,) = airlock("review", "list", "--json")["reviews"]
    decision = waiting["decision"]
    assert waiting["record"]["prompt"] == "despair, call me at [phone]"
    assert "text (redacted): despair, call me at [phone]" in airlock("review", "show", decision)
    assert "claim it first" in airlock("review", "resolve", decision, "--note", "x", status=1)
    assert airlock("review", "claim", decision, "--by", " ", "--json")["by"] == getpass.getuser()
    said = airlock("review", "claim", decision, "--by", "ann ", "--take-over", "--json")
    assert (said["state"], said["by"]) == ("claimed", "ann")
    said = airlock("review", "resolve", decision, "--by", "ann", "--note", "called back", "--json")
    assert [step["state"] for step in said["steps"]] == ["claimed", "claimed", "resolved"]
    assert airlock("review", "list") == "nothing waits\n"
    assert "resolved by ann" in airlock("review", "list", "--all")
    assert "resolved by ann: called back" in airlock("review", "show", decision)
    assert [record.kind for record in records(tmp_path / "j.db")][-2:] == [Kind.REVIEW, Kind.REVIEW]
    assert airlock("verify", "--json")["sound"]


def test_without_a_journal_the_commands_say_so(airlock, tmp_path):
    (tmp_path / "airlock.yaml").write_text("journal: {path: null}", encoding="utf-8")
    assert "there is no journal" in airlock("verify", status=1)
    (tmp_path / "airlock.yaml").write_text("journal: {path: none.db}", encoding="utf-8")
    for command in (["verify"], ["prune", "--days", "1"], ["review", "claim", "dec_1"]):
        assert "`airlock serve` makes it" in airlock(*command, status=1)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "none.db").touch()
    assert "is no journal" in airlock("prune", "--days", "1", status=1)
    assert (tmp_path / "none.db").stat().st_size == 0


def test_what_is_written_is_replayed_from_a_real_journal(tmp_path):
    path = tmp_path / "j.db"
    guard = make_guard(journal=open_journal(path))
    decision, _ = asyncio.run(guard.admit(conversation("medicine")))
    guard.close()
    write(journal := open_journal(path), Decision(Route.FORWARD, "open_path"))
    journal.close()
    result = replay(records(path, "decision"), load_config(None, {"policy.rules": STRICT}))
    assert [change.examples for change in result.changes] == [[decision.id]]
    assert result.left_out == {"no text was judged": 1}
