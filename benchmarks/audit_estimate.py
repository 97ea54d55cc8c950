"""How near `airlock audit heads --estimate` comes: seconds that it says against seconds that the same audit takes.

Ships and Sahara, on the shipped test bed and random Llamas, by prompts, group size, screen, method and engine.
Both are processor time on one thread, so that other work on the machine hardly counts. Writes
`results/audit_estimate.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attribution import testbed
from attribution.audit import Plan, audit, work
from attribution.brute import BruteForce
from attribution.checkpoint import Checkpoint, load
from attribution.engine import Engine
from attribution.screen import estimate
from attribution.types import Ablation
from training.audit.heads_cost import cost
from training.manifest import command, provenance, write_json


@dataclass(frozen=True, slots=True)
class Case:
    """An audit.

    Attributes:
        model: `test bed`, or layers × heads × width of a Llama with random weights.
        prompts: How many, of drawn tokens.
        longest: Tokens of the longest; the shortest has a third.
        size: Heads of Sahara's group.
        screen: Heads that an estimate chooses; None computes all.
        method: How heads are taken out.
        brute: The slow way.
        shared: Tokens that all prompts begin with.
    """

    model: str
    prompts: int
    longest: int
    size: int = 3
    screen: int | None = None
    method: str = "query"
    brute: bool = False
    shared: int = 0


CASES = (
    Case("test bed", 6, 24, size=1),
    Case("test bed", 40, 24, size=0),
    Case("test bed", 40, 24, size=1, screen=8),
    Case("4x4x128", 12, 30),
    Case("4x4x128", 3, 30, size=0, brute=True),
    Case("4x4x128", 24, 60, size=0, method="value", shared=40),
    Case("8x8x256", 4, 30, size=0),
    Case("8x8x256", 12, 30, size=0),
)


def _model(name: str) -> Checkpoint:
    bed = load(testbed.path())
    if name == "test bed":
        return bed
    layers, heads, width = map(int, name.split("x"))
    config = LlamaConfig(
        vocab_size=2000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    return Checkpoint(LlamaForCausalLM(config).eval(), bed.tokenizer, bed.path, "")


def _measured(case: Case, seed: int, batch_tokens: int) -> dict[str, Any]:
    checkpoint = _model(case.model)
    model = checkpoint.model
    random = torch.Generator().manual_seed(seed)

    def drawn(length: int) -> list[int]:
        return torch.randint(3, model.config.vocab_size, (length,), generator=random).tolist()

    start = drawn(case.shared)
    lengths = torch.linspace(max(case.longest / 3, case.shared + 2), case.longest, case.prompts).round().int().tolist()
    ids = [start + drawn(length - case.shared) for length in lengths]
    plan = Plan(Ablation(case.method), size=case.size, screen=case.screen)  # type: ignore[arg-type]
    runner = BruteForce(model) if case.brute else Engine(model, batch_tokens=batch_tokens)
    begun = time.process_time()
    told = cost(runner, checkpoint, ids, plan, batch_tokens, clock=time.process_time)
    spent = time.process_time() - begun
    begun = time.process_time()
    audit(
        runner,
        ids,
        plan,
        estimate=lambda rows: estimate(model, rows, plan.ablation, batch_tokens=batch_tokens),
    )
    took = time.process_time() - begun
    return {
        **asdict(case),
        "heads_times_prompts": work(runner.shape, len(ids), plan),
        "estimate_seconds": round(told.seconds, 2),
        "measured_seconds": round(took, 2),
        "estimate_over_measured": round(told.seconds / took, 2),
        "seconds_of_estimate": round(spent, 2),
    }


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("results/audit_estimate.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        rows.append(_measured(case, options.seed, options.batch_tokens))
        print(json.dumps(rows[-1]), flush=True)
    ratios = [row["estimate_over_measured"] for row in rows]
    write_json(
        options.out,
        {
            "command": command("python benchmarks/audit_estimate.py"),
            "least": min(ratios),
            "most": max(ratios),
            "cases": rows,
            **provenance(seed=options.seed, data=[]),
        },
    )


if __name__ == "__main__":
    main()
