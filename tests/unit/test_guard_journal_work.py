"""What is done with a journal on SQLite and on PostgreSQL: writing, migrating, retention, review."""

import asyncio
import json
import logging
import re
import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from classifier.types import Tier
from guard.config import load_config
from guard.errors import BadRequest, ConfigError, JournalError
from guard.journal.database import SCHEMA, VERSION_TABLE, Database, metadata
from guard.journal.migrations import configuration
from guard.journal.retention import Retention, prune
from guard.journal.review import claim, find, resolve, reviews, waiting
from guard.types import Decision, Route
from tests.doubles import verdict
from tests.journals import open_journal, records, section, verified, write
from tests.postgres import binaries, cluster

NAMED = iter(range(1_000_000))


@pytest.fixture(scope="module")
def server():
    if binaries() is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Where a journal can be: a new file, or a new schema of a server."""
    if request.param == "sqlite":
        return tmp_path / "airlock.db"
    url, name = request.getfixturevalue("server"), f"test{next(NAMED)}"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    return f"{url}&options=-csearch_path%3D{name}"


@contextmanager
def database(place, **options):
    opened = Database(section(place), **options)
    try:
        yield opened
    finally:
        opened.close()


def forward():
    return Decision(Route.FORWARD, "safe", verdict())


def handed_over():
    return Decision(Route.HAND_OVER, "person_in_distress", verdict(Tier.FOCUSED_ATTENTION))


def written(place, *decisions):
    journal = open_journal(place)
    write(journal, *decisions)
    journal.close()
    return [decision.id for decision in decisions]


def old(place, *decisions, now=1e9):
    """Write decisions as of the year 2001, or another moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guard.journal.database.time.time", lambda: now)
        return written(place, *decisions)


def test_decisions_and_outcomes_come_back_and_the_chain_holds(place):
    decision = Decision(Route.REFUSE, "unsafe", verdict(Tier.UNSAFE), "last_turn", timings_ms={"classify": 0.1 + 0.2})
    journal = open_journal(place, prompts="full")

    async def run():
        await journal.decided(decision, "nul \0, é, \U0001f600, \ud800")
        await journal.ended(decision, "refused", status=200, detail="", ms=1.0)

    asyncio.run(run())
    journal.close()
    first, second = records(place)
    assert (first.decision, second.decision, second.content["outcome"]) == (decision.id, decision.id, "refused")
    assert first.content["prompt"] == "nul \0, é, \U0001f600, ?"
    assert first.content["timings_ms"] == {"classify": 0.1 + 0.2}
    report = verified(place)
    assert (report.sound, report.records) == (True, 2), report.shown


