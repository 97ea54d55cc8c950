"""Workers: what a signal to their server becomes, with processes that only say that they are there."""

import os
import signal
import socket
import threading
from multiprocessing import Pipe
from pathlib import Path

import pytest

from guard.config import load_config
from guard.errors import ConfigError
from guard.workers import Workers

FIRST_PID = 4_000_000


class Process:
    """Is started, and then lives."""

    def __init__(self, pid, channel):
        self.pid, self.channel, self.exitcode = pid, channel, None
        self.sentinel, self._end = Pipe(duplex=False)

    def start(self):
        self.channel = os.dup(self.channel.fileno())

    def is_alive(self):
        return True


class Spawning:
    """Makes such processes."""

    def __init__(self):
        self.processes, self.ends = [], []

    def Pipe(self, duplex):
        here, there = Pipe(duplex)
        self.ends.append(there)
        return here, Kept(there)

    def Process(self, target, args, name):
        self.processes.append(Process(FIRST_PID + len(self.processes), args[-1]))
        return self.processes[-1]


class Kept:
    """The end of a pipe that the process has too."""

    def __init__(self, end):
        self._end = end

    def fileno(self):
        return self._end.fileno()

    def close(self):
        pass


@pytest.fixture
def sent(monkeypatch):
    """Signals that were sent, by process."""
    found = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid - FIRST_PID, number)))
    return found


@pytest.fixture
def workers(monkeypatch):
    made = Workers(load_config(None, {"server.workers": 2}), Path("airlock.yaml"), {}, None)
    made._spawning = Spawning()
    return made


def step(workers, ready=()):
    workers._start_missing()
    for number in ready:
        workers._spawning.ends[number].send("v1")
    workers._look(lambda version: None)


def hang_up():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGHUP)


def test_a_hang_up_reaches_who_serves_at_once_and_who_loads_once_he_is_ready(workers, sent):
    with workers._signals():
        step(workers, ready=[0])
        step(workers)
        hang_up()
        assert sent == [(0, signal.SIGHUP)]
        step(workers, ready=[1])
        assert sent == [(0, signal.SIGHUP), (1, signal.SIGHUP)]
        hang_up()
    assert sent[2:] == [(0, signal.SIGHUP), (1, signal.SIGHUP)]


def test_who_is_started_after_a_hang_up_is_sent_none(workers, sent):
    with workers._signals():
        hang_up()
        step(workers, ready=[0])
        step(workers, ready=[1])
    assert sent == []


def test_without_a_file_to_read_again_a_hang_up_ends_the_server_as_it_does_a_single_one(sent):
    made = Workers(load_config(None, {"server.workers": 2}), None, {}, None)
    with made._signals():
        hang_up()
    assert made._stop
    assert sent == []


def test_a_worker_that_has_just_ended_stops_no_hang_up(workers, monkeypatch):
    sent = []

    def kill(pid, number):
        if pid == FIRST_PID:
            raise ProcessLookupError
        sent.append(pid - FIRST_PID)

    monkeypatch.setattr(os, "kill", kill)
    with workers._signals():
        step(workers, ready=[0])
        step(workers, ready=[1])
        hang_up()
    assert sent == [1]


def ends(process, status, monkeypatch):
    process.exitcode = status
    monkeypatch.setattr(process, "is_alive", lambda: False)


def test_who_serves_and_ends_while_the_next_one_loads_is_replaced_once_that_one_is_ready(workers, monkeypatch, caplog):
    step(workers, ready=[0])
    step(workers)
    ends(workers._spawning.processes[0], -signal.SIGSEGV, monkeypatch)
    step(workers)
    assert f"worker {FIRST_PID} ended with status -11; another one starts" in caplog.text
    workers._not_before = 0.0
    step(workers)
    assert len(workers._spawning.processes) == 2, "the one that loads is the only one, as at the start"
    step(workers, ready=[1])
    assert not workers._serving
    step(workers)
    step(workers, ready=[2])
    assert workers._serving


def test_who_serves_and_is_killed_while_the_next_one_loads_shows_that_memory_does_not_suffice(workers, monkeypatch):
    step(workers, ready=[0])
    step(workers)
    ends(workers._spawning.processes[0], -signal.SIGKILL, monkeypatch)
    with pytest.raises(ConfigError, match=r"killed.*memory.*fewer"):
        step(workers)


@pytest.mark.parametrize(("status", "said"), [(1, "ended with status 1.*the log"), (-9, "killed.*memory.*fewer")])
def test_a_worker_that_ends_before_all_serve_is_an_error_with_the_way_out(workers, monkeypatch, status, said):
    step(workers)
    ends(workers._spawning.processes[0], status, monkeypatch)
    with pytest.raises(ConfigError, match=rf"server\.workers = 2: a worker .*{said}"):
        step(workers)


def test_what_is_surely_not_meant_is_said_once_for_all_workers(caplog):
    config = load_config(None, {"server.workers": 3, "limits.total.requests": "8/minute"})
    made = Workers(config, None, {}, socket.socket(socket.AF_UNIX))
    made._stop = True
    made.run(lambda version: None)
    assert caplog.text.count("server.workers = 3") == 1
