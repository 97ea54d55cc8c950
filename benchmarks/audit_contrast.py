"""Whether the contrast with harmless prompts names the planted head, and nothing where there is nothing to find.

Planted models and the shuffled control of `benchmarks/audit_planted.py`: Ships on harmful and on harmless prompts, and
the heads whose difference is above chance, beside those above the noise floor alone. Models are kept in `runs/audit`.
Writes `results/audit_contrast.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from audit_planted import METHODS, held_out, trained

from attribution import statistics
from attribution.engine import Engine
from attribution.ships import ships
from attribution.types import Ablation
from training.manifest import command, provenance, write_json


def _found(folder: Path, seed: int, *, shuffled: bool) -> dict[str, Any]:
    begun = time.monotonic()
    model, head = trained(folder, seed, shuffled=shuffled)
    engine = Engine(model)
    row: dict[str, Any] = {"seed": seed, "head": str(head), "shuffled": shuffled}
    for method in METHODS:
        harmful, harmless = (
            ships(engine, held_out(seed, harmful=kind), Ablation(method)).numpy() for kind in (True, False)
        )
        above = statistics.summarise(harmful).low > statistics.noise_floor(harmful).chance
        found = statistics.contrast(harmful, harmless)
        ranked = statistics.ranked_heads(found.difference)
        row[method] = {
            "above_the_floor": int(above.sum()),
            "specific": [str(one) for one in ranked if found.difference[one] > found.chance],
            "first_is_planted": ranked[0] == head,
            "difference_nats": round(float(found.difference[ranked[0]]), 4),
            "chance_nats": round(found.chance, 4),
        }
    print(json.dumps(row), round(time.monotonic() - begun, 1), flush=True)
    return row


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planted", type=int, default=4, help="planted models")
    parser.add_argument("--controls", type=int, default=3, help="models with shuffled labels")
    parser.add_argument("--models", type=Path, default=Path("runs/audit"), help="where trained models are kept")
    parser.add_argument("--out", type=Path, default=Path("results/audit_contrast.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    control = [_found(options.models, seed, shuffled=True) for seed in range(options.controls)]
    planted = [_found(options.models, seed, shuffled=False) for seed in range(options.planted)]
    each = [row[method] for row in planted for method in METHODS]
    nothing = [row[method] for row in control for method in METHODS]
    figures = {
        "planted": {
            "audits": len(each),
            "named_first": sum(one["first_is_planted"] and bool(one["specific"]) for one in each),
            "specific_heads": [len(one["specific"]) for one in each],
        },
        "shuffled_control": {
            "audits": len(nothing),
            "above_the_floor": [one["above_the_floor"] for one in nothing],
            "specific_heads": [len(one["specific"]) for one in nothing],
        },
    }
    write_json(
        options.out,
        {
            "command": command("python benchmarks/audit_contrast.py"),
            **figures,
            "each": [*planted, *control],
            **provenance(seed=0, data=[]),
        },
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
