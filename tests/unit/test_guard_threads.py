import threading

import pytest

from guard.errors import BadRequest, PartFailure
from guard.output import AllChecks, ClassifierCheck, PatternCheck
from guard.runner import Runner
from guard.threads import Threads
from guard.types import is_instant
from rag.types import InputError
from tests.doubles import WordClassifier, raises, returns


def named(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def done(threads):
    """The thread that does a job, once it is done."""
    found, over = [], threading.Event()

    def job():
        found.append(threading.current_thread())
        over.set()

    threads.run(job)
    assert over.wait(20)
    return found[0]


def test_a_thread_is_used_again_and_one_that_hangs_keeps_no_other():
    threads, release = Threads("again"), threading.Event()
    used = {done(threads) for _ in range(50)}
    assert len(used) <= 3  # one that has not come back yet when the next job comes is not waited for
    threads.run(release.wait)
    assert done(threads).is_alive()
    release.set()
    threads.close(20)
    assert named("again") == []


def test_jobs_at_once_have_a_thread_each():
    threads, together = Threads("many"), threading.Barrier(5, timeout=20)
    for _ in range(4):
        threads.run(together.wait)
    together.wait()
    threads.close(20)
    assert named("many") == []


def test_a_thread_that_nobody_needs_ends():
    threads = Threads("brief", idle_s=0.01)
    done(threads).join(20)
    assert named("brief") == []
    assert done(threads).name == "brief"


def test_what_is_done_here_fails_as_in_a_thread():
    runner = Runner("part", deadline_s=1.0)
    assert runner.here(returns(7)) == 7
    with pytest.raises(PartFailure, match="RuntimeError at") as failure:
        runner.here(raises(RuntimeError("a prompt")))
    assert "a prompt" not in str(failure.value)
    with pytest.raises(BadRequest):
        runner.here(raises(InputError("too long", param="answer")))


def test_only_checks_without_a_model_are_instant():
    patterns = PatternCheck({"key": "sk-[a-z]{3}"}, 20)
    assert is_instant(AllChecks([patterns]))
    assert not is_instant(AllChecks([patterns, ClassifierCheck(WordClassifier(), 0.9, 20)]))
    assert not is_instant(object())
