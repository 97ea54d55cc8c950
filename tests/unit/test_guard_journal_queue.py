import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from classifier.settings import OperatingPoint
from classifier.taxonomy import Taxonomy
from classifier.types import Tier
from guard.cli.journal import app
from guard.errors import BadRequest
from guard.journal.queue import candidates, chosen, scored
from guard.journal.records import Record
from guard.types import Decision, Route
from tests.doubles import verdict
from tests.journals import open_journal, write
from training.datasets import TrainingError, read_rows

POINT = OperatingPoint(risk=0.5, unsafe=0.7)


def record(text, *, unsafe=0.0, safe=None, prompts="full", **more):
    safe = 1 - unsafe if safe is None else safe
    tiers = {"safe": safe, "conditionally_safe": 1 - safe - unsafe, "focused_attention": 0.0, "unsafe": unsafe}
    tier = "unsafe" if unsafe >= POINT.unsafe else "safe" if 1 - safe < POINT.risk else "conditionally_safe"
    said = {"tier": tier, "category": "c", "tiers": tiers, "prompt": text, "prompts": prompts, "judged": "last_turn"}
    return Record(1, 0.0, "decision", f"dec_{text}", json.dumps(said | more), "", "")


def apart(texts):
    """A vector for each first letter: texts that begin with the same one are the same."""
    vectors = np.zeros((len(texts), 256), np.float32)
    vectors[range(len(texts)), [ord(text[0]) for text in texts]] = 1.0
    return vectors


SENTENCES = SimpleNamespace(floor=0.0, encode=apart)


def order(*records, count=10, others=None):
    return chosen(scored(candidates(records), POINT, others), count, apart)


def test_the_least_sure_and_those_near_a_threshold_come_first():
    found = order(record("a", unsafe=0.01), record("b", unsafe=0.69), record("c", unsafe=0.99), record("d", safe=0.48))
    assert [each.text for each in found][:2] in (["b", "d"], ["d", "b"])
    reasons = {each.text: each.reasons for each in found}
    assert "near the threshold of unsafe" in reasons["b"]
    assert "near the threshold of risk" in reasons["d"]
    assert reasons["a"] == reasons["c"] == ()


def test_a_prompt_of_several_windows_is_near_the_thresholds_of_such_prompts():
    point = OperatingPoint(risk=0.5, unsafe=0.7, several=OperatingPoint(risk=0.8, unsafe=0.9))
    records = [record(text, unsafe=0.89, windows=windows) for text, windows in (("a", 1), ("b", 2), ("c", None))]
    near = {each.text: each.reasons for each in scored(candidates(records), point)}
    assert near == {"a": (), "b": ("near the threshold of unsafe",), "c": ()}


def test_a_prompt_is_near_the_thresholds_of_the_model_that_judged_it():
    records = [record("a", unsafe=0.61, model="english@1"), record("b", unsafe=0.61, model="default@1")]
    points = {"english": OperatingPoint(risk=0.3, unsafe=0.62)}
    near = {each.text: each.reasons for each in scored(candidates(records), OperatingPoint(0.4, 0.9), points=points)}
    assert near == {"a": ("near the threshold of unsafe",), "b": ()}


def test_what_two_models_dispute_comes_before_all_else():
    records = [record("a", unsafe=0.01), record("b", unsafe=0.69)]
    found = order(*records, others=[Tier.UNSAFE, Tier.CONDITIONALLY_SAFE])
    assert [each.text for each in found] == ["a", "b"]
    assert found[0].reasons == ("another model says unsafe",)


def test_no_two_are_alike_while_there_are_others():
    found = order(*(record(text, unsafe=0.69) for text in ("ab", "ac", "ad")), record("z", unsafe=0.3), count=2)
    assert [each.text[0] for each in found] == ["a", "z"]


def test_a_prompt_that_came_often_is_there_once_and_only_readable_ones_are():
    kept = candidates([record("a b", unsafe=0.1), record("x"), record("a  b", unsafe=0.2, decision="later")])
    assert [(each.text, each.tiers[Tier.UNSAFE]) for each in kept] == [("x", 0.0), ("a  b", 0.2)]
    assert candidates([record("sha256:0", prompts="hashed"), record(None, prompts="off"), record(" ")]) == []
    assert candidates([record("a", judged="earlier_turn"), record("b", tiers={}), record("c", tier="none")]) == []


def test_rows_are_ready_once_a_person_has_labelled_them(tmp_path):
    row = order(record("bread and butter", unsafe=0.69, language="de"))[0].as_row()
    taxonomy = Taxonomy.from_dict({"name": "t", "categories": {"s_food": {"tier": "safe", "definition": "Food."}}})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(TrainingError, match="category None"):
        read_rows(path, taxonomy)
    path.write_text(json.dumps(row | {"category": "s_food"}) + "\n")
    (read,) = read_rows(path, taxonomy)
    assert (read.text, read.lang, read.source) == ("bread and butter", "de", "journal")


