"""An audit of a checkpoint's heads, composed: checks, Ships, Sahara, what it answers without them, and the report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attribution.audit import Plan, audit, check_plan, ships_in_parts, singles, work
from attribution.brute import BruteForce, exact_or_slow
from attribution.checkpoint import Checkpoint, is_out_of_memory
from attribution.describe import describe, describe_model
from attribution.engine import Engine
from attribution.finished import run_id
from attribution.heads import all_heads
from attribution.journal import Journal
from attribution.prompts import Template, beginning, encode, prompts_sha256
from attribution.report import AuditReport, Check, Checks, Prompts, Settings
from attribution.screen import estimate
from attribution.selfcheck import SelfCheck, check
from attribution.summary import half_precision
from attribution.types import AttributionError, CheckpointError, Prompt, PromptError
from training.audit.without_heads import Asked, Asking

EngineName = Literal["auto", "exact", "brute"]
Told = Callable[[str], None]


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
    asking = None
    if asked is not None:
        asking = Asking(asked, checkpoint, prompts, plan, template, system)
        _encode(checkpoint, asking.prompts, template, system, answer=asked.max_new_tokens)
    against_part = f"against {run_id(beside)}"
    further = {**by_template, **({against_part: beside} if beside else {})}
    done = 0
    with _memory(batch_tokens):
        how = runner(checkpoint, engine, batch_tokens, told)
        check_plan(how, ids, plan)
        if asking:
            asking.check_counts(how.shape)
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
            behaviour = asking.behaviour(found, kept) if asking else None
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
