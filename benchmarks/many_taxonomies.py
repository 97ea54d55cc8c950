"""What a further classifier costs a gateway in memory and in time: models on one encoder, in a process of their own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from classifier.taxonomy import SHIPPED_MODEL
from training.manifest import command, provenance, write_json

COUNTS = (1, 10)
_TEXT = "How long does a transfer to another bank take?"
_CALLS = 30


def main() -> None:
    """Measure each count in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL, help="folder that is loaded again and again")
    parser.add_argument("--out", type=Path, default=Path("results/many_taxonomies.json"))
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        print(json.dumps(measure(given.model, given.count)))
        return
    found = {}
    for count in COUNTS:
        again = [sys.executable, __file__, "--model", str(given.model), "--count", str(count)]
        ran = subprocess.run(again, capture_output=True, text=True, check=True)
        found[str(count)] = json.loads(ran.stdout)
    first, last = (found[str(count)] for count in (COUNTS[0], COUNTS[-1]))
    each = (last["megabytes"] - first["megabytes"]) / (COUNTS[-1] - COUNTS[0])
    model = given.model / "adapter_model.safetensors"
    result = {
        "command": command("python benchmarks/many_taxonomies.py"),
        "models": found,
        "megabytes_of_each_further_model": round(each, 2),
        **provenance(seed=0, data=[model]),
    }
    write_json(given.out, result)
    print(json.dumps(result["models"], indent=2), result["megabytes_of_each_further_model"])


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Resident memory of this process with so many models, and the time of a call that goes round them."""
    import torch

    from classifier.encoder import load_encoder
    from classifier.model import TierClassifier
    from classifier.settings import ClassifierSettings

    torch.set_num_threads(1)
    encoder = load_encoder(ClassifierSettings.load(folder).encoder)
    started = time.perf_counter()
    models = [TierClassifier.load(folder, encoder) for _ in range(count)]
    loaded = time.perf_counter() - started
    times = []
    for at in range(_CALLS + count):
        begun = time.perf_counter()
        models[at % count].classify([_TEXT])
        times.append(time.perf_counter() - begun)
    shared = {value.data_ptr() for value in encoder.model.parameters()}
    network = models[0].runtime.model  # type: ignore[attr-defined]
    own = sum(value.nbytes for value in network.parameters() if value.data_ptr() not in shared)
    return {
        "own_megabytes_each": round(own / 1e6, 2),
        "megabytes": round(psutil.Process().memory_info().rss / 1e6, 1),
        "load_ms_each": round(1000 * loaded / count, 1),
        "classify_ms_median": round(1000 * float(np.median(times[count:])), 2),
    }


if __name__ == "__main__":
    main()
