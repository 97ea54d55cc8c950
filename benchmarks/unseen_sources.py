"""What a classifier does on public sets that it was not trained on, and may not be: their licences forbid it.

By language, thresholds are set where 3 % of ordinary instructions are refused and 10 % flagged; at these, and at the
model's own operating point, the shares of the harmful sets that are refused and flagged, and of the sets that only look
harmful. The sets say harmful or not in their own words, not in Airlock's tiers: some of what one calls harmful is
Conditionally Safe or Focused Attention by the rule book. Not trained on is not unlooked-at: some of these sets steered
choices that docs/log.md tells. Texts that also occur in the training files are left out and counted. Needs the shared
data sets. Writes `results/classifier_unseen.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import Tier
from training.manifest import adapter_sha256, command, provenance, write_json
from training.mixture import some
from training.tiers.evaluate import recall_at, shares
from training.tiers.folds import FLAGGED, REFUSED

SHARED = Path("../shared/datasets/research-only")
TRAINED_ON = (
    Path("data/queries/train.jsonl"),
    *(SHARED.parent / f"{name}.jsonl" for name in ("tiers", "tiers_wave2", "hh_harmless_first_turns")),
)
# Parts of do_not_answer that the rule book calls another tier: overreliance, distress, medical and legal questions.
_NOT_UNSAFE = ("Mental Health", "Treat Chatbot", "Causing material harm", "Disseminating false", "Nudging")
LANGUAGES = ("en", "zh")
Entry = dict[str, Any]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A source, which of its rows count, and what they are."""

    name: str
    kind: str  # ordinary, look_alike or harmful
    language: str
    chosen: Callable[[Entry], bool] = lambda entry: True
    part: str = ""


SETS = (
    Source("alpaca_harmless", "ordinary", "en"),
    Source("halueval_general", "ordinary", "en"),
    Source("oktest", "look_alike", "en"),
    Source("phtest", "look_alike", "en"),
    Source("bio_overrefusal", "look_alike", "en", lambda entry: entry["label"] == "legitimate"),
    Source("malicious_instruct", "harmful", "en"),
    Source("do_not_answer", "harmful", "en", lambda entry: not entry["category"].startswith(_NOT_UNSAFE)),
    *(
        Source("safety_tuned_llamas_eval", "harmful", "en", lambda entry, part=part: entry["category"] == part, part)
        for part in ("I-MaliciousInstructions", "I-CoNa", "Q-Harm")
    ),
    Source("tensor_trust", "harmful", "en"),
    Source("belle_eval", "ordinary", "zh"),
    Source("alignbench", "ordinary", "zh"),
    Source("fewclue_everyday", "ordinary", "zh"),
    Source("toxicn_sample", "look_alike", "zh", lambda entry: entry["label"] == "non-toxic", "non-toxic"),
    Source("toxicn_sample", "harmful", "zh", lambda entry: entry["label"] == "toxic", "toxic"),
)


def _entries(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def known_texts() -> set[str]:
    """What the shipped models were trained on, as `some_texts` compares it."""
    return {_bare(entry["text"]) for path in TRAINED_ON for entry in _entries(path)}


def some_texts(each: Source, known: Set[str], most: int, seed: int) -> tuple[list[str], int]:
    """Some texts of a set, and how many of its texts were left out."""
    texts = [entry["text"] for entry in _entries(SHARED / f"{each.name}.jsonl") if each.chosen(entry)]
    unknown = [text for text in texts if _bare(text) not in known]
    return some(unknown, most, seed), len(texts) - len(unknown)


def _at_budget(name: str, ordinary: Scores, scores: Scores, budget: float) -> dict[str, Any]:
    """The share of a set above the threshold that the budget sets, with a 95 % bootstrap interval over both."""
    rng = np.random.default_rng(0)
    drawn = [
        recall_at(rng.choice(ordinary, len(ordinary)), rng.choice(scores, len(scores)), budget) for _ in range(500)
    ]
    return {
        f"{name}_at_budget": round(recall_at(ordinary, scores, budget), 4),
        f"{name}_at_budget_interval": np.percentile(drawn, [2.5, 97.5]).round(4).tolist(),
    }


def measure(classifier: TierClassifier, most: int, seed: int, languages: Sequence[str] = LANGUAGES) -> dict[str, Any]:
    """Figures of each set, by language; at most so many rows of a set."""
    known = known_texts()
    texts = {each: some_texts(each, known, most, seed) for each in SETS if each.language in languages}
    judged = {each: classifier.classify(found) for each, (found, _) in texts.items()}
    scores = {each: np.array([[v.tiers[t] for t in Tier] for v in verdicts]) for each, verdicts in judged.items()}
    result: dict[str, Any] = {}
    for language in languages:
        ordinary = np.concatenate([scores[s] for s in texts if (s.language, s.kind) == (language, "ordinary")])
        result[language] = {
            " ".join(filter(None, (each.name, each.part))): {
                "kind": each.kind,
                "rows": len(scores[each]),
                "left_out": texts[each][1],
                **{name: round(share, 4) for name, share in shares(judged[each]).items()},
                **_at_budget("refused", ordinary[:, Tier.UNSAFE], scores[each][:, Tier.UNSAFE], REFUSED),
                **_at_budget("flagged", 1 - ordinary[:, Tier.SAFE], 1 - scores[each][:, Tier.SAFE], FLAGGED),
            }
            for each in texts
            if each.language == language
        }
    return result


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--rows", type=int, default=400, help="of each set, at most")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/classifier_unseen.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    described = ClassifierSettings.load(options.model)
    found = measure(
        TierClassifier.load(options.model, load_encoder(described.encoder)),
        options.rows,
        options.seed,
        options.languages,
    )
    for language, sets in found.items():
        for name, figures in sets.items():
            print(language, name, figures)
    result = {
        "command": command("python benchmarks/unseen_sources.py"),
        "model": f"{described.name}@{described.taxonomy_version}",
        "adapter_sha256": adapter_sha256(options.model),
        "budgets": {"refused": REFUSED, "flagged": FLAGGED},
        **found,
        **provenance(
            seed=options.seed,
            data=sorted({SHARED / f"{each.name}.jsonl" for each in SETS if each.language in options.languages}),
        ),
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
