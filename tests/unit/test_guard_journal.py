import asyncio
import hashlib
import sqlite3

import pytest

from classifier.types import Tier
from guard.errors import JournalError
from guard.middleware import GuardMiddleware
from guard.types import Decision, Route
from tests.doubles import CHAT, PHRASE, EventUpstream, Upstream, asking, chunk, exchange, make_guard, sse, verdict
from tests.journals import open_journal, records, verified

PROMPT = "how do I, Ünïcode \ud800?"
DECISION = Decision(Route.REFUSE, "unsafe", verdict(Tier.UNSAFE), "last_turn", timings_ms={"classify": 1.5})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "airlock.db"


@pytest.fixture
def opened(path):
    journals = []

    def opened(**options):
        journals.append(open_journal(path, **options))
        return journals[-1]

    yield opened
    for journal in journals:
        journal.close()


def ids(path):
    return [record.decision for record in records(path, "decision")]


def write(journal, decision=DECISION, prompt=PROMPT):
    asyncio.run(journal.decided(decision, prompt))


def test_a_decision_is_there_when_it_is_acknowledged(path, opened):
    write(opened())
    (record,) = records(path)
    assert (record.seq, record.kind, record.decision) == (1, "decision", DECISION.id)
    said = record.content
    assert {name: said[name] for name in DECISION.as_dict()} == DECISION.as_dict()
    assert said["created"] == DECISION.created
    assert verified(path).sound


@pytest.mark.parametrize(
    ("prompts", "kept"),
    [
        ("off", None),
        ("hashed", "sha256:" + hashlib.sha256(PROMPT.encode("utf-8", "replace")).hexdigest()),
        ("full", PROMPT.replace("\ud800", "?")),
    ],
)
def test_prompts_are_kept_only_as_the_operator_asks(path, opened, prompts, kept):
    journal = opened(prompts=prompts)
    write(journal)
    journal.close()
    said = records(path)[0].content
    assert (said["prompt"], said["prompts"]) == (kept, prompts)
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert (b"how do I" in files) is (prompts == "full"), "in no other column, page or file either"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(parents=True), lambda path: path.parent.write_text("x")])
def test_a_path_that_cannot_be_opened_is_named(path, make):
    make(path)
    with pytest.raises(JournalError, match=r"airlock\.db"):
        open_journal(path)


def test_a_file_that_is_no_database_is_refused_and_kept(path):
    path.parent.mkdir()
    path.write_text("not a database, and precious" * 100)
    with pytest.raises(JournalError, match="name another"):
        open_journal(path)
    assert path.read_text().startswith("not a database, and precious")


def test_many_at_once_are_all_written_and_close_flushes(path, opened):
    journal = opened()
    decisions = [Decision(Route.FORWARD, "safe") for _ in range(200)]

    async def run():
        half = [asyncio.create_task(journal.decided(decision, "")) for decision in decisions]
        await asyncio.sleep(0)
        journal.close()  # while they wait
        await asyncio.gather(*half)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert ids(path) == [decision.id for decision in decisions]
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        asyncio.run(asyncio.wait_for(journal.decided(DECISION, ""), 5))


def test_a_journal_is_taken_up_again(path, opened):
    write(opened())
    write(opened(), Decision(Route.FORWARD, "safe"))
    assert len(ids(path)) == 2
    assert verified(path).sound


def test_the_file_of_another_program_is_refused_and_kept(path):
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE passages (id)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"passages.*another file"):
        open_journal(path)
    assert path.read_bytes() == before


UNSAFE_STREAM = sse([chunk({"content": f"{'fine ' * 200}{PHRASE}"})])


@pytest.mark.parametrize(
    ("question", "upstream", "outcome"),
    [
        ("hi", Upstream(), "answered"),
        ("a bomb", Upstream(), "refused"),
        ("medicine", Upstream(), "answered"),
        ("despair", Upstream(), "answered"),
        ("", Upstream(), "refused"),
        ("hi", Upstream(b"{"), "failed"),
        ("hi", Upstream(status=500), "upstream_error"),
        ("hi", EventUpstream(UNSAFE_STREAM), "stopped"),
    ],
)
def test_the_decision_is_written_before_anything_leaves_and_the_outcome_after(
    path, opened, question, upstream, outcome
):
    journal = opened()
    seen = []

    def on_send(message):
        seen.append(ids(path))

    app = GuardMiddleware(upstream, make_guard(journal=journal))
    result = asyncio.run(exchange(app, asking(question), on_send=on_send))
    assert seen
    assert all(found == [result.headers["x-airlock-decision"]] for found in seen)
    (ended,) = records(path, "outcome")
    said = ended.content
    assert (ended.decision, said["outcome"], said["status"]) == (seen[0][0], outcome, result.status)
    assert said["milliseconds"] >= 0


def test_the_decision_is_written_before_the_model_is_called(path, opened):
    seen = []

    async def app(scope, receive, send):
        seen.append(len(records(path)))
        await Upstream()(scope, receive, send)

    asyncio.run(exchange(GuardMiddleware(app, make_guard(journal=opened())), asking("hi")))
    assert seen == [1]


def test_nothing_of_a_prompt_is_written_through_the_whole_path(path, opened):
    guard = make_guard(journal=opened())
    asyncio.run(exchange(GuardMiddleware(Upstream(), guard), asking("my secret bomb word"), path=CHAT))
    guard.close()
    assert b"secret" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
