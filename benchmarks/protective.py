"""Which protective document a refusal gets, and how often one that has nothing to do with what was asked.

`data/questions/protective.jsonl` holds harmful asks of the insensitive categories, some on the subject of a protective
document of the sample and some on another subject or in another language. Figures at several similarities are given of
odd rows (`chosen_on`), those at the configured one of even rows. Beside them stands a control: the same asks, each
held against the documents that protect against another category; and what the whole gateway makes of the even rows,
where the classifier's category counts and not the row's. Writes `results/protective.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guard.assemble import load_guard
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_knowledge, load_search, load_sentences
from guard.config import NO_JOURNAL, Config, load_config
from guard.types import Route, Turn
from rag.asks import lift
from rag.protective import Protector
from training.manifest import command, provenance, write_json

ROWS = Path("data/questions/protective.jsonl")
THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)

Found = tuple[str | None, float]  # the document, and how near it is


def figures(rows: Sequence[dict[str, Any]], found: Sequence[Found], least: float) -> dict[str, float | int]:
    """What is quoted from a similarity on: of the asks with a document, and of the others."""
    pairs = [
        (row["document"], name if score >= least else None) for row, (name, score) in zip(rows, found, strict=True)
    ]
    said = [(wanted, name) for wanted, name in pairs if wanted is not None and name is not None]
    with_document = sum(wanted is not None for wanted, _ in pairs)
    return {
        "with_document": with_document,
        "quoted": round(len(said) / with_document, 4),
        "right_document": round(sum(wanted == name for wanted, name in said) / max(1, len(said)), 4),
        "without": len(pairs) - with_document,
        "quoted_beside_the_subject": round(
            sum(wanted is None and name is not None for wanted, name in pairs) / (len(pairs) - with_document), 4
        ),
    }


async def through_the_gateway(config: Config, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """What is refused of the asks with a document, by a rule that wants protective documents, and quoted beside it."""
    wanted = [row for row in rows if row["document"] is not None]
    guard = load_guard(config)
    admitted = [await guard.admit([Turn("user", row["asked"])]) for row in wanted]
    quoted = [
        (row["document"], reply.citations[0].document)
        for row, (_, reply) in zip(wanted, admitted, strict=True)
        if reply is not None and reply.refused and reply.citations
    ]
    return {
        "with_document": len(wanted),
        "refused": round(sum(decision.route is Route.REFUSE for decision, _ in admitted) / len(wanted), 4),
        "by_such_a_rule": round(sum(decision.protect for decision, _ in admitted) / len(wanted), 4),
        "quoted": round(len(quoted) / len(wanted), 4),
        "right_document": round(sum(right == name for right, name in quoted) / max(1, len(quoted)), 4),
    }


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/protective.json"))
    options = parser.parse_args()
    config = load_config(None, {**NO_JOURNAL, "classifier.languages": {}})
    encoders = Encoders(config)
    knowledge = load_knowledge(config, load_search(config, encoders, load_sentences(config, encoders)))
    protector = Protector(knowledge, 0.0)
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    categories = sorted({row["category"] for row in rows})

    def nearest(asked: str, category: str) -> Found:
        answer = protector.protect(asked, category)
        found = answer.searched[0]
        score = found.score + lift(found.asked, found.score)
        return (answer.citations[0].document if answer.citations else None), score

    def other(category: str) -> str:
        return categories[(categories.index(category) + 1) % len(categories)]

    found = [nearest(row["asked"], row["category"]) for row in rows]
    control = [nearest(row["asked"], other(row["category"])) for row in rows]
    least = config.knowledge.protective_from
    measured = {
        "protective_from": least,
        "chosen_on": {str(at): figures(rows[::2], found[::2], at) for at in THRESHOLDS},
        "reported_on": figures(rows[1::2], found[1::2], least),
        "through_the_gateway": asyncio.run(through_the_gateway(config, rows[1::2])),
        "another_category": {"asks": len(rows), "quoted": round(sum(s >= least for _, s in control) / len(rows), 4)},
    }
    corpus = knowledge.statistics().corpus
    made = {"command": command("python benchmarks/protective.py"), "corpus": corpus}
    write_json(options.out, {**made, **measured, **provenance(seed=0, data=[ROWS])})
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
