"""An audit of a checkpoint's heads, composed: checks, Ships, Sahara, what it answers without them, and the report."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attribution.ablate import ablate
from attribution.answering import LocalResponder
from attribution.audit import Findings, Plan, audit, check_plan, ships_in_parts, singles, work
from attribution.behaviour import Judge, measure
from attribution.brute import BruteForce, exact_or_slow
from attribution.checkpoint import Checkpoint, is_out_of_memory
from attribution.describe import describe, describe_model
from attribution.engine import Engine
from attribution.finished import run_id
from attribution.heads import all_heads
from attribution.journal import Journal
from attribution.prompts import Template, beginning, encode, prompts_sha256
from attribution.report import AsrPoint, AuditReport, Behaviour, Check, Checks, Figure, Prompts, Settings
from attribution.sampling import Sampling
from attribution.screen import estimate
from attribution.selfcheck import SelfCheck, check
from attribution.ships import Runner
from attribution.statistics import ranked_heads
from attribution.summary import half_precision
from attribution.types import Ablation, AttributionError, CheckpointError, HeadId, Prompt, PromptError

EngineName = Literal["auto", "exact", "brute"]
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is asked, with and without its heads.

    Attributes:
        counts: k of ASR(k): so many of the first heads are taken out.
        judge: Of its answers.
        draws: Sets of k random heads beside each.
        prompts: Harmful prompts, at most.
        max_new_tokens: Of an answer.
        ranking: Which ranking the first heads are taken from.
    """

    counts: tuple[int, ...]
    judge: Judge
    draws: int = 3
    prompts: int = 100
    max_new_tokens: int = 32
    ranking: Literal["ships", "sahara"] = "ships"


def runner(checkpoint: Checkpoint, engine: EngineName, batch_tokens: int, told: Told) -> Engine | BruteForce:
    """What runs the model; `auto` takes the slow way where the exact engine cannot go.

    Raises:
        UnsupportedModel: `exact` was asked for, or not even the slow way is exact.
    """
    if engine == "brute":
        return BruteForce(checkpoint.model)
    if engine == "exact":
        return Engine(checkpoint.model, batch_tokens=batch_tokens)
    return exact_or_slow(checkpoint.model, batch_tokens=batch_tokens, told=told)


@dataclass(frozen=True, slots=True)
class Cost:
    """What an audit will take, by timing a small part of it.

    Attributes:
        seconds: Of the screen's estimate, Ships and Sahara.
        forwards: Heads × prompts.
        bytes: Of memory beside the weights, at most about.
    """

    seconds: float
    forwards: int
    bytes: int


