"""The model card of a trained classifier: what it is, what it was trained on under which licences, figures, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from classifier.settings import Reads
from training.card import lineage_told, trained_on
from training.datasets import Row
from training.intervals import rounded
from training.lineage import start_averaged
from training.tiers.crossed import in_words
from training.tiers.evaluate import FIGURES
from training.tiers.hub import HUB_NAMES

_METRICS = {"macro_f1": "f1", "accuracy": "accuracy"}  # the hub's own names of figures
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_WHAT: Mapping[Reads, Sequence[str]] = {
    "texts": ("It sorts a query into the categories of `taxonomy.yaml`, and so into four tiers.",),
    "exchanges": (
        "It reads an answer of a model with the prompt and the system message, and sorts it into the labels of",
        "`taxonomy.yaml`.",
    ),
}
_LIMITS: Mapping[Reads, Sequence[str]] = {
    "texts": (),
    "exchanges": (
        "- Its harmful answers hold no working detail: they show compliance by its shape. What is harmful",
        "  by its content alone, to a prompt that looks harmless, is missed more often.",
        "- Of a long prompt or system message it reads the beginning and the end. A leak is known by how it is told",
        "  and by words that both have; a retelling of a single rule in the tone of an ordinary answer may pass.",
        "- The authored rows are by few hands; what users and models write is more varied. On them a bag of the",
        "  answer's words gets far too: part of what it knows is how these answers are written.",
    ),
}


def _drawn(manifest: Mapping[str, Any]) -> list[str]:
    """What of the rows an epoch saw, and what the run went on from, where it was not all and nothing."""
    settings = manifest["settings"]
    caps = {"source": settings["source_cap"], "category": settings["category_cap"]}
    aside = f", `{'`, `'.join(settings['whole'])}` aside" if settings["whole"] else ""
    lines = [f"An epoch draws at most {cap} of them from one {name}{aside}." for name, cap in caps.items() if cap]
    taught = [
        f"`{each['name']}` (adapter SHA-256 `{each['adapter_sha256'][:12]}…`) taught it beside the labels."
        for each in manifest.get("teachers", ())
    ]
    return [*lines, *taught, *lineage_told(manifest["start"])]


def _seeds(manifest: Mapping[str, Any]) -> str:
    """The seed, or what was averaged."""
    if "averaged" not in manifest:
        return f"seed {manifest['seed']}"
    start = start_averaged(manifest)
    if start:
        run = manifest["averaged"][0]
        return f"mean of the weights of `{run['name']}`, seed {run['seed']}, and of `{start}`, which it went on from"
    return f"mean of the weights of seeds {', '.join(str(run['seed']) for run in manifest['averaged'])}"


def _before(start: Mapping[str, Any]) -> list[str]:
    """Where the sources stand of a model that a model of answers went on from."""
    return [
        f"It went on from `{start['name']}`; the sources and licences of that model's rows are in its own card.",
        "",
    ]


def _metadata(manifest: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What the hub reads: the base, languages, data sets, and the figures as its `model-index`."""
    dev = manifest["figures"]
    base = HUB_NAMES.get(manifest["encoder"])
    known = {name: dev[name]["value"] for name in FIGURES if dev[name]["value"] is not None}
    metrics = [
        {"type": _METRICS.get(name, name), "name": name, "value": round(value, 4)} for name, value in known.items()
    ]
    data = f"{manifest['measured_on']} rows of the training's sources"
    return {
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["safety", "guardrails", "lora", "airlock"],
        **({"base_model": base, "base_model_relation": "adapter"} if base else {}),
        "language": sorted({row.lang for row in rows if _LANGUAGE.fullmatch(row.lang)}),
        "metrics": sorted({_METRICS[name] for name in known if name in _METRICS}),
        "model-index": [
            {
                "name": manifest["name"],
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "Tiers of risk"},
                        "dataset": {"type": "airlock", "name": data, "split": manifest["measured_on"]},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def _of_several(point: Mapping[str, Any]) -> str:
    several = point.get("several")
    return f"; of a text of several windows from {several['unsafe']} and {several['risk']} on" if several else ""


def write_card(folder: Path, manifest: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write `README.md` into a model folder, in the hub's format, from its manifest and its training rows."""
    reads: Reads = manifest["settings"].get("reads", "texts")
    dev, settings, point = manifest["figures"], manifest["settings"], manifest["operating_point"]
    lines = [
        "---",
        yaml.safe_dump(_metadata(manifest, rows), sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {manifest['name']}",
        "",
        f"A LoRA adapter and category head for the encoder `{manifest['encoder']}`, trained by",
        f"`airlock train {'classifier' if reads == 'texts' else 'responses'}` on {manifest['rows']['train']} rows "
        f"({_seeds(manifest)}, "
        f"rank {settings['rank']}, {settings['epochs']} epochs).",
        *_drawn(manifest),
        *_WHAT[reads],
        f"It says Unsafe from a probability of {point['unsafe']} on"
        + ("." if reads == "exchanges" else f", else not Safe from {point['risk']} on{_of_several(point)}."),
        "Settings, hashes and all figures: `manifest.json`.",
        "",
        *_expected(manifest),
        "## Figures",
        "",
        f"On the {dev['rows']} rows of `{manifest['measured_on']}`, of the same sources; 95 % bootstrap intervals.",
        "",
        "| figure | value | interval |",
        "|---|---|---|",
        *(
            f"| {n} | {rounded(dev[n]['value'])} | {rounded(dev[n]['low'])} to {rounded(dev[n]['high'])} |"
            for n in FIGURES
        ),
        "",
        "## Limits",
        "",
        "- Measured on the sources it was trained on: on others expect clearly more misses and more false alarms.",
        *_LIMITS[reads],
        "- It knows what its training rows and its encoder know; read `coverage` for how much of a text that is.",
        "- Labels that were derived rather than annotated carry their noise into the weights and into these figures.",
        "",
        *trained_on((row.source, row.licence) for row in rows),
        *(_before(manifest["start"]) if reads == "exchanges" and manifest["start"] else ()),
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _expected(manifest: Mapping[str, Any]) -> list[str]:
    """What a cross-validation found, in plain words, where there was one."""
    if "errors" not in manifest:
        return []
    folds = manifest["settings"]["folds"]
    return [
        "## What to expect",
        "",
        f"The {manifest['rows']['train']} rows were cut into {folds} parts, near-duplicates together, and each part",
        "was judged by a model that was trained on the others, at thresholds chosen on the others. The model in this",
        "folder was trained on all of them. On texts that are like these rows:",
        "",
        *(f"- {sentence}" for sentence in in_words(manifest["errors"])),
        "",
    ]
