"""A classifier for a new taxonomy from 200 rows, beside baselines that need no training or little of it.

Two public sets of intents, grouped into categories with tiers as a company may (`benchmarks/taxonomies`). Of each, 200
rows drawn at random are trained on; 1,000 others are the test. All baselines read the same encoder, without adapter:
zero-shot is the nearest definition, nearest centroid the nearest mean of the 200 rows, the linear probe a logistic
regression on them. Two more also take the definitions as texts, as the recipe does.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from classifier.encoder import Encoder, load_encoder
from classifier.model import TierClassifier
from classifier.normalize import normalize
from classifier.taxonomy import Taxonomy
from classifier.types import MINILM
from training.datasets import Row
from training.manifest import command, provenance, write_json
from training.tiers.crossed import expected_errors
from training.tiers.evaluate import Judged, classify_rows
from training.tiers.train_few import Runs, definition_rows, recipe_of, train_few

TAXONOMIES = Path(__file__).parent / "taxonomies"
TRAIN, TEST = 200, 1000
_PENALTIES = (0.003, 0.03, 0.3)  # of the linear probes; the best on the test rows counts, which favours the baseline


def main() -> None:
    """Measure every set and seed, and write the figures after each, so that an interrupted run has some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/datasets"), help="folder of the public sets")
    parser.add_argument("--sets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default=MINILM)
    parser.add_argument("--out", type=Path, default=Path("results/new_taxonomy.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(given.encoder)
    files = [given.data / f"{name}.jsonl" for name in given.sets]
    sets = {name: read_set(name, file) for name, file in zip(given.sets, files, strict=True)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
    whole: dict[str, dict[str, Any]] = {}

    def write() -> None:
        result = {
            "command": command("python benchmarks/new_taxonomy.py"),
            "encoder": given.encoder,
            "rows": {"train": TRAIN, "test": TEST},
            "sets": {name: summary(found) for name, found in runs.items() if found},
            "cross_validated": whole,
        }
        data = [*files, *(TAXONOMIES / f"{name}.yaml" for name in sets)]
        write_json(given.out, result | provenance(seed=0, data=data))

    for seed in range(given.seeds):
        for name, (taxonomy, rows) in sets.items():
            runs[name].append(trained(taxonomy, rows, encoder, seed))
            print(name, json.dumps(runs[name][-1]), flush=True)
            write()
    for name, (taxonomy, rows) in sets.items():
        whole[name] = cross_validated(taxonomy, rows, encoder, given.encoder)
        print(name, json.dumps(whole[name]), flush=True)
        write()


def read_set(name: str, file: Path) -> tuple[Taxonomy, list[Row]]:
    """The taxonomy of a set and its rows, each text once, each intent replaced by its category."""
    entries = yaml.safe_load((TAXONOMIES / f"{name}.yaml").read_text(encoding="utf-8"))["categories"]
    owner = {intent: category for category, entry in entries.items() for intent in entry.pop("intents")}
    taxonomy = Taxonomy.from_dict({"name": name, "categories": entries}, origin=name)
    texts: dict[str, str] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            texts.setdefault(entry["text"], owner[entry["category"]])
    return taxonomy, [Row(text, category, "train", name) for text, category in texts.items()]


def trained(taxonomy: Taxonomy, rows: Sequence[Row], encoder: Encoder, seed: int) -> dict[str, Any]:
    """The model of one draw of 200 rows, without its cross-validation, beside the baselines."""
    train, test = drawn(rows, seed)
    found = baselines(taxonomy, train, test, encoder)
    settings = replace(recipe_of(encoder), seed=seed)
    with tempfile.TemporaryDirectory(prefix="airlock-taxonomy-") as folder:
        started = time.process_time()
        runs = Runs(encoder, taxonomy, settings, taxonomy.name, Path(folder), {})
        runs.train(train, "whole")
        minutes = (time.process_time() - started) / 60
        verdicts = classify_rows(runs.load("whole"), test)
    probable = [max(verdict.categories, key=verdict.categories.__getitem__) for verdict in verdicts]
    found["trained"] = _macro_f1(taxonomy, test, [taxonomy.ids.index(name) for name in probable])
    return {"macro_f1": found, "core_minutes": round(minutes, 2)}


def cross_validated(
    taxonomy: Taxonomy, rows: Sequence[Row], encoder: Encoder, encoder_name: str, seed: int = 0
) -> dict[str, Any]:
    """The whole command on one draw: its time, and the errors that it expects beside those on the test rows."""
    train, test = drawn(rows, seed)
    with tempfile.TemporaryDirectory(prefix="airlock-taxonomy-") as folder:
        data, out = Path(folder) / "rows.jsonl", Path(folder) / "model"
        lines = (json.dumps({"text": row.text, "category": row.category}) for row in train)
        data.write_text("\n".join(lines), encoding="utf-8")
        started = time.process_time()
        manifest = train_few(
            taxonomy=taxonomy,
            data=[data],
            out=out,
            encoder_name=encoder_name,
            settings=replace(recipe_of(encoder), seed=seed),
            name=taxonomy.name,
        )
        minutes = (time.process_time() - started) / 60
        judged = Judged(TierClassifier.load(out, encoder), test)
    return {
        "core_minutes": round(minutes, 2),
        "operating_point": manifest["operating_point"],
        "tiers_macro_f1": {
            "expected": round(manifest["figures"]["macro_f1"]["value"], 4),
            "test": round(judged.figures(resamples=10)["macro_f1"]["value"], 4),
        },
        "expected": manifest["errors"],
        "test": expected_errors(judged),
    }


def drawn(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on and others to test on."""
    some = random.Random(seed).sample(rows, TRAIN + TEST)
    return some[:TRAIN], some[TRAIN:]


def baselines(taxonomy: Taxonomy, train: Sequence[Row], test: Sequence[Row], encoder: Encoder) -> dict[str, float]:
    """Macro-F1 over the categories of what needs no training of the encoder."""
    told = definition_rows(taxonomy, train)
    whole = [Row(category.definition, category.id, "train", "") for category in taxonomy.categories]
    rows, more, definitions, unseen = (embed(encoder, [r.text for r in part]) for part in (train, told, whole, test))
    known, also = ([taxonomy.ids.index(row.category) for row in part] for part in (train, told))

    def score(predicted: Sequence[int]) -> float:
        return _macro_f1(taxonomy, test, predicted)

    def probe(vectors: NDArray[np.float32], labels: Sequence[int]) -> float:
        centre, spread = rows.mean(0), rows.std(0) + 1e-4
        seen, new = (vectors - centre) / spread, (unseen - centre) / spread
        fitted = (LogisticRegression(C=c, max_iter=1000, class_weight="balanced").fit(seen, labels) for c in _PENALTIES)
        return max(score(each.predict(new)) for each in fitted)

    both, labels = np.vstack([rows, more]), [*known, *also]
    return {
        "zero_shot": score((unseen @ definitions.T).argmax(1)),
        "nearest_centroid": score(nearest(rows, known, unseen, len(taxonomy.ids))),
        "linear_probe": probe(rows, known),
        "nearest_centroid_with_definitions": score(nearest(both, labels, unseen, len(taxonomy.ids))),
        "linear_probe_with_definitions": probe(both, labels),
    }


def nearest(vectors: NDArray[Any], labels: Sequence[int], unseen: NDArray[Any], categories: int) -> list[int]:
    """The category whose mean vector is nearest, by cosine; one without rows is never it."""
    counts = Counter(labels)
    centres = np.zeros((categories, vectors.shape[1]))
    for vector, label in zip(vectors, labels, strict=True):
        centres[label] += vector / counts[label]
    centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    found: list[int] = (unseen @ centres.T).argmax(1).tolist()
    return found


@torch.inference_mode()
def embed(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of texts: the mean of the encoder's states, which is what both encoders were trained to give."""
    ids = encoder.tokenize([normalize(text) for text in texts])["input_ids"]
    vectors = np.zeros((len(texts), encoder.model.config.hidden_size), np.float32)
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    for start in range(0, len(order), 32):
        part = order[start : start + 32]
        inputs = encoder.collate([ids[at] for at in part])
        mask = inputs["attention_mask"].unsqueeze(-1)
        states = encoder.model(**inputs).last_hidden_state * mask
        vectors[part] = (states.sum(1) / mask.sum(1)).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds."""
    methods = {name: [each["macro_f1"][name] for each in runs] for name in runs[0]["macro_f1"]}
    gained = {
        name: _spread([each["macro_f1"]["trained"] - each["macro_f1"][name] for each in runs])
        for name in methods
        if name != "trained"
    }
    return {
        "seeds": len(runs),
        "macro_f1": {name: _spread(values) for name, values in methods.items()},
        "gained": gained,
        "core_minutes": _spread([each["core_minutes"] for each in runs]),
        "runs": list(runs),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "sd": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0,
        "low": round(min(values), 4),
        "high": round(max(values), 4),
    }


def _macro_f1(taxonomy: Taxonomy, rows: Sequence[Row], predicted: Sequence[int]) -> float:
    truth = [taxonomy.ids.index(row.category) for row in rows]
    return round(float(f1_score(truth, list(predicted), average="macro")), 4)


if __name__ == "__main__":
    main()
