"""What Airlock adds to a request, beside nginx, a bare pass-through and other gateways, on loopback.

Every server is a process of its own in front of the same canned upstream, one worker each; client and servers share the
machine, so requests a second are less than each could do alone, and ratios are what to read. Processor seconds are the
server process's own and depend least on what else runs. The targets take turns in each of `--rounds` rounds, medians
are reported. Requests are of one length, no two alike, so that no verdict is remembered. Writes `results/gateway.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from gateway_load import Measured, bodies, load
from gateway_overload import overload
from gateway_peers import LITELLM, NEMO, litellm_command, nemo_command
from gateway_servers import CLASSIFIED, HERE, RULES_ONLY, Server, airlock, free_port, nginx, running

from training.manifest import command, provenance, write_json

IN_FLIGHT = (1, 32, 256)


def targets(url: str, folder: Path, *, peers: bool) -> tuple[dict[str, Callable[[int], list[str]]], dict[str, str]]:
    """The command of each server by name, and why some are missing."""
    found: dict[str, Callable[[int], list[str]]] = {
        "passthrough": lambda port: [sys.executable, HERE, "passthrough", str(port), url],
        "airlock rules": lambda port: airlock(folder, "rules", url, port, **RULES_ONLY),
        "airlock rules, journal": lambda port: airlock(
            folder, "journal", url, port, **RULES_ONLY, journal={"path": str(folder / "journal.db")}
        ),
        "airlock classifier": lambda port: airlock(folder, "classifier", url, port, **CLASSIFIED),
    }
    missing: dict[str, str] = {}
    if nginx(folder, url, 0) is None:
        missing["nginx"] = "not on this machine"
    else:
        found["nginx"] = lambda port: nginx(folder, url, port) or []
    for peer, write in ((LITELLM, litellm_command), (NEMO, nemo_command)):
        if not peers:
            missing[peer.package] = "not asked for: --peers"
            continue
        try:
            peer.install()
            found[peer.package] = lambda port, write=write: write(url, port, folder)  # type: ignore[misc]
        except OSError as exc:
            missing[peer.package] = str(exc)
    return found, missing


def measure(server: Server, in_flight: int, seconds: float) -> dict[str, Any]:
    """One run at so many requests in flight."""
    before = server.cpu_s()
    run = uvloop.run(load(server.url, in_flight, seconds=seconds))
    worked = server.cpu_s() - before
    return {
        "requests": run.requests,
        "failed": len(run.other_times),
        "requests_per_s": round(len(run.times) / run.passed, 1),
        "p50_ms": run.percentile_ms(50),
        "p99_ms": run.percentile_ms(99),
        "cpu_ms": round(worked / max(1, run.requests) * 1000, 4),
    }


def first_token(server: Server, requests: int = 40) -> dict[str, Any]:
    """Time to the first text of a stream, one request at a time."""
    run: Measured = uvloop.run(load(server.url, 1, requests=requests, stream=True))
    return {"p50_ms": run.percentile_ms(50, run.first), "p99_ms": run.percentile_ms(99, run.first)}


def memory(server: Server, requests: int, within_s: float = 300.0) -> dict[str, Any]:
    """Resident memory after each tenth of so many requests, 32 in flight; fewer where the time is over before."""
    sizes, until = [], time.perf_counter() + within_s
    while len(sizes) < 10 and time.perf_counter() < until:
        uvloop.run(load(server.url, 32, requests=requests // 10))
        sizes.append(round(server.rss_mb(), 1))
    growth = round(sizes[-1] - sizes[len(sizes) // 2], 1)
    return {"requests": requests // 10 * len(sizes), "rss_mb": sizes, "growth_mb_second_half": growth}


class Inference:
    """The classifier alone on texts of the same length, in this process, one thread."""

    def __init__(self) -> None:
        from guard.assemble_classifier import load_classifier
        from guard.assemble_encoders import Encoders
        from guard.config import load_config

        config = load_config(None, {})
        self._classifier = load_classifier(config, Encoders(config))
        self._times: list[float] = []
        self.measure(5)
        self._times.clear()

    def measure(self, requests: int) -> None:
        """Judge so many texts more, one by one."""
        for _, body in zip(range(requests), bodies(), strict=False):
            text = json.loads(body)["messages"][0]["content"]
            started = time.perf_counter()
            self._classifier.classify([text])
            self._times.append((time.perf_counter() - started) * 1000)

    @property
    def p50_ms(self) -> float:
        """Median of all."""
        return round(statistics.median(self._times), 3)


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: sum(run[key] for run in runs)
        if key in ("requests", "failed")
        else round(statistics.median(run[key] for run in runs if run[key] is not None), 4)
        if any(run[key] is not None for run in runs)
        else None
        for key in runs[0]
    }


def compared(figures: dict[str, Any], inference: float) -> dict[str, Any]:
    """The figures that the goals are about."""
    by_load = {name: figure["in_flight"] for name, figure in figures.items()}
    least, rules = by_load["passthrough"], by_load["airlock rules"]
    direct = by_load["direct"]["1"]
    said: dict[str, Any] = {
        "rules_over_passthrough_cpu": {at: round(rules[at]["cpu_ms"] / least[at]["cpu_ms"], 2) for at in rules},
        "added_ms": {
            name: {p: round(of["1"][f"{p}_ms"] - direct[f"{p}_ms"], 3) for p in ("p50", "p99")}
            for name, of in by_load.items()
            if name != "direct"
        },
    }
    if LITELLM.package in by_load:
        other = by_load[LITELLM.package]
        said["rules_over_litellm_requests_per_s"] = {
            at: round(rules[at]["requests_per_s"] / other[at]["requests_per_s"], 1) for at in rules if at in other
        }
        said["litellm_over_rules_cpu"] = {at: round(other[at]["cpu_ms"] / rules[at]["cpu_ms"], 1) for at in rules}
    added = said["added_ms"]["airlock classifier"]["p50"]
    return said | {"inference_p50_ms": inference, "classifier_added_beyond_inference_ms": round(added - inference, 3)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="install and measure LiteLLM and NeMo Guardrails too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--memory-requests", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("results/gateway.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    figures: dict[str, Any] = {}
    inference = Inference()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        started = running([sys.executable, HERE, "upstream", str(port)], port, folder / "upstream.log")
        servers = {"direct": stack.enter_context(started)}
        found, missing = targets(servers["direct"].url, folder, peers=options.peers)
        for name, write in found.items():
            port = free_port()
            try:
                servers[name] = stack.enter_context(running(write(port), port, folder / f"{name}.log"))
            except OSError as exc:
                missing[name] = str(exc)[:300]
        runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for round_ in range(options.rounds):
            for in_flight in IN_FLIGHT:
                for name, server in servers.items():
                    asyncio.run(asyncio.sleep(0.2))
                    runs.setdefault((name, in_flight), []).append(measure(server, in_flight, options.seconds))
                    print(round_, in_flight, name, runs[name, in_flight][-1], flush=True)
                    if name == "airlock classifier" and in_flight == 1:  # as busy as the machine is just now
                        inference.measure(40)
        for name, server in servers.items():
            by_load = {str(at): _median(runs[name, at]) for at in IN_FLIGHT}
            figures[name] = {"cold_start_s": round(server.cold_s, 2), "first_token": first_token(server)}
            figures[name]["in_flight"] = by_load
        figures["airlock rules"]["memory"] = memory(servers["airlock rules"], options.memory_requests)
        print(figures["airlock rules"]["memory"], flush=True)
        over = overload(folder)
    said = {
        "command": command("python benchmarks/gateway.py"),
        "load": round(os.getloadavg()[0], 2),
        "missing": missing,
        "compared": compared(figures, inference.p50_ms),
        "overload": over,
        "targets": figures,
        **provenance(seed=0, data=[]),
    }
    write_json(options.out, said)
    print(json.dumps(said["compared"], indent=2))


if __name__ == "__main__":
    main()
