"""How far bf16 moves the verdicts of the shipped classifier, over many texts: all of it in bf16, or its products alone.

Both are OpenVINO's, against its runtime in single precision, which is within 0.001 of PyTorch. The exports must be
there (`benchmarks/classifier_runtimes.py` makes them) and the processor must multiply in bf16. Each thousand of texts
is compared by itself, as an export is. Writes `results/classifier_bf16.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from classifier.export import compare
from classifier.exported import ExportCache, Precision
from classifier.graph import open_graph
from classifier.inputs import Embeddings, ExportedTokenizer
from classifier.model import TierClassifier
from classifier.processor import features
from classifier.settings import ClassifierSettings, described
from classifier.taxonomy import SHIPPED_MODEL
from classifier.weights import encoder_path, encoder_sha256
from guard.cli.export import AUTHORED
from training.manifest import adapter_sha256, command, provenance, write_json

THOUSAND = 1000
WAYS: dict[str, tuple[Precision, Precision]] = {"all in bf16": ("fp32", "bf16"), "products in bf16": ("bf16", "bf16")}


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=Path, default=Path("runs/exports"), help="cache of exports")
    parser.add_argument("--texts", type=int, default=8 * THOUSAND)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/classifier_bf16.json"))
    options = parser.parse_args()
    texts = sorted({json.loads(line)["text"] for line in AUTHORED.read_text(encoding="utf-8").splitlines()})
    random.Random(options.seed).shuffle(texts)
    texts = texts[: options.texts]
    encoder = ClassifierSettings.load(SHIPPED_MODEL).encoder
    sha256 = encoder_sha256(encoder, encoder_path(encoder))
    settings, taxonomy = described(SHIPPED_MODEL, encoder, sha256)
    cache = ExportCache(options.exports, SHIPPED_MODEL, sha256)
    tokenizer = ExportedTokenizer.load(cache.inputs(), encoder)
    embeddings = Embeddings(cache.inputs(), tokenizer)

    def classifier(graph: Precision, run_in: Precision) -> TierClassifier:
        folder, _ = cache.runtime("openvino", graph)
        runtime = open_graph("openvino", run_in, folder, embeddings, tokenizer.longest, 1)
        return TierClassifier(runtime, tokenizer, taxonomy, settings)

    expected = classifier("fp32", "fp32").classify(texts)
    found: dict[str, list[dict[str, Any]]] = {}
    for way, precisions in WAYS.items():
        verdicts = classifier(*precisions).classify(texts)
        drifts = [
            compare(expected[at : at + THOUSAND], verdicts[at : at + THOUSAND]) for at in range(0, len(texts), THOUSAND)
        ]
        found[way] = [
            {"largest": drift.largest, "p99": drift.p99, "mean": drift.mean, "tiers_changed": drift.tiers_changed}
            for drift in drifts
        ]
        print(way, json.dumps(found[way]), flush=True)
    write_json(
        options.out,
        {
            "command": command("python benchmarks/bf16_trials.py"),
            "adapter_sha256": adapter_sha256(SHIPPED_MODEL),
            "texts": len(texts),
            "processor": features(),
            "thousands": found,
            **provenance(seed=options.seed, data=[AUTHORED]),
        },
    )


if __name__ == "__main__":
    main()
