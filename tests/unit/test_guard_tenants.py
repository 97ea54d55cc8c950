"""API keys: what is kept of them, who gets in with them, and what of a file's changes holds when."""

import fcntl
import hmac
import os
import re
import stat
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import tenants
from guard.errors import ConfigError
from guard.tenants import Grant, Keys, NotLoggedIn, changing, new_key, read_keys

NOW = datetime.now(UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.yaml"


def added(path, tenant="acme", **scope):
    key, entry = new_key(tenant, **scope)
    with changing(path, make=True) as entries:
        entries.append(entry)
    return key


def changed(path, identifier, **values):
    with changing(path) as entries:
        at = next(at for at, entry in enumerate(entries) if entry.id == identifier)
        entries[at] = entries[at].model_copy(update=values)


def reason(keys, *presented):
    with pytest.raises(NotLoggedIn) as caught:
        keys.login(presented)
    return caught.value.reason


def test_the_file_knows_a_key_again_and_cannot_tell_it(path):
    key = added(path, models=["gpt-*"], endpoints=["chat"])
    text = path.read_text()
    identifier, secret = key.split("_", 2)[1:]
    assert identifier in text
    assert secret not in text
    assert path.stat().st_mode & 0o077 == 0
    assert Keys(path).login([key]) == Grant("acme", ("gpt-*",), ("chat",))
    assert added(path) != key


def test_two_keys_of_the_same_secret_would_have_different_hashes(path):
    (_, first), (_, second) = new_key("a"), new_key("a")
    assert tenants._hash("s", first.salt) != tenants._hash("s", second.salt)


def test_what_does_not_open(path):
    key, other = added(path), added(path, "other")
    keys = Keys(path)
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert reason(keys) == "no_key"
    assert reason(keys, wrong) == "wrong_key"
    assert reason(keys, new_key("acme")[0]) == "unknown_key"
    assert reason(keys, "sk-something") == reason(keys, "") == reason(keys, f"{key}\n") == "unknown_key"
    assert reason(keys, key, other) == "unknown_key"
    assert keys.login([key, key]).tenant == "acme"


@given(st.text(max_size=80))
def test_no_text_opens_or_breaks_anything(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "one-key.yaml"
    if not path.exists():
        added(path)
    assert reason(Keys(path), text) == "unknown_key"


def test_every_comparison_takes_constant_time_also_of_unknown_keys(path, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    keys = Keys(path) if path.exists() else (added(path), Keys(path))[1]
    reason(keys, new_key("acme")[0])
    assert len(compared) == 1
    assert all(len(side) == 64 for side in compared[0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"expires": NOW - timedelta(seconds=1)}, "expired_key"),
        ({"revoked": NOW - timedelta(seconds=1)}, "revoked_key"),
        ({"revoked": NOW - timedelta(seconds=1), "expires": NOW + timedelta(days=1)}, "revoked_key"),
    ],
)
def test_a_key_that_was_closed_while_serving_opens_no_more(path, values, expected):
    key = added(path)
    keys = Keys(path)
    assert keys.login([key]).tenant == "acme"
    changed(path, key.split("_")[1], **values)
    assert reason(keys, key) == expected


def test_a_new_key_opens_while_serving_and_both_do_during_a_rotation(path):
    old = added(path)
    keys = Keys(path)
    new = added(path)
    changed(path, old.split("_")[1], expires=datetime.now(UTC) + timedelta(hours=1))
    assert keys.login([old]) == keys.login([new])


def test_nobody_gets_in_while_the_file_is_broken(path):
    key = added(path)
    keys = Keys(path)
    whole = path.read_text()
    for broken in ("keys: [", "keys: 3", f"keys:\n- id: {key}\n", whole + whole.partition("\n")[2], "\xff"):
        path.write_bytes(broken.encode("latin-1"))
        for _ in range(2):  # also the second time, when nothing has changed since
            with pytest.raises(ConfigError) as caught:
                keys.login([key])
            assert key not in str(caught.value)
    path.unlink()
    with pytest.raises(ConfigError, match="airlock keys new"):
        keys.login([key])
    path.write_text(whole)
    assert keys.login([key]).tenant == "acme"


def test_a_file_of_another_user_is_to_be_made_readable_and_not_made_anew(path, monkeypatch):
    added(path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    for way in ("stat", "read_text"):
        with monkeypatch.context() as patched:
            patched.setattr(type(path), way, refused)
            with pytest.raises(ConfigError, match=r"\(Permission denied\); let the gateway's user read it$"):
                Keys(path)


def test_two_entries_with_one_id_are_refused(path):
    added(path)
    with changing(path) as entries:
        entries.append(entries[0])
    with pytest.raises(ConfigError, match="two keys have one id"):
        read_keys(path)


def owned(path):
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_root_changes_stays_its_owners_and_so_does_the_lock(path):
    lock = path.with_name("keys.yaml.lock")
    added(path)
    os.chown(path, 10001, 10002)
    path.chmod(0o640)
    lock.unlink()
    added(path)
    assert owned(path) == (10001, 10002, 0o640)
    assert owned(lock) == (10001, 10002, 0o600)


def test_the_mode_of_a_file_is_kept(path):
    added(path)
    path.chmod(0o640)
    added(path)
    assert owned(path) == (os.geteuid(), os.getegid(), 0o640)


def test_a_file_that_cannot_stay_its_owners_is_not_changed(path, monkeypatch):
    added(path)
    before = path.read_bytes()

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    for _ in range(2):  # with a lock that is there, and with one that must be made
        with pytest.raises(ConfigError, match=r"access\.keys = .*keys\.yaml: .* as its owner or as root"):
            added(path)
        assert path.read_bytes() == before
        path.with_name("keys.yaml.lock").unlink(missing_ok=True)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_lock_that_cannot_be_opened_is_named(path, kind):
    lock, other = path.with_name("keys.yaml.lock"), path.with_name("other")
    other.write_text("mine")
    lock.mkdir() if kind == "folder" else lock.symlink_to(other)
    with pytest.raises(ConfigError, match=r"access\.keys = .*keys\.yaml: its lock .*keys\.yaml\.lock cannot be opened"):
        added(path)
    assert other.read_text() == "mine"
    assert not path.exists()


def test_one_writer_waits_for_the_other(path):
    added(path)
    with path.with_name("keys.yaml.lock").open() as lock, changing(path), pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("tenant", ["", "a b", "a/b", "-a", "a" * 65, "ä"])
def test_a_tenant_has_a_plain_name(tenant):
    with pytest.raises(ConfigError, match="tenant"):
        new_key(tenant)


def test_keys_are_long_and_of_one_form():
    made = {new_key("acme")[0] for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"airlock_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", key) for key in made)


def test_scopes_are_patterns():
    grant = Grant("a", ("gpt-*", "llama-3"), ("chat", "a*"))
    assert [grant.may_ask(model) for model in ("gpt-4", "llama-3", "llama-33", "GPT-4", "")] == [1, 1, 0, 0, 0]
    assert [grant.may_use(name) for name in ("chat", "ask", "embeddings", "")] == [1, 1, 0, 0]
    assert Grant("a").may_ask("")
    assert Grant("a").may_use("anything")


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "keys: 1" + ":1" * 300 + ".0", "keys: !!bool x"])
def test_a_file_that_yaml_chokes_on_is_named(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"access\.keys = .*is no YAML"):
        read_keys(path)
