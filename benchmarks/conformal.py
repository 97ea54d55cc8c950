"""Whether budgets hold on rows that nobody has seen: many splits, sources left out, and how honest probabilities are.

Rows of split `dev` are split at random, again and again, into rows that choose thresholds and fresh ones. Counted is in
how many splits a budget held on the fresh half: for the thresholds of `airlock calibrate`, and for two that are not
enough: the plain quantile (as many errors as the budget allows), and marginal split conformal, which holds on average.
Then each source is left out, and measured by thresholds that the others chose. Last, the rows held out of training (but
for a few at the edge, where the data have grown since) fit a temperature, and a temperature with a bias for each
category, and the calibration error on `dev` is measured before and after, by language. The model reads each text once;
its logits stay in `runs/scores.db`. Needs the shared data sets.
Writes `results/calibration.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from classifier.calibration import Calibration
from classifier.settings import ClassifierSettings, OperatingPoint
from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
from classifier.types import Tier
from training.datasets import Row, TrainingError, hold_out, read_all
from training.manifest import adapter_sha256, command, provenance, write_json
from training.tiers.calibrate import Wanted, goes_wrong, held_out_sources, point_of
from training.tiers.conformal import Budget, Threshold, below
from training.tiers.readings import Calibrated, Readings
from training.tiers.reliability import calibration_figures
from training.tiers.scores import Scores

SHARED = Path("../shared/datasets")
DATA = (
    Path("data/queries/train.jsonl"),
    *(SHARED / f"{name}.jsonl" for name in ("tiers", "tiers_wave2", "hh_harmless_first_turns")),
)
LABELS, CONTRAST = Path("data/labels/decisions.csv"), Path("data/queries/contrast.jsonl")
MISS, FLAG = Budget("max-miss", 0.007), Budget("max-false-flag", 0.02)
Scored = NDArray[np.float64]


def quantile(scores: Scored, rate: float) -> float:
    """As many rows beyond it as the budget allows."""
    return float(np.sort(scores)[int(rate * len(scores))])


def marginal(scores: Scored, rate: float) -> float:
    """Split conformal: the expected share of fresh rows beyond it is within the budget."""
    return float(np.sort(scores)[max(0, int(rate * (len(scores) + 1)) - 1)])


def resample(
    scores: Scored, budget: Budget, groups: Mapping[str, NDArray[np.bool_]], splits: int, seed: int
) -> dict[str, Any]:
    """In how many splits a budget held on the fresh half, and what the thresholds cost; errors are scores below.

    With `groups`, the threshold that must hold in each of them, and how often it did in each that has rows enough.
    """
    rng, half = np.random.default_rng(seed), len(scores) // 2
    rates: dict[str, list[float]] = {"calibrate": [], "quantile": [], "marginal": []}
    by_group: dict[str, list[bool]] = {}
    values = []
    for _ in range(splits):
        order = rng.permutation(len(scores))
        chosen, fresh = order[:half], order[half:]
        found = below(budget, scores[chosen], [{name: mask[chosen] for name, mask in groups.items()}] if groups else [])
        values.append(found.value)
        thresholds = {
            "calibrate": found.value,
            "quantile": quantile(scores[chosen], budget.rate),
            "marginal": marginal(scores[chosen], budget.rate),
        }
        for name, threshold in thresholds.items():
            rates[name].append(float((scores[fresh] < threshold).mean()))
        for held in found.groups[1:]:
            if held.threshold is not None:
                mask = np.any([groups[name][fresh] for name in held.group.split("+")], axis=0)
                errors = int((scores[fresh][mask] < found.value).sum())
                by_group.setdefault(held.group, []).append(errors <= budget.rate * mask.sum())
    return {
        "budget": budget.rate,
        "rows_chosen_by": half,
        "threshold": float(np.median(values)),
        "held": {name: float(np.mean(np.array(found) <= budget.rate)) for name, found in rates.items()},
        "mean_rate": {name: float(np.mean(found)) for name, found in rates.items()},
        "held_by_group": {
            name: {"splits": len(found), "held": float(np.mean(found))} for name, found in sorted(by_group.items())
        },
    }


def studies(readings: Readings, found: Calibrated, splits: int, seed: int) -> dict[str, Any]:
    """Resamples of both budgets: pooled, by tier and by language."""
    risky, ordinary = np.flatnonzero(readings.risky), np.flatnonzero(readings.ordinary)
    names = {
        "tier": np.array([Tier(tier).label for tier in readings.truth]),
        "language": np.array([row.lang for row in readings.rows]),
    }

    def masks(key: str, rows: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
        return {str(name): names[key][rows] == name for name in np.unique(names[key][rows])}

    scores = {"miss": (found.risk[risky], MISS, risky), "false_flag": (1.0 - found.risk[ordinary], FLAG, ordinary)}
    result: dict[str, Any] = {}
    for kind, (values, budget, rows) in scores.items():
        groups = {"pooled": {}, "tier": masks("tier", rows), "language": masks("language", rows)}
        if kind == "false_flag":
            del groups["tier"]  # Safe texts are of one tier
        result[kind] = {}
        for key, of in groups.items():
            try:
                result[kind][key] = resample(values, budget, of, splits, seed)
            except TrainingError as exc:
                result[kind][key] = {"error": str(exc)}
    return result


def cost(readings: Readings, found: Calibrated, by: Sequence[str]) -> dict[str, Any]:
    """The doubt that both budgets leave where these rows choose, and which texts fall into it."""
    try:
        thresholds = Wanted(MISS, FLAG, by=tuple(by)).thresholds(readings, found)
    except TrainingError as exc:
        return {"error": str(exc)}
    point = point_of(thresholds, OperatingPoint())
    _, sure, _ = found.decided(point)
    kinds = {"ordinary": readings.ordinary, "look_alikes": readings.look_alikes}
    kinds |= {tier.label: readings.truth == tier for tier in Tier if tier is not Tier.SAFE}
    return {
        "safe_below": thresholds["miss"].value,
        "risky_from": thresholds["false_flag"].value,
        "unsure": {name: float((~sure)[mask].mean()) for name, mask in kinds.items() if mask.any()},
    }


def elsewhere(thresholds: Mapping[str, Threshold], readings: Readings, found: Calibrated) -> dict[str, Any]:
    """What thresholds do to other rows than those that chose them."""
    result = {}
    for kind, threshold in thresholds.items():
        wrong, could = goes_wrong(kind, readings, found, threshold.value)
        rate = float(wrong.sum() / could.sum()) if could.any() else None
        result[kind] = {"rows": int(could.sum()), "rate": rate, "budget": threshold.budget.rate}
    return result


def biased(readings: Readings) -> tuple[float, NDArray[np.float64]]:
    """A temperature and a bias for each category of the least log loss over tiers, with a small penalty (BCTS)."""
    logits = np.stack([each[0] for each in readings.logits])
    sums = np.eye(len(Tier))[list(readings.taxonomy.tier_indices)]
    truth = np.eye(len(Tier))[readings.truth]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = logits * np.exp(-parameters[0]) + parameters[1:]
        probabilities = softmax(scaled, axis=-1)
        tiers = np.maximum(probabilities @ sums, 1e-12)
        value = -(truth * np.log(tiers)).sum(1).mean() + 0.01 * (parameters[1:] ** 2).sum()
        slope = probabilities * (1.0 - (truth / tiers) @ sums.T) / len(logits)
        bias = slope.sum(0) + 0.02 * parameters[1:]
        return float(value), np.concatenate([[-(slope * logits).sum() * np.exp(-parameters[0])], bias])

    found = minimize(loss, np.zeros(1 + logits.shape[1]), jac=True, method="L-BFGS-B").x
    return float(np.exp(found[0])), found[1:]


def calibrations(fitted: Readings, measured: Readings, seed: int) -> dict[str, Any]:
    """Calibration errors on rows that did not fit it: as trained, with a temperature, with a bias for each category."""
    languages = [row.lang for row in measured.rows]
    temperature = fitted.temperature()
    scale, bias = biased(fitted)
    candidates = {
        "as_trained": (measured, 1.0),
        "temperature": (measured, temperature),
        "temperature_and_bias": (
            Readings(measured.rows, [each / scale + bias for each in measured.logits], measured.taxonomy),
            1.0,
        ),
    }
    result: dict[str, Any] = {}
    for name, (readings, value) in candidates.items():
        _, _, deciding = readings.at(Calibration(value)).decided(OperatingPoint())
        figures = calibration_figures(deciding, readings.truth, languages, seed=seed)
        result[name] = {"temperature": scale if name == "temperature_and_bias" else value, **figures}
    return result


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--rows", type=int, help="of each part, at most; chosen by the hash of the text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/calibration.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    described = ClassifierSettings.load(options.model)
    taxonomy = Taxonomy.load(options.model / TAXONOMY)
    scores = Scores(options.model, Path("runs/scores.db"))

    def read(rows: Sequence[Row]) -> Readings:
        some = hold_out(rows, options.rows / len(rows))[1] if options.rows and options.rows < len(rows) else list(rows)
        return Readings(some, scores.logits([row.text for row in some]), taxonomy)

    rows = read_all(DATA, taxonomy, LABELS)
    parts = {
        "validation": read(hold_out([row for row in rows if row.split == "train"], 0.05)[1]),
        "dev": read([row for row in rows if row.split == "dev"]),
        "contrast": read(read_all([CONTRAST], taxonomy)),
    }
    scores.close()
    found = {name: readings.at(described.calibration) for name, readings in parts.items()}
    dev = parts["dev"]
    wanted = Wanted(MISS, FLAG)
    chosen = wanted.thresholds(parts["validation"], found["validation"])
    left_out = held_out_sources(dev, found["dev"], wanted)
    result = {
        "command": command("python benchmarks/conformal.py"),
        "model": f"{described.name}@{described.taxonomy_version}",
        "adapter_sha256": adapter_sha256(options.model),
        "rows": {name: len(readings.rows) for name, readings in parts.items()},
        "resamples": {"splits": options.splits, **studies(dev, found["dev"], options.splits, options.seed)},
        "doubt": {" and ".join(by) or "pooled": cost(dev, found["dev"], by) for by in ((), ("tier",), ("language",))},
        "held_out_sources": {
            kind: {
                "sources": len(sources),
                "held": sum(source["held"] for source in sources.values()),
                "worst": max(source["rate"] for source in sources.values()),
                "mean": float(np.mean([source["rate"] for source in sources.values()])),
                "by_source": sources,
            }
            for kind, sources in left_out.items()
        },
        "chosen_on_validation": {
            name: elsewhere(chosen, parts[name], found[name]) for name in ("validation", "dev", "contrast")
        },
        "calibration": calibrations(parts["validation"], dev, options.seed),
        **provenance(seed=options.seed, data=[*DATA, LABELS, CONTRAST]),
    }
    write_json(options.out, result)
    for kind in ("miss", "false_flag"):
        for key, study in result["resamples"][kind].items():
            print(kind, key, study)
    print(result["doubt"], result["chosen_on_validation"])
    for name, figures in result["calibration"].items():
        print(name, {key: value["ece"] for key, value in figures.items() if key != "temperature"})


if __name__ == "__main__":
    main()
