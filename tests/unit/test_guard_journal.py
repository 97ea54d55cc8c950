import asyncio
import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from classifier.types import Tier
from guard.errors import JournalError
from guard.journal import SqliteJournal
from guard.middleware import GuardMiddleware
from guard.types import Decision, Route
from tests.doubles import CHAT, PHRASE, EventUpstream, Upstream, asking, chunk, exchange, make_guard, sse, verdict

PROMPT = "how do I, Ünïcode \ud800?"
DECISION = Decision(Route.REFUSE, "unsafe", verdict(Tier.UNSAFE), "last_turn", timings_ms={"classify": 1.5})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "airlock.db"


@pytest.fixture
def opened(path):
    journals = []

    def open_journal(**options):
        journals.append(SqliteJournal(path, **options))
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.close()


def rows(path, table="decisions"):
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]
    finally:
        database.close()


def write(journal, decision=DECISION, prompt=PROMPT):
    asyncio.run(journal.decided(decision, prompt))


def test_a_decision_is_there_when_it_is_acknowledged(path, opened):
    write(opened())
    (row,) = rows(path)
    assert (row["id"], row["route"], row["rule"]) == (DECISION.id, "refuse", "unsafe")
    assert (row["tier"], row["category"], row["cause"]) == ("unsafe", "u_weapons_violence", None)
    assert json.loads(row["record"]) == DECISION.as_dict()


@pytest.mark.parametrize(
    ("prompts", "kept"),
    [
        ("off", None),
        ("hashed", hashlib.sha256(PROMPT.encode("utf-8", "replace")).hexdigest()),
        ("full", PROMPT.replace("\ud800", "?")),
    ],
)
def test_prompts_are_kept_only_as_the_operator_asks(path, opened, prompts, kept):
    journal = opened(prompts=prompts)
    write(journal)
    journal.close()
    assert rows(path)[0]["prompt"] == kept
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert (b"how do I" in files) is (prompts == "full"), "in no other column, page or file either"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(parents=True), lambda path: path.parent.write_text("x")])
def test_a_path_that_cannot_be_opened_is_named(path, make):
    make(path)
    with pytest.raises(JournalError, match=r"airlock\.db"):
        SqliteJournal(path)


def test_a_file_that_is_no_database_is_refused_and_kept(path):
    path.parent.mkdir()
    path.write_text("not a database, and precious" * 100)
    with pytest.raises(JournalError, match="another file"):
        SqliteJournal(path)
    assert path.read_text().startswith("not a database, and precious")


def test_a_locked_database_fails_in_time_and_works_again_once_free(path, opened):
    journal = opened(timeout_s=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="locked"):
        write(journal)
    other.execute("ROLLBACK")
    other.close()
    write(journal)
    assert len(rows(path)) == 1


def test_a_row_that_cannot_be_written_fails_alone_and_stops_nothing(path, opened):
    journal = opened()

    async def run():
        with pytest.raises(JournalError):
            await journal.decided(Decision(Route.REFUSE, "\ud800"), "")
        await journal.decided(DECISION, "")

    asyncio.run(asyncio.wait_for(run(), 5))
    assert [row["id"] for row in rows(path)] == [DECISION.id]


def test_many_at_once_are_all_written_and_close_flushes(path, opened):
    journal = opened()
    decisions = [Decision(Route.FORWARD, "safe") for _ in range(200)]

    async def run():
        half = [asyncio.create_task(journal.decided(decision, "")) for decision in decisions]
        await asyncio.sleep(0)
        journal.close()  # while they wait
        await asyncio.gather(*half)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert {row["id"] for row in rows(path)} == {decision.id for decision in decisions}
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        asyncio.run(asyncio.wait_for(journal.decided(DECISION, ""), 5))


def test_a_journal_is_taken_up_again(path, opened):
    write(opened())
    write(opened(), Decision(Route.FORWARD, "safe"))
    assert len(rows(path)) == 2


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
        seen.append([row["id"] for row in rows(path)])

    app = GuardMiddleware(upstream, make_guard(journal=journal))
    result = asyncio.run(exchange(app, asking(question), on_send=on_send))
    assert seen
    assert all(found == [result.headers["x-airlock-decision"]] for found in seen)
    (ended,) = rows(path, "outcomes")
    assert (ended["decision"], ended["outcome"], ended["status"]) == (seen[0][0], outcome, result.status)
    assert ended["milliseconds"] >= 0


def test_the_decision_is_written_before_the_model_is_called(path, opened):
    seen = []

    async def app(scope, receive, send):
        seen.append(len(rows(path)))
        await Upstream()(scope, receive, send)

    asyncio.run(exchange(GuardMiddleware(app, make_guard(journal=opened())), asking("hi")))
    assert seen == [1]


def test_what_was_acknowledged_survives_a_kill(path):
    script = f"""
        import asyncio, os, signal
        from pathlib import Path
        from guard.journal import SqliteJournal
        from guard.types import Decision, Route

        async def main():
            journal = SqliteJournal(Path({str(path)!r}))
            for _ in range(20):
                decision = Decision(Route.REFUSE, "unsafe")
                await journal.decided(decision, "")
                print(decision.id, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    acknowledged = ended.stdout.split()
    assert len(acknowledged) == 20
    assert path.with_name("airlock.db-wal").exists(), "the process did die before it could tidy up"
    assert [row["id"] for row in rows(path)] == acknowledged


def test_nothing_of_a_prompt_is_written_through_the_whole_path(path, opened):
    guard = make_guard(journal=opened())
    asyncio.run(exchange(GuardMiddleware(Upstream(), guard), asking("my secret bomb word"), path=CHAT))
    guard.close()
    assert b"secret" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