def cost(
    engine: Runner,
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    plan: Plan,
    batch_tokens: int,
    *,
    templates: int = 1,
    beside: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Time the heads of a few layers on a few prompts, and the screen's estimate on one, and multiply.

    Args:
        engine: What will run the model.
        checkpoint: The model.
        ids: Prompts as token ids.
        plan: What will be computed.
        batch_tokens: Of the engine.
        templates: In how many Ships are computed.
        beside: Harmless prompts on which they are computed too.
        clock: What seconds are read from.

    Raises:
        AttributionError: a plan that the model cannot have.
        UnsupportedModel: a screen that it cannot have.
    """
    check_plan(engine, ids, plan)
    layers, heads = engine.shape
    some = sorted(ids, key=len)[len(ids) // 2 :][:4]
    picked = sorted({0, layers // 2, layers - 1})
    list(engine.without_each(some[:1], plan.ablation, heads=[HeadId(picked[-1], 0)]))  # warm
    chosen = [HeadId(layer, head) for layer in picked for head in range(heads)]
    begun = clock()
    for batch in engine.without_each(some, plan.ablation, heads=chosen):
        engine.logits(batch.states)
    tokens = sum(map(len, some)) * len(chosen)
    mean_length = sum(map(len, ids)) / len(ids)
    more = (templates - 1) * len(ids) + beside
    forwards = work(engine.shape, len(ids), plan) + more * singles(engine.shape, plan)
    seconds = (clock() - begun) / tokens * mean_length * forwards
    if plan.screen is not None:
        seconds += _screen_seconds(checkpoint, ids, plan.ablation, batch_tokens, clock)
    config: Any = checkpoint.model.config.get_text_config(decoder=True)
    each = 3 * layers * int(config.hidden_size)
    held = min(sum(map(len, ids)), 16 * batch_tokens) * each + batch_tokens * (config.hidden_size * 16)
    return Cost(seconds, forwards, held * checkpoint.model.dtype.itemsize)


def _screen_seconds(
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    ablation: Ablation,
    batch_tokens: int,
    clock: Callable[[], float],
) -> float:
    """What the screen's estimate takes: so much a batch, which holds prompts of one length, and so much a token."""
    row = sorted(ids, key=len)[len(ids) // 2]

    def timed(count: int) -> float:
        begun = clock()
        estimate(checkpoint.model, [row] * count, ablation, batch_tokens=batch_tokens)
        return clock() - begun

    timed(1)  # warm
    alone, together = timed(1), timed(4)
    each = min(max(together - alone, 0.0) / 3, alone)
    batches = sum(math.ceil(count / max(1, batch_tokens // length)) for length, count in Counter(map(len, ids)).items())
    return (alone - each) * batches + each / len(row) * sum(map(len, ids))


def run(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    plan: Plan,
    *,
    file: str,
    template: Template = "chat",
    system: str | None = None,
    engine: EngineName = "auto",
    batch_tokens: int = 2048,
    other_templates: Sequence[Template] = (),
    against: Sequence[Prompt] = (),
    against_file: str = "",
    asked: Asked | None = None,
    journal: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    keep_prompts: bool = True,
    told: Told = lambda _: None,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Audit a checkpoint's heads and describe what was found.

    Args:
        checkpoint: The model.
        prompts: Harmful ones, as a rule.
        plan: What is computed.
        file: Name of the prompts' file, for the report.
        template: How a prompt is put to the model.
        system: System prompt, for the chat template.
        engine: `auto` takes the slow way where the exact engine cannot go.
        batch_tokens: Tokens computed at once.
        other_templates: Ships are computed with these too, to say whether they name the same heads.
        against: Harmless prompts: Ships are computed on them too, to say which heads matter more on the others.
        against_file: Name of their file, for the report.
        asked: Also ask the model without its first heads.
        journal: JSONL where finished parts are kept; an interrupted run goes on from there.
        provenance: Commit, machine, time, libraries.
        keep_prompts: Whether the scores of every prompt stand in the report.
        told: Hears what an operator should know.
        progress: Told heads × prompts done, and in all.

    Raises:
        AttributionError: anything that makes the numbers wrong or impossible; nothing is reported then.
    """
    model = describe_model(checkpoint)
    if note := half_precision(model.dtype):
        told(note)
    ids = _encode(checkpoint, prompts, template, system)
    by_template: dict[str, list[list[int]]] = {
        name: _encode(checkpoint, prompts, name, system if name == "chat" else None)
        for name in other_templates
        if name != template
    }
    beside = _encode(checkpoint, against, template, system) if against else []
    harmful: list[Prompt] = []
    if asked is not None:
        harmful = _harmful(prompts, asked, plan)
        _encode(checkpoint, harmful, template, system, answer=asked.max_new_tokens)
    against_part = f"against {run_id(beside)}"
    further = {**by_template, **({against_part: beside} if beside else {})}
    done = 0
    behaviour = None
    with _memory(batch_tokens):
        how = runner(checkpoint, engine, batch_tokens, told)
        check_plan(how, ids, plan)
        _check_counts(how.shape, plan, asked)
        checks = check(how, ids, plan.ablation, plan.seed)
        total = work(how.shape, len(ids), plan) + sum(map(len, further.values())) * singles(how.shape, plan)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(min(done, total), total)

        identity = {"model": checkpoint.sha256, "dtype": str(checkpoint.model.dtype), "ids": ids, "plan": repr(plan)}
        with Journal(journal, identity, how.shape) as kept:
            found = audit(
                how,
                ids,
                plan,
                estimate=lambda rows: estimate(checkpoint.model, rows, plan.ablation, batch_tokens=batch_tokens),
                journal=kept,
                progress=advance,
            )
            heads = [head for head in all_heads(checkpoint.model) if not found.ships[0, head.layer, head.head].isnan()]
            others = {
                part: ships_in_parts(
                    how, rows, plan.ablation, heads=heads, journal=kept, name=f"{part} ships", progress=advance
                )
                for part, rows in further.items()
            }
            if asked is not None:
                behaviour = _behaviour(checkpoint, harmful, plan, found, asked, template, system, kept)
    return describe(
        model=model,
        prompts=_prompts(prompts, file, template),
        settings=Settings(
            method=plan.ablation.method,
            epsilon=None if plan.ablation.method.startswith("mean") else plan.ablation.epsilon,
            r_main=plan.r_main,
            group_size=plan.size,
            seed=plan.seed,
            screen=plan.screen,
        ),
        ships=found.ships.numpy(),
        seconds=found.seconds,
        steps=[(step.head, step.degrees.numpy()) for step in found.steps],
        templates={name: others[name].numpy() for name in by_template},
        against=(_prompts(against, against_file, template), others[against_part].numpy()) if beside else None,
        behaviour=behaviour,
        screen=found.screened,
        checks=_checks(checks),
        provenance=provenance,
        keep_prompts=keep_prompts,
    )


@contextlib.contextmanager
def _memory(batch_tokens: int) -> Iterator[None]:
    """One clear error when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        raise AttributionError(
            f"out of memory with batch_tokens {batch_tokens}; take a smaller one, or a smaller dtype"
        ) from exc


def _encode(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], template: Template, system: str | None, *, answer: int = 0
) -> list[list[int]]:
    """Token ids, no more of them than the model reads with an answer of so many, and none that it does not have."""
    ids = encode(checkpoint.tokenizer, prompts, template, system)
    config: Any = checkpoint.model.config.get_text_config(decoder=True)
    place = max(range(len(ids)), key=lambda place: len(ids[place]))
    longest, room = len(ids[place]), getattr(config, "max_position_embeddings", None)
    if room and longest + answer > room:
        its_answer = f" and its answer up to {answer}" if answer else ""
        shorter = ", or give fewer --asr-tokens" if answer else ""
        raise PromptError(
            f"a prompt has {longest} tokens in the template {template}{its_answer}, the model reads {room}; remove it"
            f"{shorter} ({beginning(prompts[place].text)})"
        )
    embeddings: Any = checkpoint.model.get_input_embeddings()
    known = int(embeddings.weight.shape[0])
    if (largest := max(map(max, ids))) >= known:
        raise CheckpointError(
            f"model {checkpoint.path}: its tokenizer gives token {largest}, the model knows {known}; is it its own?"
        )
    return ids


def _harmful(prompts: Sequence[Prompt], asked: Asked, plan: Plan) -> list[Prompt]:
    """The prompts that the model is asked."""
    harmful = [Prompt(prompt.text, prompt.category, harmful=True) for prompt in prompts if prompt.harmful is not False]
    if not harmful:
        raise AttributionError("ASR needs harmful prompts; every row of the file says harmful: false")
    return harmful if len(harmful) <= asked.prompts else random.Random(plan.seed).sample(harmful, asked.prompts)


def _check_counts(shape: tuple[int, int], plan: Plan, asked: Asked | None) -> None:
    """Refuse to take out more heads than a ranking will have, before it is computed."""
    if asked is None:
        return
    known = plan.size if asked.ranking == "sahara" else singles(shape, plan)
    if (most := max(asked.counts, default=0)) > known:
        more = "a larger --size, or --asr-ranking ships" if asked.ranking == "sahara" else "a larger --screen"
        ways_out = f"take out {known} at most" + (f", or give {more}" if known < shape[0] * shape[1] else "")
        raise AttributionError(
            f"--asr {','.join(map(str, asked.counts))}: ASR without {most} heads needs a ranking that long; that of "
            f"{asked.ranking} will have {known}: {ways_out}"
        )


def _prompts(prompts: Sequence[Prompt], file: str, template: str) -> Prompts:
    categories: dict[str, int] = {}
    for prompt in prompts:
        if prompt.category:
            categories[prompt.category] = categories.get(prompt.category, 0) + 1
    sha256 = prompts_sha256(prompts)
    return Prompts(file=file, sha256=sha256, count=len(prompts), template=template, categories=categories)


def _checks(found: SelfCheck) -> Checks:
    return Checks(
        base_logits=Check(value=found.base_difference, limit=found.tolerance, passed=True),
        causal_leak=Check(value=found.leak, limit=found.tolerance, passed=True),
        ablation_effect=Check(value=found.effect, limit=0.0, passed=True),
    )


def _behaviour(
    checkpoint: Checkpoint,
    harmful: Sequence[Prompt],
    plan: Plan,
    found: Findings,
    asked: Asked,
    template: Template,
    system: str | None,
    journal: Journal,
) -> Behaviour:
    """ASR without the first k heads, and without k random ones."""
    rng = random.Random(plan.seed)
    heads = all_heads(checkpoint.model)
    ranked, judge = _ranked(found, asked), asked.judge

    def asr(gone: Sequence[HeadId]) -> Figure:
        responder = LocalResponder(
            checkpoint.model,
            checkpoint.tokenizer,
            identity=checkpoint.sha256,
            template=template,
            system=system,
            sampling=Sampling(max_new_tokens=asked.max_new_tokens),
            batch=32,
            without={"heads": [str(head) for head in gone], "ablation": str(plan.ablation)},
        )
        key = run_id([responder.settings, judge.settings, prompts_sha256(harmful)])
        if (known := journal.answers(key)) is not None:
            return Figure(**known)
        with ablate(checkpoint.model, gone, plan.ablation):
            rate = measure(responder, judge, harmful, seed=plan.seed).attack_success.rate
        figure = Figure(value=rate.value, low=rate.low, high=rate.high)
        journal.add_answers(key, figure.model_dump())
        return figure

    points = []
    for count in sorted(set(asked.counts)):
        draws = [asr(sorted(rng.sample(heads, count))) for _ in range(asked.draws)] if count else []
        values = [draw.value for draw in draws if draw.value is not None]
        spread = Figure(value=sum(values) / len(values), low=min(values), high=max(values)) if values else None
        points.append(
            AsrPoint(
                k=count,
                heads=tuple(ranked[:count]),
                asr=asr(ranked[:count]),
                random=spread,
                random_draws=len(values),
            )
        )
    return Behaviour(
        judge=str(judge.settings["name"]),
        weak_judge=bool(judge.settings.get("weak")),
        prompts_sha256=prompts_sha256(harmful),
        prompts=len(harmful),
        ranking=asked.ranking,
        points=tuple(points),
    )


def _ranked(found: Findings, asked: Asked) -> list[HeadId]:
    """Heads, best first."""
    if asked.ranking == "sahara":
        return [step.head for step in found.steps]
    return ranked_heads(found.ships.mean(dim=0))
