"""Whether an audit finds what is there: planted heads, the shuffled control, and the estimate on trained models.

- Planted heads: whether the head that carries the refusals comes first by Ships and in Sahara's first step.
- Shuffled labels: the same training with nothing to plant; what the audit finds there, and how much.
- The estimate of `airlock audit heads --screen` against exact Ships, on the shipped test bed, a larger one of 8 layers
  of 8 heads that is trained for it, and planted models.

Trained models are kept in `runs/audit` and used again. Writes `results/audit_planted.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from attribution import statistics, testbed
from attribution.checkpoint import load
from attribution.engine import Engine
from attribution.prompts import choose, encode, read_prompts
from attribution.sahara import sahara
from attribution.screen import estimate
from attribution.ships import ships
from attribution.types import Ablation, HeadId, Method
from training.audit.planted_model import behaviour
from training.audit.planted_task import asks
from training.audit.train_planted import train_planted
from training.audit.train_testbed import BedRecipe, train_testbed
from training.manifest import command, provenance, write_json

DRAWN = range(10)  # seeds that draw their head themselves
NAMED = {10: HeadId(0, 1), 11: HeadId(0, 3)}  # in the first layer, which those seeds did not draw
CONTROLS = range(3)
PLANTED_PROMPTS = 60
METHODS: tuple[Method, ...] = ("query", "value")
ESTIMATED: tuple[Method, ...] = ("query", "value", "mean")
TOKENS = (8, 32)
TOP = 5
LARGER = BedRecipe(layers=8, heads=8, width=64, inner=192, vocabulary=800, helpful_steps=250, aligned_steps=350)
Ids = list[list[int]]


def trained(folder: Path, seed: int, *, shuffled: bool) -> tuple[LlamaForCausalLM, HeadId]:
    """A planted model or a control, from the folder or trained into it."""
    place = folder / f"{'control' if shuffled else 'planted'}-{seed}"
    if not (place / "head.json").exists():
        named = [NAMED[seed]] if seed in NAMED else 1
        made = train_planted(seed, named, shuffled=shuffled)
        made.model.save_pretrained(place)
        write_json(place / "head.json", {"head": str(made.head)})
    head = HeadId.parse(json.loads((place / "head.json").read_text(encoding="utf-8"))["head"])
    return LlamaForCausalLM.from_pretrained(place, local_files_only=True).eval(), head


def held_out(seed: int, *, harmful: bool) -> Ids:
    """Prompts that no planted model was trained on."""
    drawn = asks(f"{seed}/audit", harmful=harmful, held_out=True)
    return [list(next(drawn).ids) for _ in range(PLANTED_PROMPTS)]


def _found(model: PreTrainedModel, head: HeadId, seed: int) -> dict[str, Any]:
    """What the audit finds on harmful prompts, by method, and what the heads that it names do."""
    ids = held_out(seed, harmful=True)
    engine = Engine(model)
    rows: dict[str, Any] = {}
    for method in METHODS:
        how = Ablation(method)
        scores = ships(engine, ids, how).numpy()
        mean = scores.mean(axis=0)
        ranked = statistics.ranked_heads(mean)
        first, second = ranked[:2]
        floor = statistics.noise_floor(scores)
        low = statistics.summarise(scores).low
        step = sahara(engine, ids, how, size=1)[0]
        rows[method] = {
            "first": str(first),
            "first_nats": float(mean[first]),
            "second_nats": float(mean[second]),
            "first_share": float(mean[first] / mean.sum()),
            "effective_heads": statistics.effective_heads(mean),
            "chance_nats": floor.chance,
            "stand_out": int((low > floor.chance).sum()),
            "rank_of_planted": 1 + ranked.index(head),
            "sahara_first": str(step.head),
            "sahara_degrees": step.score,
            "asr_moved_by_first": _moved(model, first, how, seed),
        }
    return {"seed": seed, "head": str(head), **rows}


def _moved(model: PreTrainedModel, head: HeadId, how: Ablation, seed: int) -> float:
    """How much the share of harmful prompts that are not refused rises without a head."""
    rows = {harmful: asks(f"{seed}/asked", harmful=harmful, held_out=True) for harmful in (True, False)}
    harmful, harmless = ([next(rows[kind]) for _ in range(PLANTED_PROMPTS)] for kind in (True, False))
    without, whole = (behaviour(model, harmful, harmless, heads, how).asr for heads in ([head], []))
    return without - whole


def _over(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Planted models, or controls, together."""
    found: dict[str, Any] = {"models": len(rows), "heads": sorted({row["head"] for row in rows})}
    for method in METHODS:
        each = [row[method] for row in rows]
        found[method] = {
            "recall_at_1_ships": _mean([one["first"] == row["head"] for one, row in zip(each, rows, strict=True)]),
            "recall_at_1_sahara": _mean(
                [one["sahara_first"] == row["head"] for one, row in zip(each, rows, strict=True)]
            ),
            **{
                name: {"mean": _mean([one[name] for one in each]), "range": _range([one[name] for one in each])}
                for name in (
                    *("first_nats", "second_nats", "first_share", "effective_heads", "stand_out"),
                    *("sahara_degrees", "asr_moved_by_first"),
                )
            },
        }
    return found


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _range(values: Sequence[float]) -> list[float]:
    return [round(float(min(values)), 4), round(float(max(values)), 4)]


