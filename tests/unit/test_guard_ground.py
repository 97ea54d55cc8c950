"""`airlock ground` over HTTP and on the command line, without a model."""

import asyncio
import json
import threading

import pytest
from typer.testing import CliRunner

from guard.assemble_knowledge import gate
from guard.cli import app
from guard.config import load_config
from guard.errors import BadRequest, PartFailure
from guard.proxy import Gateway
from guard.sound import sound_report
from rag import Gate, check_answer
from rag.types import GroundedAnswer, Premise
from tests.doubles import QUOTE, Flaky, Library, MemoryJournal, Upstream, citation, exchange, make_guard, returns

PATH = "/v1/airlock/ground"
EDITED = QUOTE.replace("four", "two")


def post(body, journal=None):
    guard = make_guard(journal=journal or MemoryJournal())
    return asyncio.run(exchange(Gateway(guard, Upstream()), body, path=PATH))


def test_an_answer_is_held_against_passages():
    journal = MemoryJournal()
    answer = post({"answer": f"{QUOTE} {EDITED}", "passages": ["Other words.", QUOTE]}, journal)
    assert answer.status == 200
    assert [checked["status"] for checked in answer.json["sentences"]] == ["supported", "contradicted"]
    assert answer.json["sentences"][0]["evidence"] == [{"passage": 1, "start": 0, "end": len(QUOTE)}]
    assert (answer.json["kept"], answer.json["supported"], answer.json["citations"]) == (QUOTE, False, [])
    ((decision, prompt),) = journal.decisions
    assert (decision.rule, prompt) == ("ground", f"{QUOTE} {EDITED}")
    assert answer.headers["x-airlock-decision"] == decision.id


def test_a_short_answer_passes_a_long_one():
    begun, go, done = threading.Event(), threading.Event(), []

    class Slow(Library):
        def check(self, answer, passages=None):
            begun.set()
            go.wait(20)
            done.append(len(answer))
            return super().check(answer, passages)

    async def run():
        guard = make_guard(answerer=Slow())
        first = asyncio.create_task(guard.ground(QUOTE, [QUOTE]))
        await asyncio.to_thread(begun.wait, 20)
        others = [asyncio.create_task(guard.ground(answer, [QUOTE])) for answer in (f"{QUOTE} {QUOTE}", QUOTE[:-1])]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert done == [len(QUOTE), len(QUOTE) - 1, 2 * len(QUOTE) + 1]


def test_without_passages_the_knowledge_base_is_asked():
    assert post({"answer": QUOTE}).json["supported"] is True
    assert post({"answer": EDITED}).json["supported"] is False


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "answer"),
        ({"answer": 5}, "answer"),
        ({"answer": ""}, "answer"),
        ({"answer": "a" * 20_001, "passages": ["b"]}, "answer"),
        ({"answer": "a", "passages": "b"}, "passages"),
        ({"answer": "a", "passages": []}, "passages"),
        ({"answer": "a", "passages": [5]}, "passages.0"),
        ({"answer": "a", "passages": ["b"] * 1001}, "passages"),
        ({"answer": "a", "passages": ["b" * 1_000_001]}, "passages"),
        ({"answer": "a", "extra": 1}, "extra"),
    ],
)
def test_bad_input_is_an_error_that_names_the_field(body, param):
    answer = post(body)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert param in answer.json["error"]["message"]


def test_the_gate_is_set_by_the_configuration():
    assert gate(load_config()) == Gate()
    assert gate(load_config(None, {"grounding.kept": 0.9})) == Gate(kept=0.9)


@pytest.mark.parametrize("report", [None, check_answer("Other words.", ["b"])])
def test_rubbish_of_the_part_is_a_failure(report):
    with pytest.raises(PartFailure, match="knowledge"):
        sound_report(report, QUOTE)


def test_a_part_at_fault_is_unavailable():
    class Broken:
        check = staticmethod(returns(None))

    guard = make_guard(answerer=Broken())
    assert asyncio.run(exchange(Gateway(guard, Upstream()), {"answer": QUOTE}, path=PATH)).status == 503


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["ground", *arguments], input=stdin)


def test_the_command_line_shows_each_sentence(tmp_path):
    passages = tmp_path / "passages.jsonl"
    passages.write_text(json.dumps({"text": "Other words."}) + "\n\n" + json.dumps({"text": QUOTE}), encoding="utf-8")
    said = run(QUOTE, "--passages", str(passages), "--json")
    assert (said.exit_code, json.loads(said.output)["supported"]) == (0, True)
    (tmp_path / "answer.txt").write_text(EDITED, encoding="utf-8")
    said = run("--file", str(tmp_path / "answer.txt"), "--passage", QUOTE)
    assert said.exit_code == 1
    assert said.output.startswith("contradicted ")
    assert f"passage 0 [0:{len(QUOTE)}] {QUOTE}" in said.output
    assert run("-", "--passage", "Other words.", "--passage", QUOTE, stdin=QUOTE).exit_code == 0


@pytest.mark.parametrize("arguments", [(), ("a", "--file", "b"), ("a", "--kb", "b", "--passage", "c")])
def test_wrong_usage(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"text": 5}'])
def test_passages_that_are_none_are_an_error(tmp_path, content):
    path = tmp_path / "passages.jsonl"
    path.write_text(content, encoding="utf-8")
    assert isinstance(run("a", "--passages", str(path)).exception, BadRequest)


def test_asking_says_which_premise_is_put_right():
    premise = Premise("an adult waits two hours", "number", citation())
    answer = GroundedAnswer(QUOTE, False, (citation(),), premises=(premise,))
    guard = make_guard(answerer=Flaky(Library(), returns(answer)))
    result = asyncio.run(exchange(Gateway(guard, Upstream()), {"question": "Why?"}, path="/v1/airlock/ask"))
    assert result.json["premises"] == [{"claim": "an adult waits two hours", "rule": "number"}]
    assert result.json["answer"].startswith(result.json["citations"][0]["quote"])
