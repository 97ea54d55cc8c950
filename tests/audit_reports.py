"""Reports of audits that never were: scores with heads that stand out, drawn by a seed."""

import hashlib

import numpy as np

from attribution.describe import describe
from attribution.report import (
    AsrPoint,
    Behaviour,
    Check,
    Checks,
    Figure,
    Model,
    Prompts,
    Screen,
    Settings,
)
from attribution.types import HeadId


def model(layers=4, heads=8, name="tiny", **changes):
    given = {
        "name": name,
        "family": "llama",
        "layers": layers,
        "heads": heads,
        "kv_heads": max(1, heads // 4),
        "d_head": 16,
        "width": 16 * heads,
        "parameters": layers * heads * 16 * 16 * heads * 8,
        "weights_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "dtype": "float32",
        "device": "cpu",
    }
    return Model(**given | changes)


def scores(layers=4, heads=8, prompts=24, *, planted=((1, 3, 1.0), (2, 5, 0.5)), noise=0.02, seed=0):
    """Ships (prompts, layers, heads): noise, and planted heads that score on every prompt."""
    rng = np.random.default_rng(seed)
    found = rng.exponential(noise, size=(prompts, layers, heads))
    for layer, head, score in planted:
        found[:, layer, head] += score * rng.lognormal(0, 0.3, size=prompts)
    return found


def report(layers=4, heads=8, count=24, *, ships=None, rich=False, name="tiny", **changes):
    """A report of such scores; `rich` fills every part."""
    ships = scores(layers, heads, count) if ships is None else ships
    degrees = 60 * np.sqrt(ships.mean(axis=0) / np.nanmax(ships.mean(axis=0)))
    steps = []
    if rich:
        order = np.argsort(-np.nan_to_num(degrees.ravel()))
        for at in range(3):
            head = HeadId(*map(int, divmod(order[at], heads)))
            steps.append(
                (head, np.where(degrees == degrees[head], 90 - 30 / (1 + at), np.minimum(degrees, 60) / 2 + 12 * at))
            )
    given = {
        "model": model(layers, heads, name=name),
        "prompts": Prompts(
            file="harmful.jsonl", sha256="cd" * 32, count=count, template="chat", categories={"fraud": count}
        ),
        "settings": Settings(method="query", epsilon=1e-5, r_main=1, group_size=3 if rich else 0, seed=0),
        "ships": ships,
        "seconds": 12.5,
        "steps": steps,
    }
    if rich:
        given |= {
            "templates": {"plain": ships + np.random.default_rng(1).exponential(0.01, size=ships.shape)},
            "behaviour": Behaviour(
                judge="keyword",
                weak_judge=True,
                prompts_sha256="ef" * 32,
                prompts=50,
                ranking="ships",
                points=tuple(
                    AsrPoint(
                        k=k,
                        heads=tuple(step[0] for step in steps[:k]),
                        asr=Figure(value=asr, low=max(0, asr - 0.1), high=min(1, asr + 0.1)),
                        random=Figure(value=0.04 + k / 300, low=0.0, high=0.12),
                        random_draws=5,
                    )
                    for k, asr in ((0, 0.04), (1, 0.42), (2, 0.58), (4, 0.63), (8, 0.7), (16, 0.74))
                ),
            ),
            "screen": Screen(chosen=20, sampled=8, missed=0, top=5, spearman=0.94),
            "checks": Checks(
                base_logits=Check(value=3e-6, limit=1e-4, passed=True),
                causal_leak=Check(value=0.0, limit=1e-6, passed=True),
                ablation_effect=Check(value=0.31, limit=1e-6, passed=True),
            ),
            "provenance": {"commit": "abc123", "machine": {"cpu": "a processor", "cores": 2}, "time": "2026-01-02"},
        }
    return describe(**given | changes)
