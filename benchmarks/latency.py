"""What a question costs from verdict to grounded answer, by stage, one torch thread. Writes `results/latency.json`.

`stages` is of whole requests through the engine: the questions on the sample knowledge base, shuffled, under a policy
that grounds everything, so that each is judged, looked up, and answered or abstained from. The parts are wrapped in a
clock here; the engine has none. Beside the time that passes (`ms`) stands this process's processor time (`cpu_ms`),
which other work on the machine changes less, and the load of the machine while it ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import percentiles

from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import Verdict
from guard.assemble_classifier import load_classifier
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import gate, load_interpreter, load_related, load_search, load_sentences, load_support
from guard.config import NO_JOURNAL, Config, load_config
from guard.engine import Guard, Parts
from guard.journal import NoJournal
from guard.output import AllChecks
from guard.types import Classifier
from guard.wires import CHAT, Reading
from rag.answer import Answerer
from rag.interpret import InterpretationModel
from rag.store import SAMPLE, KnowledgeBase
from rag.types import Document, Encoder, Evidence, GroundedAnswer, GroundingReport
from training.manifest import adapter_sha256, command, provenance, write_json

ASKED = Path("data/questions/sample_knowledge.jsonl")
GROUND_ALL = {"policy.rules": [{"name": "all", "route": "ground"}], **NO_JOURNAL, "knowledge.deadline_s": 600.0}
STAGES = ("engine", "classify", "search", "embed", "interpret", "gate", "render")


@dataclass(slots=True)
class Clock:
    """Milliseconds by stage of one request after another, passed and of the processor; a stage ends the one before."""

    stage: str = "engine"
    since: tuple[float, float] = (0.0, 0.0)
    passed: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    worked: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def enter(self, stage: str) -> str:
        """Begin a stage; the one that it ended."""
        now = time.perf_counter(), time.process_time()
        self.passed[self.stage] += (now[0] - self.since[0]) * 1000
        self.worked[self.stage] += (now[1] - self.since[1]) * 1000
        ended, self.stage, self.since = self.stage, stage, now
        return ended

    def start(self) -> None:
        """Begin a request."""
        self.stage, self.since = "engine", (time.perf_counter(), time.process_time())
        self.passed, self.worked = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)


@dataclass(frozen=True, slots=True)
class TimedClassifier:
    """Normalisation, windows and model."""

    part: Classifier
    clock: Clock

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """As the part does."""
        before = self.clock.enter("classify")
        verdicts = self.part.classify(texts)
        self.clock.enter(before)
        return verdicts


@dataclass(frozen=True, slots=True)
class TimedEncoder:
    """Of the question, for search; what the premise check looks up counts as the gate's."""

    part: Encoder
    clock: Clock

    @property
    def dimension(self) -> int:
        """The part's."""
        return self.part.dimension

    @property
    def fingerprint(self) -> str:
        """The part's."""
        return self.part.fingerprint

    @property
    def floor(self) -> float:
        """The part's."""
        return self.part.floor

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """As the part does."""
        return self._timed(lambda: self.part.encode(texts, progress=progress))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the part does."""
        return self._timed(lambda: self.part.encode_queries(texts))

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the part does."""
        return self._timed(lambda: self.part.encode_asks(texts))

    def _timed(self, encode: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        before = self.clock.enter("embed" if self.clock.stage == "search" else self.clock.stage)
        vectors = encode()
        self.clock.enter(before)
        return vectors


@dataclass(frozen=True, slots=True)
class TimedInterpreter:
    """Sentences are embedded, scored and chosen; what follows in the answerer is the gate."""

    part: InterpretationModel
    clock: Clock

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """As the part does."""
        self.clock.enter("interpret")
        answer = self.part.answer(question, evidence, documents)
        self.clock.enter("gate")
        return answer


@dataclass(frozen=True, slots=True)
class TimedAnswerer:
    """What comes before the interpretation model in it is search."""

    part: Answerer
    clock: Clock

    def answer(self, question: str) -> GroundedAnswer:
        """As the part does."""
        before = self.clock.enter("search")
        answer = self.part.answer(question)
        self.clock.enter(before)
        return answer

    def check(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """As the part does."""
        return self.part.check(answer, passages)


def _timed(config: Config, encoders: Encoders, clock: Clock) -> Guard:
    """The engine of a configuration, with the clock around its parts."""
    sentences, knowledge = load_sentences(config, encoders), config.knowledge
    related = load_related(sentences)
    answerer = Answerer(
        KnowledgeBase.open(knowledge.path or SAMPLE, TimedEncoder(load_search(config, encoders, sentences), clock)),
        TimedInterpreter(load_interpreter(config, sentences, encoders), clock),
        k=knowledge.passages,
        where=knowledge.where,
        mode=knowledge.mode,
        support=load_support(config, encoders),
        gate=gate(config),
        related=replace(related, interpreter=TimedInterpreter(related.interpreter, clock)),
    )
    classifier = TimedClassifier(load_classifier(config, encoders), clock)
    return Guard(config, Parts(classifier, TimedAnswerer(answerer, clock), AllChecks([]), NoJournal()))


async def _stages(guard: Guard, clock: Clock, questions: Sequence[str]) -> dict[str, Any]:
    """Percentiles by stage, over all questions; the first few are asked beforehand, and not counted."""
    passed: list[dict[str, float]] = []
    worked: list[dict[str, float]] = []
    answered = 0
    for number, question in enumerate([*questions[:10], *questions]):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": question}]}).encode()
        clock.start()
        request = CHAT.parse(body, Reading(guard.reading.refusals))
        decision, reply = await guard.admit(request.turns)
        if reply is None:
            raise SystemExit(f"{question!r} got no answer of Airlock's own: {decision.cause}")
        clock.enter("render")
        CHAT.answer(request, decision, reply, extras=True)
        clock.enter("engine")
        if number >= 10:
            passed.append(clock.passed)
            worked.append(clock.worked)
            answered += bool(reply.citations)
    return {
        "questions": len(passed),
        "answered": answered,
        "load": round(os.getloadavg()[0], 2),
        "ms": _by_stage(passed),
        "cpu_ms": _by_stage(worked),
    }


def _by_stage(spent: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    times = {"whole": [sum(each.values()) for each in spent]}
    times |= {stage: [each[stage] for each in spent] for stage in STAGES}
    return {name: percentiles(taken, 2) for name, taken in times.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, help="of those on the sample; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/latency.json"))
    options = parser.parse_args()
    config = load_config(None, GROUND_ALL)
    encoders = Encoders(config)
    classifier = load_classifier(config, encoders)
    asked = [json.loads(line)["question"] for line in ASKED.read_text(encoding="utf-8").splitlines()]
    random.Random(options.seed).shuffle(asked)
    long_text = "The committee met again on Tuesday and went through the minutes of the last meeting. " * 1000
    started = time.process_time()
    verdict = classifier.classify([long_text[:40_000]])[0]
    seconds = time.process_time() - started
    clock = Clock()
    figures: dict[str, Any] = {
        "stages": asyncio.run(_stages(_timed(config, encoders, clock), clock, asked[: options.questions])),
        "long_text": {
            "tokens": verdict.coverage.tokens,
            "windows": verdict.coverage.windows,
            "cpu_s": round(seconds, 2),
        },
    }
    model = {"adapter_sha256": adapter_sha256(config.classifier.model or SHIPPED_MODEL)}
    write_json(
        options.out,
        {
            "command": command("python benchmarks/latency.py"),
            **model,
            **figures,
            **provenance(seed=options.seed, data=[ASKED]),
        },
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
