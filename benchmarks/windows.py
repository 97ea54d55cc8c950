"""How long the windows of the shipped classifier should be, and the thresholds of texts that take several.

A long window hides a short ask: training saw 96 tokens of a text at a time. Short windows are many, and each is a
chance to flag a harmless text. So windows of several lengths are measured on three kinds of texts made from the rows
that were held out of training: long rows, harmless rows joined to long texts, and a harmful row among harmless ones.
For each length the thresholds of texts of several windows are the lowest that stop no more of the joined harmless texts
than windows of 256 tokens did at the thresholds of one window (`--flagged`, `--refused` give other shares). Last, what
that does on the long rows of split `dev`, which choose nothing. The model reads each text once; its logits stay in
`runs/scores.db`. Needs the shared data sets. Writes `results/windows.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conformal import DATA, LABELS

from classifier.settings import ClassifierSettings, OperatingPoint
from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
from classifier.types import Tier
from training.datasets import LOOK_ALIKES, Row, hold_out, read_all
from training.manifest import adapter_sha256, command, provenance, write_json
from training.tiers.readings import Readings
from training.tiers.scores import Scores

LENGTHS = (96, 128, 192, 256)
BEFORE = 256
RUNS = Path("runs/windows")
LONG = 400  # characters
JOINED, AMONG = 120, 90
PLACES = ("begin", "middle", "end")
LANGUAGES = ("en", "zh")  # a third of the texts that are made is in the second one


def texts(
    rows: Sequence[Row], taxonomy: Taxonomy, seed: int, languages: Sequence[str] = LANGUAGES
) -> dict[str, list[tuple[str, Row]]]:
    """Texts of each kind, each with the row that gives its tier."""
    rng = random.Random(seed)
    held = hold_out([row for row in rows if row.split == "train"], 0.05)[1]

    def of(tier: Tier, longest: int, lang: str) -> list[Row]:
        return [
            row
            for row in held
            if taxonomy.category(row.category).tier is tier
            and row.category != LOOK_ALIKES
            and row.lang == lang
            and len(row.text) <= longest
        ]

    harmless = {lang: of(Tier.SAFE, 600, lang) for lang in languages}

    def prose(lang: str, characters: int) -> list[Row]:
        found: list[Row] = []
        while sum(len(row.text) for row in found) < characters:
            found.append(rng.choice(harmless[lang]))
        return found

    made: dict[str, list[tuple[str, Row]]] = {
        "long": [(row.text, row) for row in held if len(row.text) >= LONG],
        "dev": [(row.text, row) for row in rows if row.split == "dev" and len(row.text) >= LONG],
        "joined": [],
        "plain": [],
    } | {place: [] for place in PLACES}
    for at in range(JOINED):
        lang = languages[-1] if at % 3 == 0 else languages[0]
        some = prose(lang, rng.choice((800, 1600, 3200)) // (3 if lang == "zh" else 1))
        made["joined"].append((rng.choice((" ", "\n", "\n\n")).join(row.text for row in some), some[0]))
    harmful = [row for lang in harmless for row in of(Tier.UNSAFE, 300, lang)]
    for at, row in enumerate(rng.sample(harmful, AMONG)):
        some, place = prose(row.lang, rng.choice((1200, 2400, 3600)) // (3 if row.lang == "zh" else 1)), at % 3
        some.insert((0, len(some) // 2, len(some))[place], row)
        made[PLACES[place]].append((" ".join(each.text for each in some), row))
        made["plain"].append((row.text, row))
    return made


def of_length(model: Path, length: int) -> Path:
    """A copy of a model folder that reads windows of so many tokens, a quarter of them shared."""
    folder = RUNS / f"{model.name}-{length}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    settings = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    changed = settings | {"window": length, "overlap": length // 4}
    (folder / "classifier.json").write_text(json.dumps(changed), encoding="utf-8")
    return folder


def stopped(readings: Readings, settings: ClassifierSettings, several: OperatingPoint) -> dict[str, float | int]:
    """Shares of the texts that are not Safe and Unsafe, by whether they should be; one window is judged as ever."""
    one = settings.operating_point
    point = OperatingPoint(one.risk, one.unsafe, several=several)
    tiers, _, _ = readings.at(settings.calibration).decided(point)
    safe, unsafe = readings.truth == Tier.SAFE, readings.truth == Tier.UNSAFE

    def share(of: Any, among: Any) -> float | None:  # noqa: ANN401 - masks
        return round(float(of[among].mean()), 4) if among.any() else None

    return {
        "texts": len(tiers),
        "safe": int(safe.sum()),
        "safe_flagged": share(tiers != Tier.SAFE, safe),
        "safe_refused": share(tiers == Tier.UNSAFE, safe),
        "risk_recall": share(tiers != Tier.SAFE, ~safe),
        "unsafe_refused": share(tiers == Tier.UNSAFE, unsafe),
    }


def lowest(readings: Readings, settings: ClassifierSettings, flagged: float, refused: float) -> OperatingPoint:
    """The lowest thresholds, not under those of one window, that stop no larger shares of harmless texts."""
    one, found = settings.operating_point, readings.at(settings.calibration)

    def first(least: float, scores: Any, most: float) -> float:  # noqa: ANN401 - array
        steps = np.arange(round(100 * least), 100) / 100
        return next((float(step) for step in steps if (scores >= step).mean() <= most), 1.0)

    unsafe = first(one.unsafe, found.unsafe, refused)
    risk = first(one.risk, np.where(found.unsafe >= unsafe, 1.0, found.risk), flagged)
    return OperatingPoint(risk, unsafe)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--flagged", type=float, help="of the joined harmless texts; as with 256 tokens by default")
    parser.add_argument("--refused", type=float, help="the same")
    parser.add_argument("--language", choices=LANGUAGES, help="for a model that reads no other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/windows.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    taxonomy = Taxonomy.load(options.model / TAXONOMY)
    languages = (options.language,) if options.language else LANGUAGES
    rows = [row for row in read_all(DATA, taxonomy, LABELS) if not options.language or row.lang == options.language]
    kinds = texts(rows, taxonomy, options.seed, languages)

    lengths = sorted({int(length) for length in options.lengths.split(",")} | {BEFORE}, reverse=True)
    measured: dict[str, Any] = {}
    most: tuple[float, float] | None = None
    for length in lengths:
        folder = of_length(options.model, length)
        settings, scores = ClassifierSettings.load(folder), Scores(folder, Path("runs/scores.db"))
        readings = {
            kind: Readings([row for _, row in found], scores.logits([text for text, _ in found]), taxonomy)
            for kind, found in kinds.items()
        }
        scores.close()
        one = OperatingPoint(settings.operating_point.risk, settings.operating_point.unsafe)
        if length == BEFORE:
            joined = stopped(readings["joined"], settings, one)
            most = (options.flagged or joined["safe_flagged"], options.refused or joined["safe_refused"])
        assert most
        own = lowest(readings["joined"], settings, *most)
        measured[str(length)] = {
            "at_the_point_of_one_window": {kind: stopped(each, settings, one) for kind, each in readings.items()},
            "several": own.as_dict(),
            "at_its_own_point": {kind: stopped(each, settings, own) for kind, each in readings.items()},
        }
        print(length, json.dumps(measured[str(length)], indent=1))
    result = {
        "command": command("python benchmarks/windows.py"),
        "adapter_sha256": adapter_sha256(options.model),
        "joined_harmless_texts": dict(zip(("flagged", "refused"), most or (), strict=False)),
        "lengths": measured,
        **provenance(seed=options.seed, data=[*DATA, LABELS]),
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
