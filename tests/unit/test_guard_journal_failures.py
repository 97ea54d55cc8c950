"""A locked database, a full disk, a bad record, a killed process."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from guard.errors import JournalError
from guard.journal.records import Kind, draft
from guard.middleware import GuardMiddleware
from guard.types import Decision, Route
from tests.doubles import Upstream, asking, exchange, make_guard
from tests.journals import open_journal, records, verified, write

KILLS = 40


@pytest.fixture
def path(tmp_path):
    return tmp_path / "airlock.db"


@pytest.fixture
def opened(path):
    journals = []

    def opened(**options):
        journals.append(open_journal(path, **options))
        return journals[-1]

    yield opened
    for journal in journals:
        journal.close()


def forward():
    return Decision(Route.FORWARD, "safe")


class Lost:
    """A write that nobody waits for."""

    def __init__(self, decision):
        self.record = draft(Kind.DECISION, {}, decision.id)

    def settle(self, error):
        pass


def limit_pages(journal, pages):
    """As if the disk were full from there on."""
    engine = journal._database._engine

    @sa.event.listens_for(engine, "connect")
    def limit(connection, _):
        connection.execute(f"PRAGMA max_page_count={pages}")

    engine.dispose()


def test_a_locked_database_fails_in_time_and_the_chain_says_what_was_lost(path, opened):
    journal = opened(timeout_s=0.05)
    lost, kept = forward(), forward()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="locked"):
        write(journal, lost)
    other.execute("ROLLBACK")
    other.close()
    write(journal, kept)
    gap, decision = records(path)
    assert decision.decision == kept.id
    assert (gap.kind, gap.content["decisions"], gap.content["outcomes"]) == ("gap", 1, 0)
    assert gap.content["first"] == [lost.id]
    assert "locked" in gap.content["cause"]
    assert verified(path).sound


@pytest.mark.parametrize("on_error", ["refuse", "continue"])
@pytest.mark.parametrize("trouble", ["locked", "full"])
def test_what_becomes_of_requests_is_the_operators_policy(path, opened, on_error, trouble, caplog):
    journal = opened(timeout_s=0.05, prompts="full")
    other = sqlite3.connect(path, isolation_level=None)
    if trouble == "locked":
        other.execute("BEGIN EXCLUSIVE")
    else:
        limit_pages(journal, 1)
    guard = make_guard({"journal.on_error": on_error}, journal=journal)
    app = GuardMiddleware(Upstream(), guard)
    result = asyncio.run(exchange(app, asking("hi " * 9_000)))
    assert result.status == (503 if on_error == "refuse" else 200)
    decision = result.headers["x-airlock-decision"]
    assert any(decision in record.getMessage() and "journal.path" in record.getMessage() for record in caplog.records)
    other.close()  # the process goes on, and the journal with it
    limit_pages(journal, 100_000)
    again = asyncio.run(exchange(app, asking("hi")))
    assert again.status == 200
    assert [each.content["first"] for each in records(path, "gap")] == [[decision]]
    assert [each.decision for each in records(path, "decision")] == [again.headers["x-airlock-decision"]]
    assert verified(path).sound


def test_a_full_disk_loses_nothing_that_was_acknowledged(path):
    folder = path.parent / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "airlock-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: needs root and the right to mount")
    try:
        journal = open_journal(folder / "airlock.db", prompts="full")
        acknowledged, refused = [], []

        async def run():
            while len(refused) < 3:
                decision = forward()
                try:
                    await journal.decided(decision, "x" * 2000)
                except JournalError as exc:
                    refused.append(str(exc))
                else:
                    acknowledged.append(decision.id)

        asyncio.run(asyncio.wait_for(run(), 60))
        assert all("full" in said or "I/O" in said for said in refused)
        assert "xxx" not in "".join(refused)
        assert len(acknowledged) > 10
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        after = forward()
        write(journal, after)
        journal.close()
        assert [each.decision for each in records(folder / "airlock.db", "decision")] == [*acknowledged, after.id]
        assert len(records(folder / "airlock.db", "gap")) == 1
        assert verified(folder / "airlock.db").sound
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_bad_record_fails_alone_among_those_committed_with_it(path, opened):
    journal = opened()
    first = forward()
    write(journal, first)
    others = [forward() for _ in range(20)]
    batch = [*others[:10], first, *others[10:]]  # the same decision again is refused by the database

    async def run():
        return await asyncio.gather(*(journal.decided(each, "") for each in batch), return_exceptions=True)

    ended = asyncio.run(asyncio.wait_for(run(), 10))
    assert [isinstance(each, JournalError) for each in ended] == [each is first for each in batch]
    assert {each.decision for each in records(path, "decision")} == {each.id for each in (first, *others)}
    assert verified(path).sound


@pytest.mark.parametrize("bad", [{"rule": "\ud800"}, {"timings_ms": {"classify": float("nan")}}])
def test_what_no_json_can_hold_is_refused_and_stops_nothing(path, opened, bad):
    journal = opened()
    with pytest.raises(JournalError, match="record of kind decision"):
        write(journal, Decision(**({"route": Route.REFUSE, "rule": "unsafe"} | bad)))
    after = forward()
    write(journal, after)
    assert [each.decision for each in records(path)] == [after.id]


def test_too_many_that_wait_are_refused_at_once(path, opened, monkeypatch):
    monkeypatch.setattr("guard.journal.writer._WAITING", 3)
    journal = opened(timeout_s=1)
    writing, append = threading.Event(), journal._append
    monkeypatch.setattr(journal, "_append", lambda writes: (writing.set(), append(writes)))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    async def run():
        first = asyncio.ensure_future(journal.decided(forward(), ""))
        await asyncio.to_thread(writing.wait, 10)
        more = (journal.decided(forward(), "") for _ in range(9))
        return await asyncio.gather(first, *more, return_exceptions=True)

    ended = asyncio.run(asyncio.wait_for(run(), 20))
    other.close()
    assert all(isinstance(each, JournalError) for each in ended)
    assert sum("wait already" in str(each) for each in ended) >= 6


def test_what_was_turned_away_is_in_the_next_gap(path, opened, monkeypatch):
    monkeypatch.setattr("guard.journal.writer._WAITING", 2)
    journal = opened()
    writing, may, append = threading.Event(), threading.Event(), journal._append

    def held(writes):
        writing.set()
        may.wait(10)
        append(writes)

    monkeypatch.setattr(journal, "_append", held)
    kept, lost = [forward() for _ in range(3)], [forward() for _ in range(4)]

    async def run():
        first = asyncio.ensure_future(journal.decided(kept[0], ""))
        await asyncio.to_thread(writing.wait, 10)
        waiting = [asyncio.ensure_future(journal.decided(each, "")) for each in kept[1:]]
        await asyncio.sleep(0)
        turned = await asyncio.gather(*(journal.decided(each, "") for each in lost), return_exceptions=True)
        may.set()
        await asyncio.gather(first, *waiting)
        return turned

    turned = asyncio.run(asyncio.wait_for(run(), 20))
    assert all("wait already" in str(each) for each in turned)
    assert [each.decision for each in records(path, "decision")] == [each.id for each in kept]
    (gap,) = records(path, "gap")
    assert gap.content["first"] == [each.id for each in lost]
    assert (gap.content["decisions"], gap.content["outcomes"]) == (4, 0)
    assert "wait already" in gap.content["cause"]
    assert verified(path).sound


@pytest.mark.parametrize("failing", [False, True])
def test_what_is_turned_away_during_a_commit_is_not_forgotten_by_it(path, opened, monkeypatch, failing):
    """The gap that a commit writes is the one from before it; what is lost meanwhile stays for the next."""
    monkeypatch.setattr("guard.journal.writer._WAITING", 1)
    journal = opened()
    first, second, kept = forward(), forward(), forward()
    journal._fail([Lost(first)], JournalError("of a test"))
    begun, may, appending = threading.Event(), threading.Event(), journal._database.appending

    @contextmanager
    def held():
        with appending() as ledger:
            yield ledger  # the gap is written, and not yet committed
            begun.set()
            may.wait(10)
            if failing:
                raise JournalError("undone")

    async def run():
        monkeypatch.setattr(journal._database, "appending", held)
        writing = asyncio.ensure_future(journal.decided(kept, ""))
        await asyncio.to_thread(begun.wait, 10)
        queued = asyncio.ensure_future(journal.decided(forward(), ""))
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="wait already"):
            await journal.decided(second, "")
        monkeypatch.setattr(journal._database, "appending", appending)
        may.set()
        await asyncio.gather(writing, queued, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 20))
    journal.close()
    named = [each for gap in records(path, "gap") for each in gap.content["first"]]
    assert sorted(named) == sorted([first.id, second.id, *([kept.id] if failing else [])])
    assert records(path, "gap")[0].content["cause"] == "of a test"
    assert verified(path).sound


def test_a_request_that_comes_while_the_journal_is_closed_is_told(path, opened, monkeypatch):
    journal = opened()
    closing = threading.Thread(target=journal.close)
    put = journal._waiting.put_nowait

    def after_the_close(write):
        closing.start()
        closing.join(0.5)  # it must wait for this write
        put(write)

    async def run():
        with monkeypatch.context() as patch:
            patch.setattr(journal._waiting, "put_nowait", after_the_close)
            await asyncio.wait_for(journal.decided(kept, ""), 5)
        await asyncio.to_thread(closing.join)
        with pytest.raises(JournalError, match="is closed"):
            await asyncio.wait_for(journal.decided(forward(), ""), 5)

    kept = forward()
    asyncio.run(run())
    assert [each.decision for each in records(path)] == [kept.id]


def test_a_gap_that_no_record_follows_is_written_at_the_stop(path, opened):
    journal = opened(timeout_s=0.05)
    lost = forward()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="locked"):
        write(journal, lost)
    other.close()
    journal.close()
    (gap,) = records(path)
    assert (gap.kind, gap.content["first"]) == ("gap", [lost.id])
    assert verified(path).sound


def test_a_gap_that_cannot_be_written_at_the_stop_either_is_in_the_log(path, opened, caplog):
    journal = opened(timeout_s=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JournalError, match="locked"):
        write(journal, forward())
    journal.close()
    other.close()
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "journal.path" in said
    assert "1 decisions and 0 outcomes" in said
    assert "locked" in said
    assert records(path) == []


def test_kill_at_random_points_loses_no_acknowledged_decision(path):
    """One process forks writers, several requests at a time each, and kills each after some acknowledgements."""
    script = f"""
        import asyncio, os, random, signal, sys, time
        from pathlib import Path
        from guard.types import Decision, Route
        from tests.journals import open_journal

        async def requests(journal, out):
            while True:
                decision = Decision(Route.REFUSE, "unsafe")
                await journal.decided(decision, "some text " * 50)
                os.write(out, (decision.id + "\\n").encode())
                await journal.ended(decision, "refused", status=200, detail="", ms=1.0)

        async def several(out):
            journal = open_journal(Path({str(path)!r}), prompts="full")
            await asyncio.gather(*(requests(journal, out) for _ in range(4)))

        chance = random.Random(7)
        for _ in range({KILLS}):
            taken, given = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(taken)
                asyncio.run(several(given))
            os.close(given)
            said = os.read(taken, 29) if chance.random() < 0.8 else b""
            time.sleep(chance.random() * 0.03)
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            while piece := os.read(taken, 65536):
                said += piece
            os.write(1, said)
    """
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    acknowledged = ended.stdout.split()
    assert len(acknowledged) > KILLS
    written = [record.decision for record in records(path, "decision")]
    assert set(acknowledged) <= set(written)
    assert len(written) == len(set(written))
    report = verified(path)
    assert report.sound, report.shown
