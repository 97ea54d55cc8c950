"""`airlock keys`: make, list, revoke and replace the API keys of tenants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from guard.tenants import Entry

NAME = "keys"
app = typer.Typer(no_args_is_help=True, help="Make, list, revoke and replace the API keys of tenants.")

KeysFile = Annotated[
    Path | None, typer.Option("--file", help="File of keys; `access.keys` of the configuration without it.")
]
Expires = Annotated[
    str | None, typer.Option(help="When it ends: a date and time such as 2027-01-31 or 2027-01-31T12:00, or 90d, 12h.")
]
Identifier = Annotated[str, typer.Argument(help="The id of a key, or the whole key.")]


@app.command("new")
def new(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    models: Annotated[list[str] | None, typer.Option("--models", help="Models it opens, as gpt-*; repeatable.")] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option("--endpoints", help="Endpoints it opens, as chat, models, check or ask; repeatable."),
    ] = None,
    expires: Expires = None,
    file: KeysFile = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is printed once, and kept nowhere."""
    from guard.tenants import changing, new_key

    _check_scope(models or (), endpoints or ())
    key, entry = new_key(tenant, models=models or (), endpoints=endpoints or (), expires=_moment(expires, "--expires"))
    with changing(_file(file, config), make=True) as entries:
        entries.append(entry)
    _print_key(key, entry, as_json=as_json)


@app.command("list")
def list_keys(file: KeysFile = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the keys, without what would open anything."""
    from datetime import UTC, datetime

    from guard.tenants import read_keys

    now = datetime.now(UTC)
    rows = [_row(entry, now) for entry in read_keys(_file(file, config))]
    if as_json:
        print_json({"keys": rows})
        return
    for row in rows:
        scope = f"models {','.join(row['models']) or '*'}  endpoints {','.join(row['endpoints']) or '*'}"
        typer.echo(f"{row['id']}  {row['state']:8} {row['tenant']:20} {scope}  expires {row['expires'] or 'never'}")


@app.command("revoke")
def revoke(key: Identifier, file: KeysFile = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Close a key at once, also for gateways that are serving."""
    from datetime import UTC, datetime

    from guard.tenants import changing

    now = datetime.now(UTC).replace(microsecond=0)
    with changing(_file(file, config)) as entries:
        at = _find(entries, key)
        before = entries[at].revoked if entries[at].state(now) == "revoked" else None
        entries[at] = entries[at].model_copy(update={"revoked": before or now})
        row = _row(entries[at], now)
    if as_json:
        print_json(row)
    else:
        since = f" since {before:%Y-%m-%d %H:%M:%S %Z} already" if before else ""
        typer.echo(f"{row['id']} of {row['tenant']} is revoked{since}")


@app.command("rotate")
def rotate(
    key: Identifier,
    overlap: Annotated[str, typer.Option(help="How long the old key still opens, as 7d, 12h or 0h.")] = "7d",
    expires: Expires = None,
    file: KeysFile = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a new key of the same tenant and scope; the old one opens until the overlap is over."""
    from datetime import UTC, datetime

    from guard.errors import ConfigError
    from guard.tenants import changing, new_key

    ends = _moment(overlap, "--overlap", at_once=True)
    expired = _moment(expires, "--expires")
    with changing(_file(file, config)) as entries:
        at = _find(entries, key)
        old = entries[at]
        if old.state(datetime.now(UTC)) != "valid":
            raise ConfigError(f"key {old.id} opens nothing any more; make a new one with `airlock keys new`")
        made, entry = new_key(old.tenant, models=old.models, endpoints=old.endpoints, expires=expired)
        if ends is not None and (old.expires is None or ends < old.expires):
            entries[at] = old.model_copy(update={"expires": ends})
        entries.append(entry)
    _print_key(made, entry, as_json=as_json)


def _file(file: Path | None, config: Path | None) -> Path:
    from guard.config import load_config
    from guard.errors import ConfigError

    path = file or load_config(config).access.keys
    if path is None:
        raise ConfigError("access.keys: no file of keys is named; give --file, or a configuration that names one")
    return path


def _find(entries: list[Entry], key: str) -> int:
    from guard.errors import ConfigError

    identifier = key.split("_")[1] if key.startswith("airlock_") else key
    for at, entry in enumerate(entries):
        if entry.id == identifier:
            return at
    raise ConfigError(f"there is no key with the id {identifier[:12]!r}; `airlock keys list` shows them")


def _check_scope(models: Sequence[str], endpoints: Sequence[str]) -> None:
    """Whether each pattern can open something.

    Raises:
        ConfigError: one cannot.
    """
    from guard.endpoints import DOCUMENT, MODELS, OTHER, OWN, name_of
    from guard.errors import ConfigError
    from guard.policy import fits
    from guard.wires import BY_ENDPOINT

    if not all(pattern.strip() for pattern in models):
        raise ConfigError("--models '': need the name of a model, or a pattern such as gpt-*; leave it out for all")
    served = [*BY_ENDPOINT, name_of(MODELS), *OWN.values(), name_of(DOCUMENT)]
    for pattern in endpoints:
        if not any(fits(name, (pattern,)) for name in [*served, OTHER]):  # what else an app of one's own serves
            raise ConfigError(
                f"--endpoints {pattern!r}: fits none of {', '.join(served)}; repeat the option for several, or leave "
                "it out for all"
            )


def _moment(text: str | None, option: str, *, at_once: bool = False) -> datetime | None:
    """The time of an option, given as such or as days or hours from now; to the second, and not past.

    Raises:
        ConfigError: it is none, or has come; now is a time too with `at_once`.
    """
    import re
    from datetime import UTC, datetime, timedelta

    from guard.errors import ConfigError

    if text is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    if ahead := re.fullmatch(r"(\d{1,5})([dh])", text):
        moment = now + timedelta(hours=int(ahead[1]) * (24 if ahead[2] == "d" else 1))
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as exc:
            raise ConfigError(f"{option} {text!r}: need a time such as 2027-01-31T12:00, 90d or 12h") from exc
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment < now or (moment == now and not at_once):
        raise ConfigError(f"{option} {text!r}: is past; need a time to come, such as 90d or 12h")
    return moment


def _row(entry: Entry, now: datetime) -> dict[str, Any]:
    said = entry.model_dump(mode="json", exclude={"salt", "hash"})
    return {**said, "state": entry.state(now)}


def _print_key(key: str, entry: Entry, *, as_json: bool) -> None:
    from datetime import UTC, datetime

    if as_json:
        print_json({"key": key, **_row(entry, datetime.now(UTC))})
    else:
        typer.echo(key)
        typer.echo(f"id {entry.id} of {entry.tenant}; the key is shown this once, and kept nowhere", err=True)
