"""What each part of the data and of the recipe adds to the classifier: short runs that differ in one thing.

Each arm is trained from the bare encoder on the same number of rows, one pass, and measured on the contrast test and on
public sets that were not trained on. An arm takes some six minutes on a core. Name arms to run only these; two
processes may run different ones. An arm that is in `runs/ablations/` is not run again. Needs the shared data sets.
Writes `results/classifier_ablations.json` from all arms there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from unseen_sources import measure

from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.taxonomy import Taxonomy
from classifier.types import E5_SMALL, MINILM
from training.datasets import read_all
from training.manifest import command, file_sha256, provenance, write_json
from training.tiers.evaluate import Judged
from training.tiers.settings import TrainSettings
from training.tiers.train_classifier import train_classifier

SHARED = Path("../shared/datasets")
AUTHORED, CONTRAST = Path("data/queries/train.jsonl"), Path("data/queries/contrast.jsonl")
WAVE_1, WAVE_2 = SHARED / "tiers.jsonl", SHARED / "tiers_wave2.jsonl"
LABELS = Path("data/labels/decisions.csv")
RUNS = Path("runs/ablations")
RECIPE = TrainSettings(
    rank=32, frozen=6, epochs=1, lr=1e-3, train_window=96, disguised=0.15, source_cap=250, category_cap=2500
)


@dataclass(frozen=True)
class Arm:
    """One run: what it is trained on, and how."""

    settings: TrainSettings = RECIPE
    data: tuple[Path, ...] = (AUTHORED, WAVE_1, WAVE_2)
    labels: Path | None = LABELS
    encoder: str = E5_SMALL


ARMS = {
    "everything": Arm(),
    "everything, another seed": Arm(replace(RECIPE, seed=1)),
    "no authored rows": Arm(data=(WAVE_1, WAVE_2)),
    "authored rows alone": Arm(data=(AUTHORED,), labels=None),
    "no second wave": Arm(data=(AUTHORED, WAVE_1)),
    "no decisions by reading": Arm(labels=None),
    "no disguises": Arm(replace(RECIPE, disguised=0.0)),
    "rank-stabilized LoRA": Arm(replace(RECIPE, rslora=True)),
    "DoRA": Arm(replace(RECIPE, dora=True)),
    "all-MiniLM-L6-v2, all layers": Arm(replace(RECIPE, frozen=0), encoder=MINILM),
}


def run(arm: Arm, folder: Path, rows: int, each: int) -> dict[str, Any]:
    """Train and measure one arm, or read what was measured of the same."""
    files = [*arm.data, CONTRAST, *([arm.labels] if arm.labels else [])]
    asked = {
        "rows": rows,
        "each": each,
        "encoder": arm.encoder,
        "settings": asdict(arm.settings),
        "files": [file_sha256(path) for path in files],
    }
    kept = folder / "figures.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in asked} != json.loads(json.dumps(asked)):
            raise SystemExit(f"{kept} is of other data or settings; remove {folder} to run the arm again")
        return found
    taxonomy = Taxonomy.load(Path("data/taxonomies/airlock.yaml"))
    if not (folder / "manifest.json").exists():
        train_classifier(
            taxonomy=taxonomy,
            data=arm.data,
            out=folder,
            encoder_name=arm.encoder,
            settings=arm.settings,
            name="ablation",
            labels=arm.labels,
            limit=rows,
        )
    classifier = TierClassifier.load(folder, load_encoder(arm.encoder))
    contrast = Judged(classifier, read_all([CONTRAST], taxonomy)).figures(resamples=200)
    unseen = measure(classifier, each, seed=0)
    result = {
        "contrast_macro_f1": contrast["macro_f1"],
        "contrast_unsafe_recall_at_refused": contrast["unsafe_recall_at_refused"]["0.03"],
        **{f"unseen_{language}": _means(sets) for language, sets in unseen.items()},
        **asked,
        **provenance(seed=arm.settings.seed, data=files),
    }
    write_json(kept, result)
    return result


def _means(sets: dict[str, Any]) -> dict[str, float]:
    """Means over the sets of a kind, where 3 % of ordinary instructions are refused."""
    by_kind: dict[str, list[float]] = {"harmful": [], "look_alike": []}
    for figures in sets.values():
        if figures["kind"] in by_kind:
            by_kind[figures["kind"]].append(figures["refused_at_budget"])
    return {f"{kind}_refused": round(float(np.mean(values)), 4) for kind, values in by_kind.items()}


def main() -> None:
    """Run the arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"some of: {'; '.join(ARMS)}")
    parser.add_argument("--rows", type=int, default=5000, help="that each arm is trained on")
    parser.add_argument("--each", type=int, default=100, help="rows of each unseen set, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    unknown = set(options.arms) - set(ARMS)
    if unknown:
        parser.error(f"no arm {', '.join(map(repr, sorted(unknown)))}; there are: {'; '.join(ARMS)}")
    folders = {name: RUNS / "".join(filter(str.isalnum, name)) for name in ARMS}
    for name in options.arms or ARMS:
        print(name, run(ARMS[name], folders[name], options.rows, options.each))
    measured = [name for name, folder in folders.items() if (folder / "figures.json").exists()]
    arms = {name: run(ARMS[name], folders[name], options.rows, options.each) for name in measured}
    write_json(
        Path("results/classifier_ablations.json"), {"command": command("python benchmarks/ablations.py"), "arms": arms}
    )


if __name__ == "__main__":
    main()