def test_several_gateways_write_one_chain(place):
    journals = [open_journal(place) for _ in range(3)]
    threads = [threading.Thread(target=write, args=(each, *(forward() for _ in range(15)))) for each in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal in journals:
        journal.close()
    assert len({record.decision for record in records(place)}) == 45
    assert verified(place).sound


def test_two_that_open_a_new_journal_at_once_make_it_once(place):
    errors = []

    def open_it():
        try:
            open_journal(place).close()
        except JournalError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert verified(place).sound


def test_the_database_refuses_changes(place):
    written(place, forward(), forward())
    with database(place) as opened:
        for statement in (
            "UPDATE journal SET kind = 'x'",
            "DELETE FROM journal WHERE seq = 2",
            "DELETE FROM journal_head",
        ):
            with pytest.raises(sa.exc.DBAPIError, match="append-only"), opened.appending() as ledger:
                ledger.connection.execute(sa.text(statement))
        if not opened.is_sqlite:
            with pytest.raises(sa.exc.DBAPIError, match="append-only"), opened.appending() as ledger:
                ledger.connection.execute(sa.text("TRUNCATE journal"))
    assert verified(place).sound


def test_the_migrations_make_what_the_code_expects(place):
    with database(place) as opened, opened.appending() as ledger:
        options = {"version_table": VERSION_TABLE, "include_schemas": False}
        assert compare_metadata(MigrationContext.configure(ledger.connection, opts=options), metadata) == []
    assert ScriptDirectory.from_config(configuration()).get_heads() == [SCHEMA]


def test_a_newer_or_missing_journal_is_named_and_not_touched(place):
    with pytest.raises(JournalError, match="airlock serve"):
        records(place)
    written(place, forward())
    with database(place) as opened, opened.appending() as ledger:
        ledger.connection.execute(sa.text("UPDATE journal_schema SET version_num = '9999'"))
    with pytest.raises(JournalError, match="form 9999"):
        records(place)
    with pytest.raises(JournalError, match="newer Airlock"):
        open_journal(place)


def test_a_lock_that_another_holds_is_waited_for_in_vain_and_then_not(place):
    journal = open_journal(place, timeout_s=0.1)
    with database(place) as other:
        with other.appending(), pytest.raises(JournalError, match=r"cannot be written|wait"):
            write(journal, forward())
        write(journal, forward())
    journal.close()
    assert [record.kind for record in records(place)] == ["gap", "decision"]
    assert verified(place).sound


def test_retention_deletes_what_is_old_and_the_chain_still_holds(place):
    gone = old(place, forward(), handed_over(), forward())
    kept = written(place, forward())
    with database(place) as opened:
        done = prune(opened, 1.1e9)
        assert (done.records, done.through, done.unresolved) == (3, 3, 1)
        assert prune(opened, 1.1e9).records == 0
    assert [record.decision for record in records(place, "decision")] == kept
    (checkpoint,) = records(place, "checkpoint")
    assert (checkpoint.content["records"], checkpoint.content["unresolved"]) == (3, 1)
    report = verified(place)
    assert (report.sound, report.first, report.pruned) == (True, 4, 3), report.shown
    later = written(place, forward())
    with database(place) as opened:
        prune(opened, time.time() + 60)
        assert prune(opened, time.time() + 60).records == 0, "a checkpoint alone is not replaced by another"
    assert [record.kind for record in records(place)] == ["checkpoint"]
    assert verified(place).sound
    if not isinstance(place, str):
        bytes_of = b"".join(file.read_bytes() for file in place.parent.iterdir())
        assert not [each for each in (*gone, *kept, *later) if each.encode() in bytes_of], (
            "what is deleted is overwritten"
        )


def test_a_record_that_is_dated_ahead_holds_what_is_behind_it_and_is_named(place, caplog):
    kept = old(place, forward(), now=time.time() + 400 * 86_400) + old(place, forward())
    with database(place) as opened:
        assert prune(opened, 1.1e9).records == 0
    assert [record.decision for record in records(place, "decision")] == kept
    assert "record 1 is dated 400 days from now, and what stands behind it is kept until then" in caplog.text
    assert "and journal.retention_days longer" in caplog.text


def test_a_prune_that_was_killed_is_gone_on_with(place, monkeypatch):
    old(place, *(forward() for _ in range(5)))
    written(place, forward())
    with database(place) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "delete_pruned", lambda self: None)
            assert prune(opened, 1.1e9).records == 5
        assert (len(records(place)), verified(place).sound) == (7, True)
        prune(opened, 1.1e9)
    assert (len(records(place)), verified(place).sound) == (2, True)


@pytest.mark.parametrize("seq", [0, -7])
def test_a_record_before_the_first_stops_no_retention_and_stays_as_evidence(place, seq):
    old(place, forward(), forward())
    kept = written(place, forward())
    with database(place) as opened:
        with opened.appending() as ledger:
            copied = f"SELECT {seq}, time, 'outcome', decision, payload, previous, hash FROM journal WHERE seq = 3"
            ledger.connection.execute(sa.text(f"INSERT INTO journal {copied}"))
        assert (verified(place).sound, len(records(place))) == (False, 4)
        done = prune(opened, 1.1e9)
    assert (done.records, done.through) == (2, 2)
    assert [record.seq for record in records(place)] == [seq, 3, 4]
    assert [record.decision for record in records(place, "decision")] == kept
    report = verified(place)
    assert report.shown == [f"record {seq} was added: the first one is 1"]


def test_the_gateway_prunes_by_itself(place, caplog):
    caplog.set_level(logging.INFO, "airlock")
    old(place, forward(), handed_over())
    kept = forward()
    journal = open_journal(place, retention=Retention(30, every_s=0.01))
    write(journal, kept)
    for _ in range(500):
        if any("2 records deleted" in record.getMessage() for record in caplog.records):
            break
        time.sleep(0.02)
    journal.close()
    assert [record.decision for record in records(place, "decision")] == [kept.id]
    assert len(records(place, "checkpoint")) == 1
    assert any("1 requests that waited for a person" in record.getMessage() for record in caplog.records)
    assert verified(place).sound


