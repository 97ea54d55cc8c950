"""The shipped classifier in every runtime, one core: time by length, throughput, memory, start, drift.

Each runtime has a process of its own, so that memory and start are its own. Times are p50 and p99 of the clock, given
beside the median of the processor's time, which other processes hardly move: the share of the arithmetic bound and the
speed-up are of that. The bound is the arithmetic of encoder and windows divided by the fastest
matrix product of this machine in the precision that products have: bf16 for bf16 graphs, single for all others (int8
graphs keep activations and products in it too). Runtimes that are not exported yet are (`airlock export`). Writes
`results/classifier_bench.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from classifier.exported import ExportCache, kinds, precisions
from classifier.processor import features
from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import ClassifierError
from classifier.weights import encoder_path, encoder_sha256
from guard.assemble import load_guard
from guard.assemble_classifier import load_classifier
from guard.assemble_encoders import Encoders
from guard.cli.export import AUTHORED
from guard.config import Config, load_config
from training.manifest import adapter_sha256, command, provenance, write_json

RUNS = {10: 60, 30: 60, 128: 30, 256: 20, 512: 12, 8192: 2}
BATCHES = (1, 32)
SHAPE = {"layers": 12, "hidden": 384, "inner": 1536}  # multilingual-e5-small


def of_runtime(name: str, exports: Path) -> Config:
    """The configuration of a gateway without knowledge base that runs one runtime."""
    runtime, _, precision = name.partition("-")
    overrides = {
        "classifier.languages": {},
        "classifier.runtime": runtime,
        "classifier.precision": precision if runtime != "torch" else "auto",
        "classifier.exports": exports,
        "classifier.cache": 0,
        "knowledge.kind": "none",
        "journal.path": None,
        "policy.rules": [{"name": "all", "route": "refuse"}],
    }
    return load_config(None, overrides)


def start(name: str, exports: Path, began: float) -> dict[str, float]:
    """From the start of the process to the first decision."""
    import asyncio

    from guard.types import Turn

    guard = load_guard(of_runtime(name, exports))
    loaded = time.time() - began
    asyncio.run(guard.decide([Turn("user", "What is the boiling point of water?")]))
    answered = time.time() - began
    cpu = time.process_time()
    found = {"load_s": loaded, "first_answer_s": answered, "first_answer_cpu_s": cpu, "rss_mb": memory()}
    guard.close()
    return {key: round(value, 2) for key, value in found.items()}


def memory() -> float:
    """Resident megabytes of this process."""
    return psutil.Process().memory_info().rss / 2**20


def texts_of(tokens: int, count: int, split: Callable[[str], tuple[list[int], Any]], special: int) -> list[str]:
    """Different texts of so many tokens, special ones of one window included, from the authored queries."""
    words = " ".join(json.loads(line)["text"] for line in AUTHORED.open(encoding="utf-8") if len(line) < 400).split()
    words = [word for word in words if word.isascii() and word.isalpha()][:20_000]
    rng, found = random.Random(tokens), []
    for _ in range(count):
        text = " ".join(rng.choices(words, k=tokens))
        ids, offsets = split(text)
        found.append(text[: offsets[min(tokens - special, len(ids)) - 1][1]])
    return found


def times(name: str, exports: Path, *, quick: bool) -> dict[str, Any]:
    """Milliseconds by length, and texts a second."""
    config = of_runtime(name, exports)
    classifier = load_classifier(config, Encoders(config), limited=False)
    special = len(classifier.tokenizer.before) + len(classifier.tokenizer.after)
    lengths: dict[str, Any] = {}
    for tokens, runs in RUNS.items():
        texts = texts_of(tokens, 4, classifier.tokenizer.split, special)
        classifier.classify(texts[:1])
        wall, cpu = _timed(lambda text: classifier.classify([text]), texts, 2 if quick else runs)
        p50, p99 = np.percentile(wall, [50, 99])
        lengths[str(tokens)] = {
            "windows": classifier.classify(texts[:1])[0].coverage.windows,
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "cpu_ms": round(float(np.median(cpu)), 2),
        }
    return {"tokens": lengths, "texts_per_cpu_s": _throughput(classifier, special, quick=quick), "rss_mb": memory()}


def _timed(call: Callable[[str], object], texts: Sequence[str], runs: int) -> tuple[list[float], list[float]]:
    wall, cpu = [], []
    for number in range(runs):
        began, spent = time.perf_counter(), time.process_time()
        call(texts[number % len(texts)])
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - spent) * 1000)
    return wall, cpu


def _throughput(classifier: Any, special: int, *, quick: bool) -> dict[str, float]:  # noqa: ANN401
    from classifier.model import TierClassifier

    found = {}
    for batch in BATCHES:
        wide = TierClassifier(
            classifier.runtime,
            classifier.tokenizer,
            classifier.taxonomy,
            classifier.settings,
            batch=batch,
            slice_tokens=1_000_000,
        )
        texts = texts_of(30, 32, wide.tokenizer.split, special)
        wide.classify(texts[:batch])
        done, began = 0, time.process_time()
        while (spent := time.process_time() - began) < (0.2 if quick else 3):
            for at in range(0, len(texts), batch):
                wide.classify(texts[at : at + batch])
            done += len(texts)
        found[str(batch)] = round(done / spent, 1)
    return found


def peak() -> float:
    """Billions of operations a second of the fastest matrix product like the encoder's, by the processor's time."""
    rng, best = np.random.default_rng(0), 0.0
    for rows in (128, 256, 512):
        one = rng.standard_normal((rows, SHAPE["hidden"]), dtype=np.float32)
        other = rng.standard_normal((SHAPE["hidden"], SHAPE["inner"]), dtype=np.float32)
        for _ in range(40):
            began = time.process_time()
            for _ in range(5):
                one @ other
            spent = time.process_time() - began
            best = max(best, 10 * rows * SHAPE["hidden"] * SHAPE["inner"] / spent / 1e9)
    return best


def peak_bf16() -> float:
    """The same in bf16, by PyTorch, since NumPy has none."""
    import torch

    best = 0.0
    for rows in (128, 256, 512):
        one = torch.randn(rows, SHAPE["hidden"], dtype=torch.bfloat16)
        layer = torch.nn.Linear(SHAPE["hidden"], SHAPE["inner"], bias=False, dtype=torch.bfloat16)
        with torch.inference_mode():
            for _ in range(40):
                began = time.process_time()
                for _ in range(20):
                    layer(one)
                spent = time.process_time() - began
                best = max(best, 40 * rows * SHAPE["hidden"] * SHAPE["inner"] / spent / 1e9)
    return best


def operations(tokens: int, windows: int, window: int) -> float:
    """Billions of operations of the encoder for a text, each window with its special tokens."""
    width = tokens if windows == 1 else window
    hidden, inner = SHAPE["hidden"], SHAPE["inner"]
    matrices = 2 * width * (4 * hidden**2 + 2 * hidden * inner)
    attention = 4 * width**2 * hidden
    return windows * SHAPE["layers"] * (matrices + attention) / 1e9


def _child(*arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    program = [sys.executable, __file__, *arguments]
    run = subprocess.run(program, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _export(exports: Path, cache: ExportCache) -> list[str]:
    """The runtimes that can be measured; what is missing is exported first."""
    names = [f"{kind}-{precision}" for kind in kinds() for precision in precisions(kind)]
    missing = [name for name in names if not (cache.folder / name).is_dir()]
    for name in missing:
        kind, _, precision = name.partition("-")
        settings = exports / "airlock.yaml"
        exports.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"classifier": {"exports": "."}}), encoding="utf-8")
        asked = ["--runtime", kind, "--precision", precision]
        subprocess.run([sys.executable, "-m", "guard", "export", "-c", str(settings), *asked], check=False)
    return names


def main() -> None:
    """Run the benchmark, or, in a process of its own, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=Path, default=Path("runs/exports"), help="cache of exports")
    parser.add_argument("--quick", action="store_true", help="few runs, to try the benchmark itself")
    parser.add_argument("--out", type=Path, default=Path("results/classifier_bench.json"))
    parser.add_argument("--one", nargs=2, metavar=("START|TIMES|PEAK", "RUNTIME"), help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, name = options.one
        if what == "peak":
            print(json.dumps({"gflops": peak_bf16()}))
        elif what == "start":
            print(json.dumps(start(name, options.exports, options.began)))
        else:
            print(json.dumps(times(name, options.exports, quick=options.quick)))
        return
    settings = ClassifierSettings.load(SHIPPED_MODEL)
    weights = encoder_sha256(settings.encoder, encoder_path(settings.encoder))
    cache = ExportCache(options.exports, SHIPPED_MODEL, weights)
    gflops = peak()
    runtimes: dict[str, Any] = {}
    for name in ["torch-fp32", *_export(options.exports, cache)]:
        runtimes[name] = _measured(name, cache, options.exports, quick=options.quick)
        print(name, json.dumps(runtimes[name]), flush=True)
    peaks = {"fp32": max(gflops, peak()), "bf16": _child("--one", "peak", "bf16")["gflops"]}
    _compare(runtimes, peaks, settings.window)
    write_json(
        options.out,
        {
            "command": command("python benchmarks/classifier_runtimes.py"),
            "adapter_sha256": adapter_sha256(SHIPPED_MODEL),
            "peak_gflops": {precision: round(found, 1) for precision, found in peaks.items()},
            "processor": features(),
            "load": round(os.getloadavg()[0], 2),
            "runtimes": runtimes,
            **provenance(seed=0, data=[AUTHORED]),
        },
    )


def _measured(name: str, cache: ExportCache, exports: Path, *, quick: bool) -> dict[str, Any]:
    """One runtime: what it drifts, and its figures, if it may be served."""
    said: dict[str, Any] = {}
    if name != "torch-fp32":
        said = json.loads((cache.folder / name / "export.json").read_text(encoding="utf-8"))
        said = {"drift": said["drift"], "method": said["method"]}
        kind, _, precision = name.partition("-")
        try:
            cache.runtime(kind, precision)  # type: ignore[arg-type] - parts of a name that `_export` made
        except ClassifierError as exc:
            return {**said, "refused": str(exc)}
    more = ["--quick"] if quick else []
    begun = [
        _child("--one", "start", name, "--exports", str(exports), "--began", repr(time.time()))
        for _ in range(1 if quick else 3)
    ]
    best = min(begun, key=lambda each: each["first_answer_s"])  # the first one warms the disk's cache
    return {**said, "start": best, **_child("--one", "times", name, "--exports", str(exports), *more)}


def _compare(runtimes: dict[str, Any], gflops: dict[str, float], window: int) -> None:
    """Add the speed-up over torch and the share of the arithmetic bound to each length."""
    base = runtimes["torch-fp32"]["tokens"]
    for name, each in runtimes.items():
        fastest = gflops["bf16" if name.endswith("bf16") else "fp32"]
        for tokens, row in each.get("tokens", {}).items():
            bound = operations(int(tokens), row["windows"], window) / fastest * 1000
            row["bound_ms"] = round(bound, 2)
            row["share_of_bound"] = round(bound / row["cpu_ms"], 3)
            row["times_torch"] = round(base[tokens]["cpu_ms"] / row["cpu_ms"], 2)


if __name__ == "__main__":
    main()
