"""The circuit breaker, with a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guard.breaker import Breaker
from guard.errors import UpstreamError

FAILURES, OPEN_S = 3, 10.0


class Time:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def broken():
    time = Time()
    breaker = Breaker(FAILURES, OPEN_S, clock=time)
    for _ in range(FAILURES):
        breaker.failed(breaker.enter())
    return breaker, time


def wait_of(breaker):
    with pytest.raises(UpstreamError) as caught:
        breaker.enter()
    assert (caught.value.status, caught.value.code) == (503, "upstream_open")
    return caught.value.retry_after_s


def test_it_opens_after_failures_in_a_row_and_says_for_how_long():
    breaker, time = broken()
    assert wait_of(breaker) == OPEN_S
    time.now += 7.5
    assert wait_of(breaker) == 3


def test_one_success_between_failures_keeps_it_closed():
    breaker = Breaker(FAILURES, OPEN_S, clock=Time())
    for _ in range(5):
        for _ in range(FAILURES - 1):
            breaker.failed(breaker.enter())
        breaker.succeeded(breaker.enter())
    breaker.enter()


def test_only_one_request_tries_whether_it_may_close():
    breaker, time = broken()
    time.now += OPEN_S
    trial = breaker.enter()
    assert wait_of(breaker) == 1
    breaker.answered(trial)
    breaker.succeeded(breaker.enter())


def test_a_trial_that_fails_opens_it_anew():
    breaker, time = broken()
    time.now += OPEN_S
    breaker.failed(breaker.enter())
    assert wait_of(breaker) == OPEN_S


def test_a_trial_whose_client_leaves_makes_way_for_the_next():
    breaker, time = broken()
    time.now += OPEN_S
    breaker.left(breaker.enter())
    breaker.answered(breaker.enter())
    breaker.enter()


def test_what_was_let_through_before_it_opened_does_not_close_it():
    breaker = Breaker(FAILURES, OPEN_S, clock=Time())
    early = breaker.enter()
    for _ in range(FAILURES):
        breaker.failed(breaker.enter())
    breaker.succeeded(early)
    wait_of(breaker)


class Server(RuleBasedStateMachine):
    """Any order of requests, ends and waits; what must hold is said by counting, not by the breaker's own states."""

    def __init__(self):
        super().__init__()
        self.time = Time()
        self.breaker = Breaker(FAILURES, OPEN_S, clock=self.time)
        self.inside = []

    @rule()
    def ask(self):
        try:
            self.inside.append(self.breaker.enter())
        except UpstreamError as exc:
            wait = exc.retry_after_s
            assert 1 <= wait <= OPEN_S

    @rule(how=st.sampled_from(["succeeded", "failed", "left", "answered"]), number=st.integers(0, 9))
    def end(self, how, number):
        if self.inside:
            ticket = self.inside[number % len(self.inside)]
            getattr(self.breaker, how)(ticket)
            if how != "answered":
                self.inside.remove(ticket)

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds):
        self.time.now += seconds

    @rule()
    def all_end_and_time_passes(self):
        for ticket in self.inside:
            self.breaker.left(ticket)
        self.inside = []
        self.time.now += OPEN_S
        ticket = self.breaker.enter()  # it never stays shut for ever
        self.breaker.left(ticket)

    @invariant()
    def at_most_one_tries(self):
        assert self.breaker._trial is None or self.breaker._trial in self.inside


TestServer = Server.TestCase


@given(st.integers(1, 20))
def test_no_number_of_failures_below_the_bound_opens_it(failures):
    breaker = Breaker(failures, OPEN_S, clock=Time())
    for _ in range(failures - 1):
        breaker.failed(breaker.enter())
    breaker.failed(breaker.enter())
    wait_of(breaker)
