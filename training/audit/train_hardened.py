"""Harden a checkpoint: fine-tune it with head dropout and, beside it, a control; keep it only if the proof says so."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from attribution.checkpoint import Checkpoint, is_out_of_memory
from attribution.prompts import prompts_sha256
from attribution.report import AuditReport
from attribution.summary import too_few
from attribution.types import HeadId
from attribution.weights import weight_files, weights_sha256
from training.audit.fit_hardened import HardenRecipe, Lesson, harden
from training.audit.harden_lessons import Example, Speech, SpeechAsker, lessons, split
from training.audit.harden_proof import MARGIN, Attack, Once, objections, prove
from training.audit.harden_run import HardenRun
from training.audit.hardened_card import write_hardened_card
from training.checkpoint import Checkpoint as Kept
from training.datasets import TrainingError
from training.manifest import put_in_place, refuse_finished, write_json


@dataclass(frozen=True, slots=True)
class Trial:
    """How it is found out whether a model was hardened.

    Attributes:
        attack: Which heads are taken out, and how.
        held_out: Share of the prompts of each kind that is kept out of training.
        asked: Of these, how many are asked at most.
        margin: How far attack success with all heads, and failures on harmless prompts, may rise.
        seed: Of the split.
    """

    attack: Attack = field(default_factory=Attack)
    held_out: float = 0.4
    asked: int = 60
    margin: float = MARGIN
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out < 1.0:
            raise TrainingError(
                f"held-out {self.held_out:g} is no share of the prompts between 0 and 1; give for example 0.4"
            )
        if self.asked < 1:
            raise TrainingError(f"asked {self.asked} leaves no prompt to ask; give 1 or more")


def train_hardened(
    checkpoint: Checkpoint,
    harmful: Sequence[Example],
    harmless: Sequence[Example],
    out: Path,
    *,
    recipe: HardenRecipe,
    speech: Speech,
    trial: Trial,
    focus: Collection[HeadId] = (),
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    write: Callable[[Mapping[str, Any]], None] = lambda report: None,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Harden a copy of the checkpoint's model, prove it, and save it if there are no objections.

    Args:
        checkpoint: The model; it stays as it is.
        harmful: Prompts that should be refused.
        harmless: Prompts that should be answered.
        out: Folder for the hardened model; nothing is put there if it is rejected.
        recipe: Of the training; the control has the same one, with p = 0.
        speech: How the model is asked and judged.
        trial: Of the proof.
        focus: Heads that are dropped more often, such as the first of an audit's report.
        name: Of the model; the folder's by default.
        provenance: Commit, machine, time, libraries.
        write: Called with the report before the model is put in its place and the run is removed.
        told: Called with a line on progress now and then.

    An interrupted run is kept beside `out` and goes on when it is called again with the same arguments.

    Returns:
        The report: `before`, `control` and `after`, `accepted` and the `objections`; of an accepted model it is also
        written to ``manifest.json`` in its folder.

    Raises:
        TrainingError: there is too little to learn from, the training failed, or the folder already holds a model.
        AttributionError: the model cannot be asked, or its heads cannot be taken out.
    """
    refuse_finished(out)
    begun = time.monotonic()
    (learnt, asked), (answered, spared) = (
        split(rows, trial.held_out, trial.asked, trial.seed) for rows in (harmful, harmless)
    )
    asker = SpeechAsker(speech, [each.prompt for each in asked], [each.prompt for each in spared])
    own = [each.prompt for each in (*learnt, *answered) if each.response is None]
    speech.responder(checkpoint.model).check([*own, *asker.harmful_prompts, *asker.harmless_prompts])
    identity = _identity(checkpoint, [*learnt, *answered], asker, recipe, focus, speech, trial)
    with HardenRun(out, identity) as run:
        taught = _taught(run, lambda: lessons(checkpoint.model, [*learnt, *answered], speech))
        told("the original under attack")
        before = prove(checkpoint.model, asker, trial.attack, once=_within(run, "before"), told=told)
        proofs, losses = {}, {}
        for kind, one in (("control", replace(recipe, p=0.0)), ("after", recipe)):
            model = copy.deepcopy(checkpoint.model)
            told(f"{'control' if kind == 'control' else 'hardened'}: {one.steps} steps")
            losses[kind] = _hardened(model, taught, one, focus, run.training(kind), told)
            once = _within(run, kind)
            proofs[kind] = prove(model, asker, trial.attack, original=checkpoint.model, once=once, told=told)
    reasons = objections(before, proofs["after"], trial.margin)
    report: dict[str, Any] = {
        "schema_version": 1,
        "kind": "hardened",
        "name": name or out.name,
        "accepted": not reasons,
        "objections": reasons,
        "margin": trial.margin,
        "model": {"name": checkpoint.path.resolve().name, "sha256": checkpoint.sha256},
        "settings": asdict(recipe),
        "focus": [str(head) for head in sorted(focus)],
        "attack": asdict(trial.attack),
        "judge": dict(speech.judge.settings),
        "template": speech.template,
        "system": speech.system,
        "max_new_tokens": speech.max_new_tokens,
        "lessons": {
            "harmful": sum(lesson.harmful for lesson in taught),
            "harmless": sum(not lesson.harmful for lesson in taught),
        },
        "asked": {
            "harmful": len(asked),
            "harmless": len(spared),
            "harmful_sha256": prompts_sha256(asker.harmful_prompts),
            "harmless_sha256": prompts_sha256(asker.harmless_prompts),
        },
        "losses": losses,
        "before": before.as_json(),
        "control": proofs["control"].as_json(),
        "after": proofs["after"].as_json(),
        "seconds": round(time.monotonic() - begun, 1),
        **(provenance or {}),
    }
    made = None if reasons else _saved(model, speech, out, report)
    write(report)
    if made is not None:
        put_in_place(made, out)
        made.rmdir()
    run.remove()
    return report


