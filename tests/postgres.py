"""A throwaway PostgreSQL server for tests: a cluster in a temporary folder, on a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = "-c listen_addresses='' -c shared_buffers=16MB -c max_connections=30"
_FAST = "-c fsync=off -c full_page_writes=off"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where there is no server."""
    folders = [Path(found).resolve().parent for name in ("initdb",) if (found := shutil.which(name))]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


@contextmanager
def cluster(*, durable: bool = False) -> Iterator[str]:
    """A running server; yields the address of a database in it. Without `durable` it does not wait for the disk."""
    home = binaries()
    assert home is not None
    folder = Path(tempfile.mkdtemp(prefix="airlock-pg-"))
    user = _user()
    as_user = {"user": user} if user else {}
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(*command: object) -> None:
        done = subprocess.run(
            [str(each) for each in command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            **as_user,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run(home / "initdb", "-D", data, "-U", "airlock", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")
        options = f"{_OPTIONS}{'' if durable else f' {_FAST}'} -c unix_socket_directories={folder}"
        run(home / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://airlock@/postgres?host={folder}"
        finally:
            run(home / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    """Somebody else than root, whom the server does not start for."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
