"""Real processes on 127.0.0.1, each stopped by its pid; the command line, in this process or in one of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from e2e_cases import FORWARD_ALL, KEY_PATTERN, MODEL, REPOSITORY, OddUpstream, Started, environment, served, strict
from openai import OpenAI

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests, and only these, may talk to this machine."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def judgement() -> None:
    """Skips a test that rests on the classifier's judgement while the model that lies there has none."""
    manifest = MODEL / "manifest.json"
    rows = json.loads(manifest.read_text(encoding="utf-8"))["rows"]["train"] if manifest.exists() else 0
    if rows <= 20_000:
        pytest.skip(f"{MODEL.name} is a placeholder, trained on {rows} rows; train it with `make train`")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The labelled rows beside the repository."""
    folder = REPOSITORY.parent / "shared" / "datasets"
    if not (folder / "tiers.jsonl").exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@dataclass(frozen=True, slots=True)
class Canned:
    """The canned upstream."""

    url: str
    log: Path

    @property
    def arrived(self) -> list[str]:
        """The last message of every request that arrived."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["body"]["messages"][-1]["content"] for line in lines]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process, as `airlock serve` starts it."""

    url: str
    journal: Path
    started: Started

    def client(self, **options: Any) -> OpenAI:
        """The official client, unchanged but for its address."""
        return OpenAI(base_url=self.url, api_key="sk-of-the-client", max_retries=0, timeout=60, **options)


@pytest.fixture(scope="session")
def canned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canned]:
    folder = tmp_path_factory.mktemp("canned")
    log = folder / "arrived.jsonl"
    started = Started("guard.canned", "--log", str(log), cwd=folder, log=folder / "stderr.log")
    try:
        yield Canned(started.line, log)
    finally:
        started.end()


@pytest.fixture(scope="session")
def gateway(canned: Canned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Default policy, with one output pattern, in front of the canned upstream."""
    folder = tmp_path_factory.mktemp("gateway")
    settings = {
        "server": {"port": 0},
        "upstream": {"base_url": canned.url},
        "output": {"patterns": [KEY_PATTERN]},
        "journal": {"path": "journal.db"},
    }
    config = folder / "airlock.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    started = Started("guard", "serve", "--config", str(config), "--json", cwd=folder, log=folder / "stderr.log")
    try:
        yield Gateway(json.loads(started.line)["serving"], folder / "journal.db", started)
        started.process.send_signal(signal.SIGINT)
        assert started.wait() == 0
    finally:
        started.end()


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    """A bare client of the gateway process."""
    with httpx.Client(base_url=gateway.url.removesuffix("/v1"), timeout=60) as client:
        yield client


@dataclass(frozen=True, slots=True)
class OpenGateway:
    """A gateway in this process whose policy forwards everything, in front of the odd upstream."""

    url: str
    journal: Path
    upstream: OddUpstream


@pytest.fixture(scope="session")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenGateway]:
    from guard import load_config, load_guard
    from guard.proxy import Gateway as App
    from guard.upstream import Forwarder

    folder = tmp_path_factory.mktemp("open")
    upstream = OddUpstream()
    with served(upstream, lifespan="off") as address:
        settings = {
            "upstream": {"base_url": f"{address}/v1", "read_timeout_s": 1.0},
            "policy": FORWARD_ALL,
            "output": {"classifier": False, "patterns": [KEY_PATTERN], "hold_back": 90, "stride": 30},
            "journal": {"path": "journal.db"},
        }
        (folder / "airlock.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        config = load_config(folder / "airlock.yaml")
        with served(App(load_guard(config), Forwarder(config.upstream))) as url:
            yield OpenGateway(url, folder / "journal.db", upstream)


@pytest.fixture
def open_http(open_gateway: OpenGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_gateway.url, timeout=60) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, which is one JSON value and nothing else."""
        return strict(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output, one JSON value a line."""
        return [strict(line) for line in self.out.splitlines()]

    def done(self) -> Ran:
        """Itself, having checked that it went well and in silence."""
        assert (self.status, self.err) == (0, ""), self
        return self

    def failed(self, *words: str, status: int = 1, before: str = "") -> str:
        """Its one line on stderr, having checked that it holds each of the words; others only with `before` in them."""
        assert self.status == status, self
        assert self.out == "", self
        lines = self.err.splitlines(keepends=True)
        *earlier, error = lines
        assert all(before and before in line for line in earlier), self.err
        assert error.startswith("airlock: "), self.err
        for word in words:
            assert word in error, f"{word!r} is not in {error!r}"
        return error


Airlock = Callable[..., Ran]


def _forget_logging() -> None:
    """What `airlock serve` sets up is of its own process, which here goes on."""
    for handler in [*logging.getLogger().handlers]:
        if type(handler) is logging.StreamHandler:
            logging.getLogger().removeHandler(handler)
    for name in ("airlock", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def airlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Airlock:
    """`airlock …` as its entry point runs it, in this process and in an empty folder; models load in a second."""
    from guard.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["airlock", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            for silent in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", silent)  # as Python does outside of tests
            try:
                main()
                status = 0
            except SystemExit as exc:
                status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
            except BaseException:  # noqa: BLE001 - what a user would see as a traceback
                status = 1
                traceback.print_exc()
            finally:
                _forget_logging()
        out, err = capfd.readouterr()
        return Ran(
            status, out, err + "".join(f"{warning.category.__name__}: {warning.message}\n" for warning in warned)
        )

    return run


@pytest.fixture
def airlock_process(tmp_path: Path) -> Airlock:
    """`airlock …` in a process of its own; half a dozen seconds for whatever loads models."""

    def run(*arguments: object, stdin: bytes = b"", **variables: str) -> Ran:
        command = [os.path.join(os.path.dirname(sys.executable), "airlock"), *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(**variables), input=stdin, capture_output=True, timeout=120
        )
        return Ran(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run
