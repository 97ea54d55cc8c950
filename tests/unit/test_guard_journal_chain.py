"""The chain: whatever is done to its records is found, as far as the records and the head can tell."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import BadRequest, JournalError
from guard.journal.chain import GENESIS, Keys, link, sealed
from guard.journal.records import Draft, Kind, Record, canonical, draft
from guard.journal.verify import Anchor, verify
from guard.types import Decision, Route
from tests.journals import open_journal, records, verified, write

KEYED = Keys(b"a key of many characters")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def drafts(count):
    return [draft(Kind.OUTCOME, {"outcome": "answered", "n": n}, f"dec_{n}", float(n)) for n in range(count)]


def chain(count, keys=KEYED):
    return link(drafts(count), sealed(0, GENESIS, 0, keys), keys, 0.0)


@pytest.mark.parametrize("keys", [Keys(), KEYED])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_untouched_chain_holds(keys, count):
    found, head = chain(count, keys)
    report = verify(found, head, keys, Anchor.parse(str(head)) if count else None)
    assert report.sound, report.shown
    assert (report.records, report.first, report.keyed) == (count, min(count, 1), count if keys.sign else 0)


@given(st.data(), st.sampled_from([Keys(), KEYED]))
def test_a_change_of_any_value_is_found(data, keys):
    found, head = chain(5, keys)
    at = data.draw(st.integers(0, 4))
    field = data.draw(st.sampled_from(["seq", "time", "kind", "decision", "payload", "previous", "hash"]))
    old = getattr(found[at], field)
    new = data.draw(
        {
            "seq": st.integers(0, 9),
            "time": st.floats(allow_nan=True),
            "decision": st.none() | TEXTS,
            "payload": TEXTS | st.binary(max_size=3) | st.just(canonical({"outcome": "refused"})),
        }.get(field, TEXTS)
    )
    if new != old:
        found[at] = replace(found[at], **{field: new})
        assert not verify(found, head, keys).sound


@given(st.data())
def test_records_taken_out_or_put_in_another_order_are_found(data):
    found, head = chain(6)
    kept = data.draw(st.permutations(found)).copy()
    kept = kept[: data.draw(st.integers(0, 6))]
    if kept != found:
        assert not verify(kept, head, KEYED).sound


@given(st.integers(1, 5), st.integers(0, 6))
def test_a_shorter_end_is_found_by_the_head_and_by_one_kept_elsewhere(left_out, noted):
    found, head = chain(6)
    shorter = found[: 6 - left_out]
    assert not verify(shorter, head, KEYED).sound
    # Who can write everything, and has an old copy, puts it back; only an anchor that is younger than it finds that.
    old_head = sealed(len(shorter), shorter[-1].hash, 0, KEYED)
    anchor = Anchor(noted, found[noted - 1].hash if noted else GENESIS)
    assert verify(shorter, old_head, KEYED, anchor).sound is (noted <= len(shorter))


def test_who_has_no_key_cannot_write_a_chain():
    honest, head = chain(4)
    forged, forged_head = chain(4, Keys())
    assert not verify(forged, forged_head, KEYED).sound
    assert not verify([*honest[:2], *forged[2:]], forged_head, KEYED).sound
    tail, tail_head = link(drafts(2), head, Keys(b"a key of somebody else"), 0.0)
    assert not verify([*honest, *tail], tail_head, KEYED).sound
    shortened = replace(head, seq=3, hash=honest[2].hash)
    assert not verify(honest[:3], shortened, KEYED).sound, "the head's seal needs the key too"
    assert verify(honest, head, KEYED).sound


def test_without_the_key_a_keyed_chain_is_not_called_sound():
    found, head = chain(3)
    report = verify(found, head, Keys())
    assert not report.sound
    assert "its key is needed" in report.shown[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            Keys(b"a key of somebody else"),
            "was written with the key of journal.key_env: that is another one, or all of it was written anew",
        ),
        (Keys(), "can be checked: its key is needed (journal.key_env)"),
    ],
)
def test_a_key_that_fits_nothing_is_named_once(keys, said):
    found, head = chain(12)
    for end in (head, None):
        report = verify(found, end, keys)
        others = [] if end else ["the head is missing"]
        assert report.shown == [f"none of the 12 keyed records {said}", *others]
        assert report.problems == 13
    del found[2]
    assert "records 3 to 3 are missing" in verify(found, head, keys).shown


def test_records_that_were_changed_are_named_one_by_one_where_the_key_fits():
    found, head = chain(3)
    changed = [replace(record, time=9.0) for record in found]
    said = [f"record {n} was changed, or the key is another one" for n in (1, 2, 3)]
    assert verify(changed, head, KEYED).shown == said, "the head fits the key"
    assert verify([*changed[:2], found[2]], None, KEYED).shown == [*said[:2], "the head is missing"]


def test_a_key_that_was_changed_is_still_known():
    found, head = chain(3, Keys(b"the key before this one"))
    keys = Keys(b"the key that signs now", (b"the key before this one",))
    after, head = link(drafts(2), head, keys, 0.0)
    assert verify([*found, *after], head, keys).sound
    assert not verify([*found, *after], head, Keys(b"the key that signs now")).sound


def cut(found, head, through, keys=KEYED):
    """A checkpoint, and what is left after it."""
    said = draft(Kind.CHECKPOINT, {"through": through, "hash": found[through - 1].hash})
    more, head = link([said], head, keys, 0.0)
    return [*found, *more], sealed(head.seq, head.hash, through, keys)


@given(st.integers(1, 6), st.integers(0, 7), st.integers(1, 6))
def test_only_what_a_checkpoint_signs_off_may_be_missing(through, left_out, second):
    found, head = cut(*chain(6), through)
    assert verify(found[left_out:], head, KEYED).sound is (left_out <= through)
    if second > through:
        found, head = cut(found, head, second)
        assert verify(found[left_out:], head, KEYED).sound is (left_out <= second)


def test_a_head_older_than_what_was_deleted_is_not_called_the_right_one():
    found, head = cut(*chain(6), 4)
    left = found[4:]

    def said(seq, value):
        return verify(left, head, KEYED, Anchor(seq, value)).shown

    assert all("nothing can be compared" in said(seq, value)[0] for seq in (1, 3) for value in (found[2].hash, "x"))
    assert said(4, "x") == ["record 4, which was deleted, was not the one of --head"]
    assert said(0, "x") == ["record 0, the beginning, is not the one of --head"]
    assert said(5, "x") == ["record 5 is not the one of --head"]
    for seq, value in ((0, GENESIS), (4, found[3].hash), (5, found[4].hash), (7, found[6].hash)):
        assert said(seq, value) == []
    assert verify(found, head, KEYED, Anchor(3, found[2].hash)).sound, "signed off, and still there"
    assert not verify(*chain(2), KEYED, Anchor(0, "x")).sound


def test_a_checkpoint_that_was_made_up_is_found():
    found, head = chain(6)
    record, new_head = link([draft(Kind.CHECKPOINT, {"through": 4, "hash": found[3].hash})], head, Keys(), 0.0)
    assert not verify([*found[4:], *record], new_head, KEYED).sound
    wrong, wrong_head = link([draft(Kind.CHECKPOINT, {"through": 4, "hash": found[1].hash})], head, KEYED, 0.0)
    assert not verify([*found[4:], *wrong], sealed(7, wrong_head.hash, 4, KEYED), KEYED).sound
    odd, odd_head = link([draft(Kind.CHECKPOINT, {})], head, KEYED, 0.0)
    assert not verify([*found, *odd], odd_head, KEYED).sound


@pytest.mark.parametrize("keys", [Keys(), KEYED])
@pytest.mark.parametrize("seq", [0, -1, -(2**63)])
@pytest.mark.parametrize("length", [0, 3, "cut"])
def test_a_record_before_the_first_is_found(keys, seq, length):
    found, head = chain(3 if length == "cut" else length, keys)
    if length == "cut":
        found, head = cut(found, head, 2, keys)
        found = found[2:]
    (record,), _ = link([draft(Kind.OUTCOME, {})], sealed(seq - 1, GENESIS, 0, keys), keys, 0.0)
    report = verify([record, *found], head, keys)
    assert report.shown == [f"record {seq} was added: the first one is 1"]
    assert report.first == (found[0].seq if found else 0)


def test_a_missing_head_is_a_problem():
    found, _ = chain(2)
    assert verify(found, None, KEYED).shown == ["the head is missing"]


@pytest.mark.parametrize("text", ["", "7", "x:sha256:00", "-1:sha256:00", "3:"])
def test_a_head_that_is_none_is_refused(text):
    with pytest.raises(BadRequest, match="--head"):
        Anchor.parse(text)


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AIRLOCK_TEST_KEY", f"{'new' * 8}\n {'old' * 8}")
    assert Keys.of("journal.key_env", "AIRLOCK_TEST_KEY") == Keys(b"new" * 8, (b"old" * 8,))
    for value in ("", "short", f"{'new' * 8} short"):
        monkeypatch.setenv("AIRLOCK_TEST_KEY", value)
        with pytest.raises(JournalError, match=r"journal\.key_env = AIRLOCK_TEST_KEY") as raised:
            Keys.of("journal.key_env", "AIRLOCK_TEST_KEY")
        assert "newnew" not in str(raised.value)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        lambda inner: st.dictionaries(TEXTS, inner, max_size=3) | st.lists(inner, max_size=3),
        max_leaves=8,
    )
)
def test_canonical_json_comes_back_the_same_from_an_export(value):
    import json

    assert canonical(json.loads(canonical(value))) == canonical(value)


def forward():
    return Decision(Route.FORWARD, "safe")


def test_a_journal_is_keyed_from_some_record_on_and_never_goes_on_without(tmp_path, monkeypatch):
    path = tmp_path / "j.db"
    journal = open_journal(path)
    write(journal, forward())
    journal.close()
    monkeypatch.setenv("AIRLOCK_TEST_KEY", "k" * 20)
    journal = open_journal(path, key_env="AIRLOCK_TEST_KEY")
    write(journal, forward())
    journal.close()
    report = verified(path, key_env="AIRLOCK_TEST_KEY")
    assert report.sound, report.shown
    assert (report.records, report.keyed) == (3, 2)
    assert [record.kind for record in records(path, key_env="AIRLOCK_TEST_KEY")] == ["decision", "key", "decision"]
    with pytest.raises(JournalError, match=r"journal\.key_env"):
        open_journal(path)
    monkeypatch.setenv("AIRLOCK_TEST_KEY", "x" * 20)
    with pytest.raises(JournalError, match="chain was changed, or its key"):
        open_journal(path, key_env="AIRLOCK_TEST_KEY")
    monkeypatch.setenv("AIRLOCK_TEST_KEY", f"{'x' * 20} {'k' * 20}")
    open_journal(path, key_env="AIRLOCK_TEST_KEY").close()
    open_journal(path, key_env="AIRLOCK_TEST_KEY").close()
    assert verified(path, key_env="AIRLOCK_TEST_KEY").sound
    assert len(records(path, "key", key_env="AIRLOCK_TEST_KEY")) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET payload = '{}' WHERE seq = 2",
        "DELETE FROM journal WHERE seq = 2",
        "DELETE FROM journal WHERE seq = 3",
        "UPDATE journal SET seq = 9 WHERE seq = 3",
        "UPDATE journal SET decision = NULL",
        "INSERT INTO journal SELECT seq + 3, time, 'outcome', decision, payload, previous, hash FROM journal",
        "INSERT INTO journal SELECT -1, time, 'outcome', decision, payload, previous, hash FROM journal WHERE seq = 1",
        "UPDATE journal_head SET seq = 2",
        "UPDATE journal_head SET pruned = 2; DELETE FROM journal WHERE seq < 3",
        "DROP TRIGGER journal_head_stays; DELETE FROM journal_head",
    ],
)
def test_the_database_refuses_changes_and_verification_finds_them_where_it_is_made_not_to(tmp_path, statement):
    path = tmp_path / "j.db"
    journal = open_journal(path)
    write(journal, *(forward() for _ in range(3)))
    journal.close()
    with closing(sqlite3.connect(path)) as database:
        if statement.startswith(("UPDATE journal SET", "DELETE FROM journal WHERE")):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.executescript(statement)
        assert verified(path).sound
        database.executescript("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete;" + statement)
        database.commit()
    assert not verified(path).sound


def test_records_have_values_of_the_right_kind():
    (record,), _ = link([Draft(Kind.GAP, "{}")], sealed(0, GENESIS, 0, KEYED), KEYED, 5.0)
    assert record == Record(1, 5.0, "gap", None, "{}", GENESIS, record.hash)
    with pytest.raises(JournalError, match="record 1 is damaged"):
        _ = replace(record, payload="[1]").content