def test_a_request_that_was_handed_over_is_claimed_and_resolved_once(place):
    other, decision, second = written(place, forward(), handed_over(), handed_over())
    with database(place) as opened:
        with pytest.raises(BadRequest, match="claim it first"):
            resolve(opened, decision, "ann", "called back")
        assert claim(opened, decision, "ann").state == "claimed"
        with pytest.raises(BadRequest, match=r"claimed by ann; --take-over"):
            claim(opened, decision, "bob")
        with pytest.raises(BadRequest, match=r"claimed by ann$"):
            claim(opened, decision, "ann")
        with pytest.raises(BadRequest, match="claimed by ann"):
            resolve(opened, decision, "bob", "done")
        with pytest.raises(BadRequest, match=f"`airlock journal review claim {decision} --by bob --take-over`"):
            resolve(opened, decision, "bob", "done")
        with pytest.raises(BadRequest, match=f"nobody; .*`airlock journal review claim {second} --by 'bob b'`"):
            resolve(opened, second, "bob b", "done")
        claim(opened, decision, "bob", take_over=True)
        with pytest.raises(BadRequest, match="note"):
            resolve(opened, decision, "bob", "  ")
        resolve(opened, decision, "bob", "called back")
        for again in (lambda: claim(opened, decision, "ann"), lambda: resolve(opened, decision, "bob", "again")):
            with pytest.raises(BadRequest, match="resolved by bob"):
                again()
        with pytest.raises(BadRequest, match="not handed over"):
            claim(opened, other, "ann")
        with pytest.raises(BadRequest, match="not in the journal"):
            claim(opened, "dec_0", "ann")
        with opened.reading() as connection:
            assert [each.decision.decision for each in waiting(connection)] == [second]
            assert [each.state for each in reviews(connection)] == ["resolved", "waiting"]
            steps = find(connection, decision).as_dict()["steps"]
    assert [(step["state"], step["by"], step["note"]) for step in steps] == [
        ("claimed", "ann", None),
        ("claimed", "bob", None),
        ("resolved", "bob", "called back"),
    ]
    assert verified(place).sound


def test_of_many_who_claim_at_once_one_has_it(place):
    (decision,) = written(place, handed_over())
    got = []

    def work(name):
        with database(place) as opened:
            try:
                got.append(claim(opened, decision, name).by)
            except BadRequest:
                pass

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(records(place, "review")) == 1


OLD_SCHEMA = """
CREATE TABLE decisions (id TEXT PRIMARY KEY, created REAL NOT NULL, route TEXT NOT NULL, rule TEXT NOT NULL, tier TEXT,
    category TEXT, cause TEXT, prompt TEXT, record TEXT NOT NULL) STRICT;
CREATE INDEX decisions_created ON decisions (created);
CREATE TABLE outcomes (decision TEXT NOT NULL REFERENCES decisions (id), status INTEGER, outcome TEXT NOT NULL,
    detail TEXT, milliseconds REAL) STRICT;
CREATE INDEX outcomes_decision ON outcomes (decision);
"""


@pytest.mark.parametrize("count", [0, 3, 1201])
def test_a_journal_of_the_first_form_is_taken_over(tmp_path, count):
    path = tmp_path / "old.db"
    decisions = [handed_over() for _ in range(count)]
    with closing(sqlite3.connect(path)) as made:
        made.executescript("PRAGMA journal_mode=WAL;" + OLD_SCHEMA)
        for n, each in enumerate(decisions):
            row = (each.id, 1e9 + n, "hand_over", each.rule, None, None, None, f"text {n}", json.dumps(each.as_dict()))
            made.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            made.execute("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", (each.id, 200, "answered", "", 500.0))
        made.commit()
    written(path, forward())
    found = records(path, "decision")
    assert [record.decision for record in found[:-1]] == [each.id for each in decisions]
    assert [record.content["prompt"] for record in found[:-1]] == [f"text {n}" for n in range(count)]
    assert [record.time for record in found[:-1]] == [1e9 + n for n in range(count)]
    outcomes = records(path, "outcome")
    assert [record.decision for record in outcomes] == [each.id for each in decisions]
    assert outcomes == [] or outcomes[0].content["status"] == 200
    assert [record.content["records"] for record in records(path, "import")] == [2 * count]
    assert verified(path).sound
    with closing(sqlite3.connect(path)) as after:
        tables = {name for (name,) in after.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"journal", "journal_head", "journal_schema"}


