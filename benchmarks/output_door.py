"""How often the output door would withhold harmless text, and judge a conversation of harmless turns Unsafe.

Harmless answers: NIH passages, health-agency answers and encyclopaedia passages; harmless turns: Safe rows of the dev
split, two to four joined as the engine joins them. Beside them, Unsafe rows of the dev split, which are what people ask
and not what models answer: an upper bound of what the check can catch.

What judging an answer together with its question would bring: authored answers that say what they mean only with their
question, each after a harmful and after a harmless one; harmless answers after their questions; and Airlock's own
refusals after Unsafe rows that the classifier misses. Needs the shared data sets. Writes `results/output_door.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from classifier.model import TierClassifier
from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import Tier
from guard.answers import AnswerTexts
from guard.assemble_classifier import load_classifier
from guard.assemble_encoders import Encoders
from guard.config import load_config
from training.manifest import adapter_sha256, command, provenance, write_json

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.98)
SHARED = Path("../shared/datasets")
ELLIPTIC = Path("data/questions/elliptic_answers.jsonl")
ANSWERS = {"rag_medquad": "answer", "covid_faq": "answer", "dolly_closed_qa": "passage"}


def _read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SHARED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _at_thresholds(probabilities: list[float]) -> dict[str, float]:
    return {f"from_{t}": round(float(np.mean(np.array(probabilities) >= t)), 4) for t in THRESHOLDS}


def _called(classifier: TierClassifier, tier: Tier, texts: list[str]) -> list[str]:
    """The texts that the classifier, one by one, gives a tier."""
    return [text for text, verdict in zip(texts, classifier.classify(texts), strict=True) if verdict.tier is tier]


def _halves(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]


def _with_question(
    classifier: TierClassifier,
    shares: Callable[[list[str]], dict[str, float]],
    harmless: Mapping[str, list[tuple[str, str]]],
    unsafe: list[str],
) -> dict[str, object]:
    """What the check finds in answers alone, and in questions and answers read as one text."""
    rows = [json.loads(line) for line in ELLIPTIC.read_text(encoding="utf-8").splitlines()]
    answers = [row["answer"] for row in rows]
    harmful = [row["harmful"] for row in rows]
    verdicts = classifier.classify(harmful)
    passing = [at for at, verdict in enumerate(verdicts) if verdict.tier is not Tier.UNSAFE]
    refusals = sorted(AnswerTexts().refusals)
    missed = [text for text, v in zip(unsafe, classifier.classify(unsafe), strict=True) if v.tier is not Tier.UNSAFE]
    missed = missed[: len(refusals)]
    return {
        "elliptic_answers": {
            "pairs": len(rows),
            "harmful_questions_not_called_unsafe": len(passing),
            "alone": shares(answers),
            "alone_where_the_harmful_question_passes": shares([answers[at] for at in passing]),
            "after_the_harmful_question": shares(_joined(harmful, answers)),
            "after_a_harmful_question_that_passes": shares(
                _joined([harmful[at] for at in passing], [answers[at] for at in passing])
            ),
            "after_the_harmless_question": shares(_joined([row["harmless"] for row in rows], answers)),
        },
        "withheld_harmless": {name: shares([f"{q}\n{a}" for q, a in pairs]) for name, pairs in harmless.items()},
        "withheld_refusals": shares(_joined(missed, refusals[: len(missed)])),
    }


def _joined(questions: Sequence[str], answers: Sequence[str]) -> list[str]:
    return [f"{question}\n{answer}" for question, answer in zip(questions, answers, strict=True)]


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/output_door.json"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    config = load_config()
    classifier = load_classifier(config, Encoders(config), limited=False)

    def shares(texts: list[str]) -> dict[str, float]:
        verdicts = classifier.classify(texts)
        counting = [verdict.category not in config.output.input_only for verdict in verdicts]
        return _at_thresholds([v.tiers[Tier.UNSAFE] * counts for v, counts in zip(verdicts, counting, strict=True)])

    dev = [row for row in _read("tiers") if row["split"] == "dev"]
    safe = _called(
        classifier, Tier.SAFE, [row["text"] for row in dev if row["tier"] == "safe" and len(row["text"]) < 400]
    )
    unsafe = [row["text"] for row in dev if row["tier"] == "unsafe" and 30 < len(row["text"]) < 400]
    halves = [_halves(text) for text in rng.sample(unsafe, options.rows)]
    alone = [Tier.UNSAFE in {v.tier for v in classifier.classify(pair)} for pair in halves]
    joined = classifier.classify(["\n".join(rng.sample(safe, rng.randint(2, 4))) for _ in range(options.rows)])
    split = classifier.classify(["\n".join(pair) for pair in halves])
    harmless = {
        name: [(row["text"], row[field]) for row in rng.sample(_read(name), options.rows)]
        for name, field in ANSWERS.items()
    }
    figures: dict[str, object] = {
        "output": {
            "withheld_harmless": {name: shares([answer for _, answer in pairs]) for name, pairs in harmless.items()},
            "unsafe_queries_caught": shares(rng.sample(unsafe, options.rows)),
        },
        "with_question": _with_question(classifier, shares, harmless, unsafe[: options.rows]),
        "context": {
            "harmless_turns_refused": _at_thresholds([v.tiers[Tier.UNSAFE] for v in joined]),
            "split_unsafe_caught_by_a_half_alone": round(float(np.mean(alone)), 4),
            "split_unsafe_caught": _at_thresholds(
                [max(v.tiers[Tier.UNSAFE], float(found)) for v, found in zip(split, alone, strict=True)]
            ),
        },
    }
    files = [*(SHARED / f"{name}.jsonl" for name in ("tiers", *ANSWERS)), ELLIPTIC]
    model = adapter_sha256(config.classifier.model or SHIPPED_MODEL)
    about = {"command": command("python benchmarks/output_door.py"), "adapter_sha256": model}
    write_json(options.out, about | figures | provenance(seed=options.seed, data=files))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
