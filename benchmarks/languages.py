"""What the English classifier gives beside the default, by the risk from which it is asked, and what it costs.

The texts are the English ones of `benchmarks/unseen_sources.py`, and of the contrast test. For each `asked_from`: the
share of ordinary texts that it is asked about; the shares of harmful and of look-alike texts that are refused where 3 %
of ordinary ones are, mean of the sets; and on the contrast test, at the shipped operating points, the macro-F1 of the
tiers. The time is the processor's for one text after the other, on ordinary texts, of the default alone and with each
`asked_from`. Needs `airlock model fetch` and the shared data sets. Writes `results/languages.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from unseen_sources import SETS, SHARED, known_texts, some_texts

from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_MODEL, SHIPPED_SPECIALISTS, Taxonomy
from classifier.types import MPNET, Tier, Verdict
from guard.specialists import ByLanguage
from training.datasets import read_all
from training.manifest import adapter_sha256, command, provenance, write_json
from training.tiers.evaluate import Judged, recall_at
from training.tiers.folds import REFUSED

CONTRAST = Path("data/queries/contrast.jsonl")
ASKED_FROM = (0.0, 0.02, 0.05, 0.1, 0.2)
TIMED = 60  # texts
FIGURES = ("macro_f1", "risk_recall", "safe_flagged", "safe_refused", "unsafe_recall")


@dataclass(frozen=True)
class Recorded:
    """Verdicts on some texts, given again."""

    taxonomy: Taxonomy
    verdicts: dict[str, Verdict]

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """The verdict on each text."""
        return [self.verdicts[text] for text in texts]


class Both:
    """What both classifiers say of some texts, from which the verdicts at any `asked_from` follow."""

    def __init__(self, judge: ByLanguage, texts: Sequence[str]) -> None:
        self._texts = texts
        self._default, self._specialist = judge.default.classify(texts), judge.classify(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def at(self, asked_from: float | None) -> list[Verdict]:
        """The verdicts where the specialist is asked from that risk on, or of no text."""
        if asked_from is None:
            return self._default
        return [
            second if 1 - first.tiers[Tier.SAFE] >= asked_from else first
            for first, second in zip(self._default, self._specialist, strict=True)
        ]

    def asked(self, asked_from: float | None) -> float:
        """Of how many of the texts the specialist is asked."""
        return float(np.mean([verdict.model != self._default[0].model for verdict in self.at(asked_from)]))

    def unsafe(self, asked_from: float | None) -> np.ndarray:
        """The probability of Unsafe of each text."""
        return np.array([verdict.tiers[Tier.UNSAFE] for verdict in self.at(asked_from)])


def measure(judge: ByLanguage, rows: int, seed: int) -> dict[str, Any]:
    """Figures of the default alone, and of each `asked_from`."""
    known = known_texts()
    sets = {each: Both(judge, some_texts(each, known, rows, seed)[0]) for each in SETS if each.language == "en"}
    contrast = [row for row in read_all([CONTRAST], judge.default.taxonomy, None) if row.lang == "en"]
    of_contrast = Both(judge, [row.text for row in contrast])

    def figures(asked_from: float | None) -> dict[str, Any]:
        ordinary = np.concatenate([both.unsafe(asked_from) for each, both in sets.items() if each.kind == "ordinary"])
        refused = {
            kind: {
                " ".join(filter(None, (each.name, each.part))): recall_at(ordinary, both.unsafe(asked_from), REFUSED)
                for each, both in sets.items()
                if each.kind == kind
            }
            for kind in ("harmful", "look_alike")
        }
        verdicts = {row.text: verdict for row, verdict in zip(contrast, of_contrast.at(asked_from), strict=True)}
        told = Judged(Recorded(judge.default.taxonomy, verdicts), contrast).figures(seed=seed)
        return {
            "asked": {
                kind: round(float(np.average([b.asked(asked_from) for b in some], weights=[len(b) for b in some])), 4)
                for kind in ("ordinary", "look_alike", "harmful")
                if (some := [both for each, both in sets.items() if each.kind == kind])
            },
            **{kind: round(float(np.mean(list(found.values()))), 4) for kind, found in refused.items()},
            "sets": {name: round(share, 4) for found in refused.values() for name, share in found.items()},
            "contrast": {name: told[name] for name in FIGURES},
        }

    settings = {"default": None} | {str(value): value for value in ASKED_FROM}
    return {name: figures(value) for name, value in settings.items()}


def timed(judge: ByLanguage, seed: int) -> dict[str, Any]:
    """Milliseconds of the processor for an ordinary text, the settings in turns."""
    ordinary = next(each for each in SETS if each.kind == "ordinary")
    texts = some_texts(ordinary, set(), TIMED, seed + 1)[0]
    judges = {"default": judge.default} | {
        str(value): ByLanguage(judge.default, judge.specialists, {"en": value}) for value in ASKED_FROM
    }
    spent: dict[str, list[float]] = {name: [] for name in judges}
    for text in texts:
        for name, each in judges.items():
            started = time.process_time()
            each.classify([text])
            spent[name].append(1000 * (time.process_time() - started))
    return {
        name: {"mean": round(statistics.fmean(found), 1), "p50": round(statistics.median(found), 1)}
        for name, found in spent.items()
    }


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=MPNET, help="folder of the English model's base")
    parser.add_argument("--rows", type=int, default=250, help="of each set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/languages.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = SHIPPED_SPECIALISTS["en"]
    default = TierClassifier.load(SHIPPED_MODEL, load_encoder(ClassifierSettings.load(SHIPPED_MODEL).encoder))
    judge = ByLanguage(default, {"en": TierClassifier.load(folder, load_encoder(options.base))})
    found = measure(judge, options.rows, options.seed)
    times = timed(judge, options.seed)
    for name, figures in found.items():
        print(name, {key: value for key, value in figures.items() if key != "sets"}, times[name])
    result = {
        "command": command("python benchmarks/languages.py"),
        "adapters_sha256": {"default": adapter_sha256(SHIPPED_MODEL), "en": adapter_sha256(folder)},
        "budget": REFUSED,
        "asked_from": found,
        "processor_ms": times,
        **provenance(
            seed=options.seed,
            data=[CONTRAST, *sorted({SHARED / f"{each.name}.jsonl" for each in SETS if each.language == "en"})],
        ),
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
