"""The scenarios of `benchmarks/faults.py` with few requests: whatever fails, nothing leaks, is lost or hangs."""

from __future__ import annotations

import asyncio

import pytest

REQUESTS = 4  # in each scenario; `make bench-faults` sends more


@pytest.fixture(scope="module")
def faults(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "benchmarks")
        import faults

        yield faults


@pytest.fixture(scope="module")
def counts(faults, tmp_path_factory):
    return dict(faults.run(REQUESTS, tmp_path_factory.mktemp("faults")))


def test_nothing_leaks_is_lost_or_hangs(counts):
    for fault in ("leaks", "lost", "hangs", "open_ended"):
        assert [name for name, count in counts.items() if count[fault]] == []


def test_each_fault_is_survived(counts):
    assert [name for name, count in counts.items() if count.get("sound_after") is False] == []


def test_every_request_is_accounted_for(counts):
    for name, count in counts.items():
        ended = sum(count[how] for how in ("answered", "refused", "cut", "unreached"))
        assert ended == count["requests"] >= REQUESTS, name


def test_no_fault_of_the_upstream_is_answered_as_if_it_were_well(counts, faults):
    for model in faults.UPSTREAM_FAULTS:
        assert counts[f"upstream {model}"]["answered"] == 0, model


def test_streams_did_begin_before_they_were_cut(counts):
    """Else the hold-back would not have been tried."""
    for name in ("upstream drips", "upstream endless", "upstream resets", "clients leave", "SIGKILL under load"):
        assert counts[name]["cut"], name


def test_a_gateway_that_looks_for_nothing_leaks(faults, tmp_path, monkeypatch):
    """Negative control: the secret is there to be seen, in whole answers, streams and errors."""
    import fault_gateway

    harmless = {"name": "other", "regex": "no such text"}
    monkeypatch.setattr(fault_gateway, "SECRET_PATTERN", harmless)
    upstream = faults.FaultUpstream()
    with faults.failing(upstream) as address, faults.in_process(tmp_path, address) as gateway:
        for model in ("planted", "error", "error_escaped"):
            tally = asyncio.run(faults.wave(gateway.url, model, REQUESTS))
            assert tally.leaks == REQUESTS, model
