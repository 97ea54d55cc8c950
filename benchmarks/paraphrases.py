"""How often the citation gate lets pass what an assistant says freely in its own words, and claims that only sound so.

`data/support/paraphrases.jsonl` holds authored claims on short passages: true ones in other words, and as many that a
passage does not bear. No model has learnt from them. Given are the shares that leave the gate with each shipped support
model, at several thresholds for *supported*, and what the hard rules stopped before. Writes `results/paraphrases.json`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_support
from guard.config import load_config
from rag.grounding import check_answer
from rag.support import SHIPPED, SHIPPED_LARGE
from rag.types import Checked, Gate, Status, Support, SupportModel
from training.manifest import command, provenance, write_json

ROWS = Path("data/support/paraphrases.jsonl")
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)  # of `grounding.supported`
BY_MODEL = "support-model"

Row = dict[str, Any]


class Remembering:
    """A support model that reads each pair once, whatever the threshold it is held against."""

    def __init__(self, model: SupportModel) -> None:
        self._model = model
        self._known: dict[tuple[str, str], Support] = {}

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[Support]:
        """One judgement for each pair of passage and claim, in order."""
        new = [pair for pair in pairs if pair not in self._known]
        self._known |= zip(new, self._model.support(new), strict=True)
        return [self._known[pair] for pair in pairs]


def check(rows: Sequence[Row], support: SupportModel, gate: Gate) -> list[Checked]:
    """What the gate says of each claim by its passage."""
    return [check_answer(row["claim"], [row["passage"]], support=support, gate=gate).sentences[0] for row in rows]


def figures(rows: Sequence[Row], checked: Sequence[Checked]) -> dict[str, Any]:
    """The shares that pass, and what stopped the others, by label."""
    labels = [row["label"] for row in rows]
    return {
        label: _shares([each for each, own in zip(checked, labels, strict=True) if own == label])
        for label in sorted(set(labels))
    }


def _shares(checked: Sequence[Checked]) -> dict[str, Any]:
    stopped = Counter(each.rule for each in checked if each.rule != BY_MODEL and each.status is not Status.SUPPORTED)
    return {
        "claims": len(checked),
        "passed": round(sum(each.status is Status.SUPPORTED for each in checked) / len(checked), 4),
        "stopped_before_the_model": round(stopped.total() / len(checked), 4),
        "by_rule": dict(stopped.most_common()),
    }


def main() -> None:
    """Measure both models and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, default=Path("results/paraphrases.json"))
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    config = load_config(None)
    models: dict[str, Any] = {}
    for folder in (SHIPPED_LARGE, SHIPPED):
        grounding = config.grounding.model_copy(update={"support_model": folder})
        support = load_support(config.model_copy(update={"grounding": grounding}), Encoders(config))
        assert support is not None
        remembering = Remembering(support)
        models[folder.name] = {
            f"from_{least}": figures(rows, check(rows, remembering, Gate(supported=least))) for least in THRESHOLDS
        }
    result = {"command": command("python benchmarks/paraphrases.py"), "rows": len(rows), "models": models}
    write_json(args.out, result | provenance(seed=0, data=[args.rows]))


if __name__ == "__main__":
    main()
