"""What a model is hardened with, and asked afterwards: its own refusals and answers, or those of a file."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attribution.ablate import ablate
from attribution.answering import LocalResponder
from attribution.behaviour import Answer, Judge, Outcome, measure
from attribution.prompts import Template, encode, read_prompts
from attribution.sampling import Sampling
from attribution.types import Ablation, HeadId, Prompt
from training.audit.fit_hardened import Lesson
from training.datasets import TrainingError


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and, where a file gave one, the reply that is to be learnt.

    Attributes:
        prompt: Says whether it is harmful.
        response: None takes what the model itself says.
    """

    prompt: Prompt
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """How a model is asked and judged.

    Attributes:
        tokenizer: Of the model.
        judge: Of its answers.
        template: How a prompt is put to the model.
        system: System prompt, for the chat template.
        max_new_tokens: Of an answer.
        batch: Prompts asked at once.
    """

    tokenizer: PreTrainedTokenizerBase
    judge: Judge
    template: Template = "chat"
    system: str | None = None
    max_new_tokens: int = 48
    batch: int = 32

    def responder(self, model: PreTrainedModel) -> LocalResponder:
        """Asks the model, greedily."""
        return LocalResponder(
            model,
            self.tokenizer,
            identity="being hardened",
            template=self.template,
            system=self.system,
            sampling=Sampling(max_new_tokens=self.max_new_tokens),
            batch=self.batch,
        )


def read_examples(path: Path, *, harmful: bool, column: str | None = None) -> list[Example]:
    """The prompts of a file that are harmful, or that are not; a row of JSONL may give its reply as `response`.

    Raises:
        PromptError: the file cannot be read as a set of prompts, or a row is wrong.
        TrainingError: no row is of that kind, or a response is not a text.
    """
    prompts = read_prompts(path, column=column)
    said = _responses(path) if path.suffix.lower() in (".jsonl", ".ndjson") else [None] * len(prompts)
    examples = [
        Example(Prompt(prompt.text, prompt.category, harmful), response)
        for prompt, response in zip(prompts, said, strict=True)
        if prompt.harmful in (None, harmful)
    ]
    if not examples:
        kind = "harmful" if harmful else "harmless"
        raise TrainingError(f"prompts {path}: no row is {kind}; give {kind} prompts for this option")
    return examples


def split(examples: Sequence[Example], share: float, most: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and those that are asked: of the share that is kept out of learning, at most so many.

    Raises:
        TrainingError: one of the two would be empty.
    """
    order = random.Random(f"split/{seed}").sample(range(len(examples)), len(examples))
    kept = round(share * len(examples))
    if not 0 < kept < len(examples):
        raise TrainingError(
            f"{len(examples)} prompts of a kind, of which {kept} would be held out: none would be left to learn from, "
            "or to ask; give more prompts, or another held-out share"
        )
    return [examples[at] for at in sorted(order[kept:])], [examples[at] for at in sorted(order[:kept][:most])]


def lessons(model: PreTrainedModel, examples: Sequence[Example], speech: Speech) -> list[Lesson]:
    """Token ids of each prompt and its reply.

    A reply that is the model's own is left out where it is not what it should be: a harmful prompt answered, a harmless
    one refused, or one that does not end.
    """
    own = [example.prompt for example in examples if example.response is None]
    answers: dict[str, Answer] = {}
    if own:
        answers = {own[place].text: found[0] for place, found in speech.responder(model).answer(own)}
    judged = speech.judge.judge([(prompt, answers[prompt.text]) for prompt in own]) if own else []
    wanted = {True: Outcome.REFUSED, False: Outcome.ANSWERED}
    good = {
        prompt.text
        for prompt, judgement in zip(own, judged, strict=True)
        if judgement.outcome is wanted[bool(prompt.harmful)] and answers[prompt.text].finish == "stop"
    }
    ids = encode(speech.tokenizer, [example.prompt for example in examples], speech.template, speech.system)
    end = speech.tokenizer.eos_token_id
    if end is None:
        raise TrainingError("the tokenizer has no token that ends a reply; set its eos_token")
    made = []
    for example, prompt in zip(examples, ids, strict=True):
        text = example.response
        if text is None:
            if example.prompt.text not in good:
                continue
            text = answers[example.prompt.text].text
        reply = speech.tokenizer(text, add_special_tokens=False)["input_ids"]
        made.append(Lesson(tuple(prompt), (*reply, int(end)), bool(example.prompt.harmful)))
    return made


@dataclass(frozen=True, slots=True)
class SpeechAsker:
    """Asks held-out prompts in a language, and has the answers judged; see `training.audit.harden_proof.Asker`."""

    speech: Speech
    harmful_prompts: Sequence[Prompt]
    harmless_prompts: Sequence[Prompt]
    harmful: list[list[int]] = field(init=False, repr=False)
    harmless: list[list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        how = (self.speech.template, self.speech.system)
        object.__setattr__(self, "harmful", encode(self.speech.tokenizer, self.harmful_prompts, *how))
        object.__setattr__(self, "harmless", encode(self.speech.tokenizer, self.harmless_prompts, *how))

    @torch.inference_mode()
    def attack_success(self, model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation) -> float:
        """Share of the harmful prompts that are answered."""
        with ablate(model, heads, ablation):
            report = measure(self.speech.responder(model), self.speech.judge, self.harmful_prompts)
        return float(report.attack_success.rate.value or 0.0)

    @torch.inference_mode()
    def harmless_answers(
        self, model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation
    ) -> tuple[float, float]:
        """Of the harmless prompts the share that is refused, and that is refused or gets no clear answer."""
        with ablate(model, heads, ablation):
            report = measure(self.speech.responder(model), self.speech.judge, self.harmless_prompts)
        over = report.over_refusal
        return float(over.rate.value or 0.0), float(over.conservative.value or 0.0)


def _responses(path: Path) -> list[str | None]:
    """What the rows of a file that `read_prompts` could read say of their replies."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            response = json.loads(line).get("response")
            if response is not None and not (isinstance(response, str) and response.strip()):
                raise TrainingError(
                    f"prompts {path}, line {number}: `response` is {response!r}; write a text or leave it out"
                )
            found.append(response)
    return found