def _models(folder: Path, prompts: int, seed: int) -> Iterator[tuple[str, PreTrainedModel, Ids]]:
    """Trained models with harmful prompts."""
    file = testbed.prompts(harmful=True)
    rows = choose(read_prompts(file), prompts, seed)
    larger = folder / "bed-8x8"
    if not (larger / "manifest.json").exists():
        train_testbed(larger, recipe=LARGER, prompts=[file, testbed.prompts(harmful=False)], told=print)
    for name, path in (("test bed, 4 × 8 heads", testbed.path()), ("larger test bed, 8 × 8 heads", larger)):
        checkpoint = load(path)
        yield name, checkpoint.model, encode(checkpoint.tokenizer, rows, "chat")
    for each in (0, 1):
        model, head = trained(folder, each, shuffled=False)
        yield f"planted {head}, 4 × 4 heads", model, held_out(each, harmful=True)[:prompts]


def _estimates(model: PreTrainedModel, ids: Ids) -> dict[str, Any]:
    """Estimate against exact score, by method and K."""
    figures: dict[str, Any] = {}
    for method in ESTIMATED:
        how = Ablation(method)
        begun = time.process_time()
        exact = ships(Engine(model), ids, how).numpy().reshape(len(ids), -1)
        took = time.process_time() - begun
        by_tokens = {}
        for tokens in TOKENS:
            begun = time.process_time()
            guess = estimate(model, ids, how, tokens=tokens).numpy().reshape(len(ids), -1)
            by_tokens[str(tokens)] = {
                **_agreement(guess, exact),
                "seconds_of_exact": round((time.process_time() - begun) / took, 3),
            }
        figures[method] = by_tokens
    return figures


def _agreement(guess: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Of single prompts and of their means, (prompts, heads)."""
    tenth = max(TOP, math.ceil(exact.shape[1] / 10))
    rho = [statistics.spearman(*pair) for pair in zip(guess, exact, strict=True)]
    means = (guess.mean(axis=0), exact.mean(axis=0))
    found = {"spearman_per_prompt": _mean(rho), "spearman_per_prompt_least": round(min(rho), 4)}
    found["spearman_of_means"] = round(statistics.spearman(*means), 4)
    for name, most in (("top_tenth", tenth), ("top_10", 10)):
        found[f"recall_per_prompt_{name}"] = _mean([_recall(*pair, most) for pair in zip(guess, exact, strict=True)])
        found[f"recall_of_means_{name}"] = round(_recall(*means, most), 4)
    return found


def _recall(guess: np.ndarray, exact: np.ndarray, most: int) -> float:
    """Share of the exact first five that are among the estimate's first `most`."""
    return len(set(statistics.ranking(exact)[:TOP]) & set(statistics.ranking(guess)[:most])) / TOP


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24, help="that the estimate is measured with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("runs/audit"), help="where trained models are kept")
    parser.add_argument("--out", type=Path, default=Path("results/audit_planted.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = {"planted": ((*DRAWN, *NAMED), False), "shuffled_control": (CONTROLS, True)}
    rows = {
        name: [_found(*trained(options.models, seed, shuffled=shuffled), seed) for seed in seeds]
        for name, (seeds, shuffled) in groups.items()
    }
    figures: dict[str, Any] = {name: {**_over(each), "each": each} for name, each in rows.items()}
    figures["estimate"] = {
        name: {"heads": int(np.prod(Engine(model).shape)), "prompts": len(ids), **_estimates(model, ids)}
        for name, model, ids in _models(options.models, options.prompts, options.seed)
    }
    write_json(
        options.out,
        {
            "command": command("python benchmarks/audit_planted.py"),
            "top": TOP,
            "top_tenth": "a tenth of the heads, rounded up, but five at least",
            "larger_bed": asdict(LARGER),
            **figures,
            **provenance(seed=options.seed, data=[testbed.prompts(harmful=True)]),
        },
    )
    print(json.dumps({name: figures[name] for name in figures}, indent=2)[:6000])


if __name__ == "__main__":
    main()
