"""What an audit costs against one stock forward a head and prompt, one torch thread. Writes `results/audit_bench.json`.

Prompts are random tokens: a run's cost depends on their lengths only. Each figure is CPU time of this process, since
the machine may be shared, and wall time beside it; the naive method of the large comparisons runs on every eighth head.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from attribution.ablate import ablate
from attribution.engine import Engine
from attribution.heads import all_heads
from attribution.sahara import sahara
from attribution.ships import ships
from training.manifest import command, provenance, write_json

_SEED = 0
Prompts = list[list[int]]


def _model(*, vocabulary: int, layers: int = 8, heads: int = 8) -> PreTrainedModel:
    torch.manual_seed(_SEED)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32 * heads,
        intermediate_size=128 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config).eval()


def _prompts(count: int, low: int, high: int, *, shared: int = 0) -> Prompts:
    draw = torch.Generator().manual_seed(_SEED)
    beginning = torch.randint(3, 2000, (shared,), generator=draw).tolist()
    lengths = torch.linspace(low, high, count).round().int().tolist()
    return [beginning + torch.randint(3, 2000, (length,), generator=draw).tolist() for length in lengths]


def _time(run: Callable[[], object], rounds: int, *, warm: bool = True) -> dict[str, float]:
    if warm:
        run()
    cpu, wall = [], []
    for _ in range(rounds):
        started = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    return {"cpu_s": round(statistics.median(cpu), 4), "wall_s": round(statistics.median(wall), 4)}


def _naive(model: PreTrainedModel, ids: Prompts, *, every: int, rounds: int) -> dict[str, float]:
    """Stock forwards over every so-manieth head, scaled to all of them."""
    heads = all_heads(model)
    chosen = heads[:: every + 1] if every > 1 else heads  # walks through layers and heads alike

    @torch.inference_mode()
    def run() -> None:
        for head in chosen:
            for prompt in ids:
                with ablate(model, [head]):
                    model(input_ids=torch.tensor([prompt])).logits[0, -1]

    scale = len(heads) / len(chosen)
    return {name: round(value * scale, 4) for name, value in _time(run, rounds).items()}


def _against(naive: dict[str, float], engine: dict[str, float]) -> dict[str, Any]:
    ratio = {name.replace("_s", "_ratio"): round(naive[name] / engine[name], 2) for name in naive}
    return {"naive": naive, "engine": engine, **ratio}


def _compare(vocabulary: int, rounds: int, tokens: int) -> dict[str, Any]:
    model = _model(vocabulary=vocabulary)
    engine = Engine(model, batch_tokens=tokens)
    ten, fifty = _prompts(10, 10, 30), _prompts(50, 10, 30)
    found = _against(_naive(model, ten, every=8, rounds=rounds), _time(lambda: ships(engine, ten), rounds))
    one = _naive(model, fifty[::5], every=8, rounds=rounds)
    three = {name: round(value * 5 * 3, 4) for name, value in one.items()}
    search = _time(lambda: sahara(engine, fifty), max(1, rounds // 5), warm=False)
    template = _prompts(10, 12, 20, shared=40)
    apart = Engine(model, batch_tokens=tokens, shared_prefix=False)
    off, on = (_time(lambda runner=runner: ships(runner, template), rounds) for runner in (apart, engine))
    share = 40 * len(template) / sum(map(len, template))
    return {
        "ships_10_prompts": found,
        "sahara_3_steps_50_prompts": _against(three, search),
        "shared_template": {"share_of_tokens": round(share, 3), **_against(off, on)},
    }


def _growth(rounds: int, tokens: int) -> dict[str, list[dict[str, Any]]]:
    def point(value: int, ids: Prompts, layers: int = 4, heads: int = 4) -> dict[str, Any]:
        model = _model(vocabulary=2000, layers=layers, heads=heads)
        engine = Engine(model, batch_tokens=tokens)
        measured = _against(_naive(model, ids, every=1, rounds=1), _time(lambda: ships(engine, ids), rounds))
        return {"value": value, **measured}

    usual = _prompts(6, 16, 24)
    return {
        "layers": [point(layers, usual, layers=layers) for layers in (2, 4, 8)],
        "heads": [point(heads, usual, heads=heads) for heads in (2, 4, 8)],
        "prompts": [point(count, _prompts(count, 16, 24)) for count in (2, 6, 18)],
        "length": [point(length, _prompts(6, length, length)) for length in (10, 20, 40, 80)],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="*", choices=("vocabulary_32000", "vocabulary_2000", "growth"))
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("results/audit_bench.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Any]] = {
        "vocabulary_32000": lambda: _compare(32_000, options.rounds, options.batch_tokens),
        "vocabulary_2000": lambda: _compare(2_000, options.rounds, options.batch_tokens),
        "growth": lambda: _growth(options.rounds, options.batch_tokens),
    }
    figures: dict[str, Any] = {
        "model": "Llama, 8 layers, 8 heads, 256 wide, intermediate 1024; prompts of 10 to 30 tokens",
        "rounds": options.rounds,
        "batch_tokens": options.batch_tokens,
    }
    for name in options.parts or parts:
        figures[name] = parts[name]()
        told = command("python benchmarks/audit.py")
        write_json(options.out, {"command": told, **figures, **provenance(seed=_SEED, data=[])})
        print(json.dumps({name: figures[name]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