def test_a_language_that_nobody_determined_is_not_english_to_training(tmp_path):
    taxonomy = Taxonomy.from_dict({"name": "t", "categories": {"s_food": {"tier": "safe", "definition": "Food."}}})
    path = tmp_path / "rows.jsonl"
    rows = [each.as_row() | {"category": "s_food"} for each in candidates([record("a"), record("b", language="en")])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.lang for row in read_rows(path, taxonomy)] == ["und", "en"]


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "airlock.yaml").write_text("journal: {path: airlock.db, prompts: full}\n")

    def filled(prompts="full"):
        opened = open_journal(tmp_path / "airlock.db", prompts=prompts)
        for number in range(60):
            tier = Tier.UNSAFE if number % 9 == 0 else Tier.SAFE
            decision = Decision(Route.FORWARD, "safe", verdict(tier), "last_turn", spoken=lambda: "en")
            write(opened, decision, prompt=f"bread {number}")
        opened.close()

    return filled


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_the_command_prints_rows(journal, monkeypatch):
    journal()

    monkeypatch.setattr("guard.assemble_knowledge.load_sentences", lambda *_: SENTENCES)
    done = run("queue", "-c", "airlock.yaml", "--count", "3")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["category"] for row in rows] == [None] * 3
    assert all(row["text"].startswith("bread ") for row in rows)
    assert run("queue", "-c", "airlock.yaml", "--count", "3", "--out", "rows.jsonl").exit_code == 0
    assert Path("rows.jsonl").stat().st_mode & 0o077 == 0, "prompts, as in the journal"
    assert [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()] == rows
    done = run("queue", "-c", "airlock.yaml", "--out", "nowhere/rows.jsonl")
    assert isinstance(done.exception, BadRequest)
    assert str(done.exception).startswith("--out nowhere/rows.jsonl cannot be written (No such file")


def test_what_one_model_judged_is_asked_for_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("airlock.yaml").write_text("journal: {path: airlock.db, prompts: full}\n")
    opened = open_journal(tmp_path / "airlock.db", prompts="full")
    for number in range(60):
        judged = replace(verdict(Tier.SAFE), model="housing@0123" if number % 2 else "tiers@4567")
        write(opened, Decision(Route.FORWARD, "safe", judged, "last_turn"), prompt=f"{judged.model[0]} {number}")
    opened.close()
    monkeypatch.setattr("guard.assemble_knowledge.load_sentences", lambda *_: SENTENCES)
    for name in ("housing", "housing@0123"):
        done = run("queue", "-c", "airlock.yaml", "--model", name, "--count", "99")
        assert [json.loads(line)["said"]["model"] for line in done.stdout.splitlines()] == ["housing@0123"] * 30
    for asked in (("queue", "--model", "hous"), ("drift", "--since", "1d", "--cut", "2099-01-01", "--model", "hous")):
        said = str(run(asked[0], "-c", "airlock.yaml", *asked[1:]).exception)
        assert said.startswith("--model hous judged nothing"), said
    assert said.endswith("it has: housing@0123, tiers@4567")


def test_without_prompts_there_is_nothing_to_label_and_drift_still_speaks(journal):
    journal(prompts="off")
    done = run("queue", "-c", "airlock.yaml")
    assert (done.exit_code, "journal.prompts" in str(done.exception)) == (1, True)
    done = run("drift", "-c", "airlock.yaml", "--since", "1d", "--cut", "1h", "--json")
    assert "before has 0 judged decisions" in str(done.exception)
    done = run("drift", "-c", "airlock.yaml", "--since", "1h", "--cut", "1d")
    assert "must follow one another" in str(done.exception)


def test_drift_over_a_journal(journal, tmp_path):
    import sqlite3
    import time

    journal()
    journal()
    database = sqlite3.connect(tmp_path / "airlock.db")
    for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {trigger}")  # they refuse changes
    database.execute("UPDATE journal SET time = ? WHERE seq <= 60", (time.time() - 10 * 86_400,))
    database.commit()
    database.close()
    done = run("drift", "-c", "airlock.yaml", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    said = json.loads(done.stdout)
    assert (said["before"], said["after"]) == (60, 60)
    assert not [each for each in said["measures"] if each["alarm"]], "the same was asked"
    assert {"tier", "confidence", "words"} <= {each["measure"] for each in said["measures"]}
    assert run("drift", "-c", "airlock.yaml", "--fail").exit_code == 0