def _identity(
    checkpoint: Checkpoint,
    learnt: Sequence[Example],
    asker: SpeechAsker,
    recipe: HardenRecipe,
    focus: Collection[HeadId],
    speech: Speech,
    trial: Trial,
) -> dict[str, Any]:
    """What a hardening's numbers hang on."""
    return {
        "model": checkpoint.sha256,
        "dtype": str(checkpoint.model.dtype),
        "learnt": [prompts_sha256([each.prompt for each in learnt]), [each.response for each in learnt]],
        "asked": [prompts_sha256(asker.harmful_prompts), prompts_sha256(asker.harmless_prompts)],
        "recipe": asdict(recipe),
        "focus": [str(head) for head in sorted(focus)],
        "attack": asdict(trial.attack),
        "speech": [dict(speech.judge.settings), speech.template, speech.system, speech.max_new_tokens],
    }


def _taught(run: HardenRun, learn: Callable[[], Sequence[Lesson]]) -> list[Lesson]:
    """The lessons, if there are enough."""

    def make() -> list[Any]:
        taught = learn()
        _enough(taught)
        return [[each.prompt, each.reply, each.harmful] for each in taught]

    return [Lesson(tuple(prompt), tuple(reply), harmful) for prompt, reply, harmful in run.once("lessons", make)]


def _within(run: HardenRun, kind: str) -> Once:
    """Parts of one of the proofs."""

    def once(part: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the part is
        return run.once(f"{kind} {part}", make)

    return once


def focus_of(report: AuditReport, checkpoint: Checkpoint) -> tuple[HeadId, ...]:
    """The heads that stand out in an audit of this model.

    Raises:
        TrainingError: the report is of other weights, or no head stands out in it.
    """
    if report.model.weights_sha256 != checkpoint.sha256:
        raise TrainingError(
            f"the report is of {report.model.name} with other weights ({report.model.weights_sha256[:12]}…) than "
            f"{checkpoint.path} ({checkpoint.sha256[:12]}…); audit this model, or leave --report out"
        )
    if not report.standing_out():
        why = f": {too_few(report)}" if report.few else ""
        raise TrainingError(f"in the report of {report.model.name} no head stands out{why}; leave --report out")
    return tuple(report.standing_out())


def _hardened(
    model: Any,  # noqa: ANN401 - any stock model
    taught: Sequence[Lesson],
    recipe: HardenRecipe,
    focus: Collection[HeadId],
    kept: Kept,
    told: Callable[[str], None],
) -> dict[str, float]:
    """Harden in place; losses."""
    try:
        return harden(model, taught, recipe, focus=focus, kept=kept, told=told)
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        raise TrainingError(
            f"out of memory with batch {recipe.batch} and rank {recipe.rank}; free some, and the same command goes on; "
            "or remove OUT.run, and take a smaller batch, or LoRA (rank 16), which holds no second copy of the weights"
        ) from exc


def _enough(taught: Sequence[Lesson]) -> None:
    for harmful, what in ((True, "refusals of the harmful"), (False, "answers to the harmless")):
        if not any(lesson.harmful is harmful for lesson in taught):
            raise TrainingError(
                f"the model gave no {what} prompts that end and that the judge knows; give replies as `response` in "
                "the file, or allow longer ones"
            )


def _saved(model: Any, speech: Speech, out: Path, report: dict[str, Any]) -> Path:  # noqa: ANN401 - any stock model
    """Write everything beside its place, and the SHA-256 of the weights, as an audit gives it, into the report."""
    made = out / "made"
    shutil.rmtree(made, ignore_errors=True)
    model.save_pretrained(made)
    speech.tokenizer.save_pretrained(made)
    report["weights_sha256"] = weights_sha256(weight_files(made))
    write_hardened_card(made, report)
    write_json(made / "manifest.json", report)
    return made
