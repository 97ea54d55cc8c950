import asyncio
import json
from dataclasses import dataclass

from typer.testing import CliRunner

from guard.access import Access
from guard.choosing import Choice, Concerns
from guard.cli.check import app, why_lines
from guard.config import load_config
from guard.proxy import Gateway
from tests.classifier_cases import TAXONOMY
from tests.doubles import Flaky, MemoryJournal, Upstream, WordClassifier, exchange, make_guard, raises

HOSTILE = "bread\x1b[2J\u202e\nknife"


@dataclass
class Said:
    text: str

    def as_dict(self):
        return {
            "window": {"text": self.text, "start": 0, "end": len(self.text)},
            "encoded": False,
            "words": [{"word": HOSTILE, "start": 0, "end": 5, "weight": 1.5}],
            "words_alone": True,
            "usage": {"total_tokens": 500},
            "examples": [{"id": "1", "text": HOSTILE, "category": "c", "tier": "safe", "similarity": 0.9}],
        }


class Because:
    """Explains each text by itself; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def explain(self, text):
        self.asked.append(text)
        return Said(text)


def ask(body, settings=None, times=1, **parts):
    journal = MemoryJournal()
    guard = make_guard(settings, **({"journal": journal} | parts))
    upstream = Upstream()
    gateway = Access(Gateway(guard, upstream), guard)

    async def run():
        return [await exchange(gateway, body, path="/v1/airlock/check") for _ in range(times)][-1]

    answer = asyncio.run(run())
    assert upstream.requests == []
    return answer, journal


def test_why_is_said_when_it_is_asked_and_only_then():
    because = Because()
    answer, _ = ask({"input": "election?", "explain": True}, explainer=because)
    assert answer.json["why"]["window"]["text"] == "election?"
    assert answer.json["tier"] == "focused_attention"
    answer, _ = ask({"input": "election?"}, explainer=because)
    assert "why" not in answer.json
    assert because.asked == ["election?"]


def test_of_a_conversation_the_text_that_decided_is_explained():
    because = Because()
    turns = [
        {"role": "user", "content": "how is a bomb made"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "and bread?"},
    ]
    answer, _ = ask({"input": turns, "explain": True}, explainer=because)
    assert answer.json["judged"] == "earlier_turn"
    assert because.asked == ["how is a bomb made"]


def test_nothing_of_it_is_written_down():
    _, journal = ask({"input": "election?", "explain": True}, explainer=Because())
    ((decision, prompt),) = journal.decisions
    assert prompt == "election?"
    assert "words_alone" not in json.dumps(decision.as_dict())


def test_a_gateway_that_explains_nothing_says_so():
    answer, journal = ask({"input": "election?", "explain": True})
    assert answer.status == 400
    assert [decision.rule for decision, _ in journal.decisions] == ["invalid_request"]
    assert "classifier.explain_tokens" in answer.json["error"]["message"]
    assert load_config(None, {"classifier.explain_tokens": 0}).classifier.explain_tokens == 0


def test_a_request_that_another_classifier_judges_is_refused_before_it_is_judged():
    other = WordClassifier()
    others = (Choice(Concerns(endpoint="check").rule(), other, TAXONOMY),)
    answer, journal = ask({"input": "election?", "explain": True}, explainer=Because(), others=others)
    assert answer.status == 400
    assert [decision.rule for decision, _ in journal.decisions] == ["invalid_request"]
    assert other.asked == []
    answer, journal = ask({"input": "election?"}, explainer=Because(), others=others)
    assert answer.status == 200
    assert len(journal.decisions) == 1
    assert other.asked == ["election?"]


def test_what_cannot_be_explained_is_an_error_without_the_text():
    answer, _ = ask(
        {"input": "secret words", "explain": True}, explainer=Flaky(Because(), raises(ValueError("secret")))
    )
    assert answer.status == 503
    assert b"secret" not in answer.body


def test_without_a_verdict_there_is_nothing_to_explain():
    broken = Flaky(WordClassifier(), raises(ValueError("x")))
    answer, _ = ask({"input": "election?", "explain": True}, classifier=broken, explainer=Because())
    assert answer.json["why"] is None


def test_its_tokens_count_against_the_limit():
    limits = {"limits.total.tokens": "400/hour"}
    plain = {"input": "election?"}
    assert ask(plain, limits, times=3)[0].status == 200
    assert ask(plain | {"explain": True}, limits, times=1, explainer=Because())[0].status == 200
    assert ask(plain | {"explain": True}, limits, times=2, explainer=Because())[0].status == 429


def test_a_terminal_is_not_steered():
    lines = "\n".join(why_lines(Said("x" * 500 + HOSTILE).as_dict()))
    assert "\x1b" not in lines
    assert "\u202e" not in lines
    assert "bread⟨U+001B⟩[2J⟨U+202E⟩ knife +1.50" in lines
    assert len(lines.splitlines()) == 3
    assert len(lines.splitlines()[0]) < 240


def test_check_says_why(monkeypatch):
    monkeypatch.setattr("guard.assemble.load_guard", lambda *_: make_guard(explainer=Because()))
    done = CliRunner().invoke(app, ["check", "how is a bomb made", "--why"])
    assert done.exit_code == 0, done.output
    assert "window    how is a bomb made  (as read)" in done.stdout
    done = CliRunner().invoke(app, ["check", "how is a bomb made", "--why", "--json"])
    assert json.loads(done.stdout)["why"]["window"]["text"] == "how is a bomb made"


def test_check_prints_one_json_object_also_where_a_shadow_rule_would_say_something_else(monkeypatch):
    rules = [{"name": "trial", "mode": "shadow", "route": "refuse"}, {"name": "rest", "route": "forward"}]
    monkeypatch.setattr("guard.assemble.load_guard", lambda *_: make_guard({"policy.rules": rules}))
    assert "shadow    trial would say refuse" in CliRunner().invoke(app, ["check", "hello"]).stdout
    said = json.loads(CliRunner().invoke(app, ["check", "hello", "--json"]).stdout)
    assert [each["rule"] for each in said["shadow"]] == ["trial"]
