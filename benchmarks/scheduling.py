"""What a short query waits for while long prompts are judged, before and after slices; and what batches gain.

`before` is one worker thread that judges each call to its end, in the order of arrival; `after` is the gateway: slices
of a long text, and the call with the least work left first. Two prompts of 8,192 tokens are kept waiting all the time.
Beside the time that passes (`ms`) stands this process's processor time meanwhile (`cpu_ms`), which other work on the
machine changes less. `batches` is texts a second of processor time by how many run at once, `crowd` the same of 64
requests that come together, one by one and as `guard.batching` takes them. Writes `results/scheduling.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timing import percentiles

from classifier.model import TierClassifier
from classifier.pace import paced
from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import Verdict
from guard.assemble_classifier import load_classifier
from guard.assemble_encoders import Encoders
from guard.batching import Batches
from guard.config import load_config
from guard.runner import Runner
from training.manifest import adapter_sha256, command, provenance, write_json

SHORT = (
    "Could you tell me, please, in which order I should visit the old town, the harbour and the botanical garden if I "
    "have only one rainy afternoon number {}?"
)
SENTENCE = "The committee met again on Tuesday and went through the minutes of meeting number {}. "
LONG_TOKENS = 8_192


class ToTheEnd:
    """A classifier that lets nobody in between."""

    def __init__(self, part: TierClassifier) -> None:
        self.part = part

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """As the part does, without a pause."""
        with paced(None):
            return self.part.classify(texts)


def long_text(classifier: TierClassifier) -> str:
    """A text of some `LONG_TOKENS` tokens."""
    text = "".join(SENTENCE.format(number) for number in range(LONG_TOKENS // 8))
    _, offsets = classifier.tokenizer.split(text)
    return text[: offsets[LONG_TOKENS - 1][1]]


async def ask(part: Any, *, shorts: int, long: str | None, by_work: bool) -> dict[str, Any]:  # noqa: ANN401
    """Percentiles of the milliseconds that a short query takes, with or without long prompts beside it."""
    runner = Runner("classifier", deadline_s=3600)
    judged = 0

    async def judge(text: str) -> None:
        await runner.run(part.classify, [text], work=len(text) if by_work else 0)

    async def keep_busy() -> None:
        nonlocal judged
        while True:
            await judge(str(long))
            judged += 1

    began = time.perf_counter()
    busy = [asyncio.create_task(keep_busy()) for _ in range(2 if long else 0)]
    waited, worked = [], []
    for number in range(shorts):
        await asyncio.sleep(0.3)
        started, spent = time.perf_counter(), time.process_time()
        await judge(SHORT.format(number))
        waited.append((time.perf_counter() - started) * 1000)
        worked.append((time.process_time() - spent) * 1000)
    seconds = time.perf_counter() - began
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await asyncio.to_thread(runner.close, 60)
    figures = {"queries": shorts, "ms": percentiles(waited, 1), "cpu_ms": percentiles(worked, 1)}
    return figures | ({"long_prompts_judged": judged, "seconds": round(seconds, 1)} if long else {})


async def crowd(classifier: TierClassifier, *, together: bool) -> dict[str, float]:
    """Short queries a second of processor time, when 64 come at once."""
    runner = Runner("classifier", deadline_s=3600)
    joined = Batches(runner, classifier.classify)

    async def judge(number: int) -> None:
        texts = [SHORT.format(number)]
        await (joined.classify(texts) if together else runner.run(classifier.classify, texts))

    started = time.process_time()
    await asyncio.gather(*map(judge, range(64)))
    return {"texts_per_cpu_s": round(64 / (time.process_time() - started), 1)}


def batches(classifier: TierClassifier, text: str, sizes: Sequence[int], seconds: float) -> dict[str, Any]:
    """Texts a second of processor time, by how many run at once."""
    found: dict[str, Any] = {}
    for size in sizes:
        texts = [text.format(number) for number in range(size)]
        wide = TierClassifier(
            classifier.runtime,
            classifier.tokenizer,
            classifier.taxonomy,
            classifier.settings,
            batch=size,
            slice_tokens=1_000_000,
        )
        wide.classify(texts)
        done, started = 0, time.process_time()
        while (spent := time.process_time() - started) < seconds:
            wide.classify(texts)
            done += size
        found[str(size)] = round(done / spent, 1)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=int, default=12, help="short queries asked without slices")
    parser.add_argument("--after", type=int, default=100, help="short queries asked with them, and alone")
    parser.add_argument("--batch-seconds", type=float, default=4.0, help="of the processor, for each size of batch")
    parser.add_argument("--out", type=Path, default=Path("results/scheduling.json"))
    options = parser.parse_args()
    config = load_config(None)
    classifier = load_classifier(config, Encoders(config), limited=False)
    whole = TierClassifier(
        classifier.runtime, classifier.tokenizer, classifier.taxonomy, classifier.settings, slice_tokens=1_000_000
    )
    long = long_text(classifier)
    classifier.classify([SHORT.format(0), long[:2000]])
    figures: dict[str, Any] = {}

    def found(name: str, value: dict[str, Any]) -> None:
        figures[name] = value
        print(name, json.dumps(value), flush=True)

    found("alone", asyncio.run(ask(classifier, shorts=options.after, long=None, by_work=True)))
    found("after", asyncio.run(ask(classifier, shorts=options.after, long=long, by_work=True)))
    found("before", asyncio.run(ask(ToTheEnd(whole), shorts=options.before, long=long, by_work=False)))
    found(
        "crowd",
        {
            "one_by_one": asyncio.run(crowd(classifier, together=False)),
            "together": asyncio.run(crowd(classifier, together=True)),
        },
    )
    seconds = options.batch_seconds
    short, window = SHORT.format(0), long[:1100]
    found(
        "batches",
        {
            "short": {"tokens": classifier.classify([short])[0].coverage.tokens}
            | {"texts_per_cpu_s": batches(classifier, SHORT, (1, 2, 4, 8, 16, 32), seconds)},
            "window": {"tokens": classifier.classify([window])[0].coverage.tokens}
            | {"texts_per_cpu_s": batches(classifier, window + "{}", (1, 2, 4, 8), seconds)},
        },
    )
    figures["load"] = round(os.getloadavg()[0], 2)
    model = {"adapter_sha256": adapter_sha256(config.classifier.model or SHIPPED_MODEL)}
    write_json(
        options.out,
        {"command": command("python benchmarks/scheduling.py"), **model, **figures, **provenance(seed=0, data=[])},
    )


if __name__ == "__main__":
    main()
