"""What a verdict and a grounded answer cost in this process, one torch thread. Writes `results/latency.json`."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classifier.model import DEFAULT_MODEL
from guard.assemble import Encoders, load_answerer, load_classifier
from guard.config import load_config
from training.manifest import adapter_sha256, provenance, write_json

QUESTIONS = (
    "How much paracetamol can an adult safely take in one day?",
    "What can I do when my landlord keeps the deposit after I moved out?",
    "Is it legal to record a phone call without telling the other person?",
    "What are the first signs of a stroke and what should I do?",
    "Should I pay off my credit card before I start to save?",
    "How long before driving should I stop drinking alcohol?",
    "What does a fixed rate mortgage mean when interest rates fall?",
    "Write a short poem about the sea in winter for my grandmother.",
)


def _times(call: Callable[[str], object], rounds: int) -> dict[str, float]:
    for question in QUESTIONS:
        call(question)
    times = []
    for _ in range(rounds):
        for question in QUESTIONS:
            started = time.perf_counter()
            call(question)
            times.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(times, n=100)
    return {"median": round(statistics.median(times), 2), "p99": round(cuts[98], 2), "minimum": round(min(times), 2)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/latency.json"))
    options = parser.parse_args()
    config = load_config()
    encoders = Encoders(config)
    classifier = load_classifier(config, encoders)
    answerer = load_answerer(config, encoders)
    long_text = "The committee met again on Tuesday and went through the minutes of the last meeting. " * 1000
    started = time.perf_counter()
    verdict = classifier.classify([long_text[:40_000]])[0]
    seconds = time.perf_counter() - started
    figures: dict[str, Any] = {
        "classify_ms": _times(lambda text: classifier.classify([text]), options.rounds),
        "ask_ms": _times(answerer.answer, options.rounds),
        "long_text": {"tokens": verdict.coverage.tokens, "windows": verdict.coverage.windows, "s": round(seconds, 2)},
    }
    command = "python benchmarks/latency.py"
    model = {"adapter_sha256": adapter_sha256(config.classifier.model or DEFAULT_MODEL)}
    write_json(options.out, {"command": command, **model, **figures, **provenance(seed=0, data=[])})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