def test_a_migration_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(OLD_SCHEMA)
        made.execute("INSERT INTO decisions VALUES ('a', 1, 'forward', 'safe', NULL, NULL, NULL, NULL, 'no json')")
        made.commit()
    with pytest.raises(JournalError, match="taken over"):
        open_journal(path)
    with closing(sqlite3.connect(path)) as after:
        tables = {name for (name,) in after.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert after.execute("SELECT count(*) FROM decisions").fetchone() == (1,)
    assert tables == {"decisions", "outcomes"}


@pytest.mark.parametrize(("sync", "value"), [(False, 1), (True, 2)])
def test_the_disk_is_waited_for_when_asked(tmp_path, sync, value):
    opened = Database(section(tmp_path / "j.db", sync=sync))
    with opened.appending() as ledger:
        assert ledger.connection.execute(sa.text("PRAGMA synchronous")).scalar() == value
    opened.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"journal.url": "mysql://x/y"}, "postgresql://"),
        ({"journal.url": "postgresql://ann:hunter2@db/x"}, "PGPASSWORD"),
        ({"journal.url": "postgresql://db/x?user=a&password=hunter2"}, "PGPASSWORD"),
        ({"journal.url": "postgresql://db/x", "journal.path": "a.db"}, "one place"),
        ({"journal.retention_days": 0}, "journal.retention_days"),
    ],
)
def test_wrong_settings_are_named_and_passwords_are_not_repeated(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as raised:
        load_config(None, settings)
    assert "hunter2" not in str(raised.value)


def test_a_server_out_of_reach_is_named():
    with pytest.raises(JournalError, match=r"journal\.url = postgresql://127\.0\.0\.1:9/x"):
        Database(section("postgresql://127.0.0.1:9/x"), timeout_s=2)


def test_a_connection_that_goes_silent_is_given_up(server):
    with database(server) as opened, opened.appending() as ledger:
        found = ledger.connection.connection.driver_connection.info.get_parameters()
        limit = ledger.connection.execute(sa.text("SHOW statement_timeout")).scalar()
    names = ("tcp_user_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count")
    assert [found[name] for name in names] == ["15000", "5", "5", "2"]
    assert limit == "30s"
    with database(f"{server}&keepalives_idle=60") as opened, opened.appending() as ledger:
        found = ledger.connection.connection.driver_connection.info.get_parameters()
    assert (found["keepalives_idle"], found["keepalives_count"]) == ("60", "2"), "the address has the last word"


def test_a_statement_that_takes_too_long_is_ended_and_a_long_reading_is_not(server, monkeypatch):
    monkeypatch.setattr("guard.journal.engines._STATEMENT_S", 0.3)
    with database(server) as opened:
        with pytest.raises(sa.exc.OperationalError, match="statement timeout"), opened.appending() as ledger:
            ledger.connection.execute(sa.text("SELECT pg_sleep(20)"))
        with opened.reading() as connection:
            connection.execute(sa.text("SELECT pg_sleep(0.6)"))
        with pytest.raises(sa.exc.OperationalError, match="statement timeout"), opened.appending() as ledger:
            ledger.connection.execute(sa.text("SELECT pg_sleep(20)"))  # also where there was a reading before


def test_records_whose_statement_took_too_long_fail_together(server, monkeypatch):
    """One by one, each would wait as long again."""
    name = f"test{next(NAMED)}"
    with database(server) as opened, opened.appending() as ledger:
        ledger.connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    place = f"{server}&options=-csearch_path%3D{name}"
    monkeypatch.setattr("guard.journal.engines._STATEMENT_S", 0.3)
    journal = open_journal(place)
    with database(place) as opened, opened.appending() as ledger:
        ledger.connection.execute(
            sa.text(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF NEW.kind = 'decision' THEN PERFORM pg_sleep(20); END IF; RETURN NEW; END $$"
            )
        )
        ledger.connection.execute(
            sa.text("CREATE TRIGGER slow BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION slow()")
        )
    tried, append = [], journal._append
    monkeypatch.setattr(journal, "_append", lambda writes: (tried.append(len(writes)), append(writes)))

    async def run():
        return await asyncio.gather(*(journal.decided(forward(), "") for _ in range(20)), return_exceptions=True)

    ended = asyncio.run(asyncio.wait_for(run(), 30))
    assert all("statement timeout" in str(each) for each in ended)
    assert len(tried) <= 3, tried
    journal.close()
    (gap,) = records(place)
    assert gap.content["decisions"] == 20


def test_a_server_that_was_away_is_written_to_again(server):
    with database(server) as opened:
        pass
    journal = open_journal(server)
    write(journal, forward())
    with database(server) as opened, opened.appending() as ledger:
        ledger.connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND state = 'idle'"
            )
        )
    write(journal, forward())
    journal.close()
    assert len(records(server, "decision")) == 2
    assert verified(server).sound
