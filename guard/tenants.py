"""API keys: made by `airlock keys`, kept as salted hashes in a file, looked up while serving.

A key is ``airlock_<id>_<secret>``. The id finds the entry; the secret is 256 random bits, so that no dictionary and no
brute force gets at it, and HMAC-SHA256 under a salt is enough: a slow password hash would only slow down the gateway.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, Field, ValidationError

from classifier.taxonomy import UniqueKeyLoader
from guard.errors import AirlockError, ConfigError
from guard.fields import Section
from guard.policy import fits
from guard.yaml_file import MALFORMED

_KEY = re.compile(r"airlock_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_HEX = r"^[0-9a-f]{64}$"
TENANT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Reason = Literal["no_key", "unknown_key", "wrong_key", "expired_key", "revoked_key"]


class NotLoggedIn(AirlockError):
    """No key that opens; the reason is for the journal, never for whoever asked."""

    def __init__(self, reason: Reason, tenant: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tenant = tenant


class Entry(Section):
    """One key, as the file keeps it: enough to know it again, not enough to use it."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    tenant: Annotated[str, Field(pattern=TENANT)]
    salt: Annotated[str, Field(pattern=_HEX)]
    hash: Annotated[str, Field(pattern=_HEX)]
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens at a time."""
        if self.revoked is not None and self.revoked <= now:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class _File(Section):
    keys: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key opens.

    Attributes:
        tenant: whose it is.
        models: patterns (``gpt-*``) of the models that may be asked for; none for all.
        endpoints: patterns of the endpoints, such as ``chat``; none for all.
    """

    tenant: str
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    def may_use(self, endpoint: str) -> bool:
        """Whether an endpoint is open to it."""
        return not self.endpoints or fits(endpoint, self.endpoints)

    def may_ask(self, model: str) -> bool:
        """Whether a model is open to it."""
        return not self.models or fits(model, self.models)


class Keys:
    """The keys of a file; a change of the file holds from the next request on.

    Raises:
        ConfigError: the file is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, Entry] = {}
        self.refresh()

    def login(self, presented: Iterable[str]) -> Grant:
        """What the key that a client presents opens.

        Args:
            presented: the keys that its headers hold; several that differ are none.

        Raises:
            NotLoggedIn: nothing.
            ConfigError: the file has gone or is malformed, and nobody gets in until it is mended.
        """
        self.refresh()
        keys = set(presented)
        if not keys:
            raise NotLoggedIn("no_key")
        found = _KEY.fullmatch(keys.pop())
        if keys or found is None:
            raise NotLoggedIn("unknown_key")
        entry = self._entries.get(found[1])
        known = entry or _NOBODY  # one that is unknown takes as long as one that is wrong
        right = hmac.compare_digest(_hash(found[2], known.salt), known.hash)
        if entry is None:
            raise NotLoggedIn("unknown_key")
        if not right:
            raise NotLoggedIn("wrong_key")
        match entry.state(datetime.now(UTC)):
            case "expired":
                raise NotLoggedIn("expired_key", entry.tenant)
            case "revoked":
                raise NotLoggedIn("revoked_key", entry.tenant)
            case "valid":
                return Grant(entry.tenant, entry.models, entry.endpoints)

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises:
            ConfigError: as of `login`.
        """
        try:
            found = self._path.stat()
        except OSError as exc:
            self._seen = None
            raise _unreadable(self._path, exc) from exc
        now = (found.st_mtime_ns, found.st_size, found.st_ino)
        if now != self._seen:
            self._seen = None
            self._entries = {entry.id: entry for entry in read_keys(self._path)}
            self._seen = now


def read_keys(path: Path) -> list[Entry]:
    """The entries of a file of keys.

    Raises:
        ConfigError: it is missing or malformed.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
        entries = list(_File.model_validate(data or {}).keys)
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(path, exc) from exc
    except ValidationError as exc:  # it quotes values, which may be a key that was put in the wrong place
        where = ".".join(map(str, exc.errors()[0]["loc"]))
        raise ConfigError(f"access.keys = {path}: {where} is wrong or unknown; write it with `airlock keys`") from exc
    except (yaml.YAMLError, *MALFORMED) as exc:
        raise ConfigError(f"access.keys = {path}: is no YAML; write it with `airlock keys`") from exc
    if len({entry.id for entry in entries}) < len(entries):
        raise ConfigError(f"access.keys = {path}: two keys have one id; remove one of them")
    return entries


def new_key(
    tenant: str, *, models: Iterable[str] = (), endpoints: Iterable[str] = (), expires: datetime | None = None
) -> tuple[str, Entry]:
    """A key, which is nowhere else, and what is kept of it.

    Raises:
        ConfigError: the tenant's name is not one.
    """
    if not re.fullmatch(TENANT, tenant):
        raise ConfigError(f"tenant {tenant!r}: need 1 to 64 letters, digits, dots, dashes or underscores")
    identifier, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(32)
    entry = Entry(
        id=identifier,
        tenant=tenant,
        salt=salt,
        hash=_hash(secret, salt),
        models=tuple(models),
        endpoints=tuple(endpoints),
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
    )
    return f"airlock_{identifier}_{secret}", entry


@contextmanager
def changing(path: Path, *, make: bool = False) -> Iterator[list[Entry]]:
    """The entries of a file, to be changed in place; written back whole, and one writer at a time.

    Args:
        path: the file.
        make: whether one is made if it is not there.

    Raises:
        ConfigError: the file is missing, malformed, or cannot be written or stay its owner's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            entries = [] if make and not path.exists() else read_keys(path)
            yield entries
            _write(path, entries)
    except OSError as exc:
        raise ConfigError(f"access.keys = {path}: cannot be written ({exc.strerror}); name another file") from exc


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Meanwhile the only writer of a file of keys."""
    import fcntl

    lock = path.with_name(f"{path.name}.lock")
    try:
        try:
            descriptor = _make(lock, path, 0o600)
        except FileExistsError:
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as exc:
        raise ConfigError(
            f"access.keys = {path}: its lock {lock} cannot be opened ({exc.strerror}); run `airlock keys` as its owner "
            "or as root, or remove it"
        ) from exc
    with os.fdopen(descriptor, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(new: Path, path: Path, mode: int | None = None) -> int:
    """Make a file beside a file of keys, for the same owner and group; opened.

    Args:
        new: it must not be there.
        path: the file of keys; while there is none, the new file is the caller's.
        mode: None for that of the file of keys.

    Raises:
        ConfigError: it cannot be given to them.
    """
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if path.exists():
            old = path.stat()
            os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if mode is None else mode)
    except OSError as exc:
        os.close(descriptor)
        new.unlink(missing_ok=True)
        raise ConfigError(
            f"access.keys = {path}: {new.name} cannot get its owner, group and mode ({exc.strerror}), and the gateway "
            "might no longer read the keys; run `airlock keys` as its owner or as root"
        ) from exc
    return descriptor


def _write(path: Path, entries: list[Entry]) -> None:
    kept = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    text = "# Written by `airlock keys`. No key can be read from it.\n" + yaml.safe_dump(
        {"keys": kept}, sort_keys=False
    )
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(_make(temporary, path), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _hash(secret: str, salt: str) -> str:
    return hmac.new(bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def _unreadable(path: Path, exc: Exception) -> ConfigError:
    reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8"
    mend = "let the gateway's user read it" if isinstance(exc, PermissionError) else "make it with `airlock keys new`"
    return ConfigError(f"access.keys = {path}: cannot be read ({reason}); {mend}")


_NOBODY = new_key("nobody")[1]
