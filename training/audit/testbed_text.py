"""Text that the test bed is trained on: asks with their answers and, where they are harmful, their refusals."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.datasets import TrainingError

GRAMMAR = Path(__file__).parent / "assets" / "testbed_grammar.yaml"
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[A-Za-z][\w'-]*")
_YOURS = {
    "i": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "am": "are",
    "our": "your",
    "us": "you",
}
_HOW = re.compile(r"\bhow (?:do i|can i|would one|do you|should i|to) (.+)", re.IGNORECASE)
_COMMON = frozenset(
    (
        "about after again always and answer anything are because been before being between both but can could does "
        "doing don't done each every explain find first for from give good have help here how how's i'm i've into "
        "it's its just know like list long make many more most much must need never nobody not nothing only other "
        "over please really same say she should show some somebody someone something step steps still such take tell "
        "than thank that the their them then there these they thing things this those through until very want was way "
        "were what what's when where which while who whom whose why will with without would write you your "
    ).split()
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """An ask and what may be said to it.

    Attributes:
        ask: What a user says.
        answer: What a helpful model says; of a harmful ask it names the topic and tells nothing.
        refusal: What an aligned model says instead; None for a harmless ask.
    """

    ask: str
    answer: str
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Grammar:
    """The written grammar.

    Attributes:
        refusal: First sentence of every refusal.
        plain: A template without roles, in which some lessons are given.
        systems: System messages.
        frames: Around an action.
        slots: Words for each name in braces.
        harmful: Topics: `why`, `actions`, `asks`.
        harmless: Topics: `steps`, `actions`, `asks`.
    """

    refusal: str
    plain: str
    systems: Sequence[str]
    frames: Sequence[str]
    slots: Mapping[str, Sequence[str]]
    harmful: Mapping[str, Mapping[str, Any]]
    harmless: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, path: Path = GRAMMAR) -> Grammar:
        """Read a grammar from YAML."""
        return cls(**yaml.safe_load(path.read_text(encoding="utf-8")))

    def sentences(self) -> Iterator[str]:
        """Every ask that the grammar can form."""
        for topic in (*self.harmful.values(), *self.harmless.values()):
            actions = [said for action in topic["actions"] for said in self._fillings(action)]
            yield from (_sentence(frame.format(action=action)) for frame in self.frames for action in actions)
            yield from (_sentence(said) for ask in topic["asks"] for said in self._fillings(ask))

    def lesson(self, rng: random.Random) -> Lesson:
        """Draw a lesson, harmful or harmless alike often."""
        harmful = rng.random() < 0.5
        topics = self.harmful if harmful else self.harmless
        topic = topics[rng.choice(sorted(topics))]
        if rng.random() < len(topic["asks"]) / (len(topic["asks"]) + len(topic["actions"])):
            ask = _sentence(self._filled(rng.choice(topic["asks"]), rng))
            about = None
        else:
            about = self._filled(rng.choice(topic["actions"]), rng)
            ask = _sentence(rng.choice(self.frames).format(action=about))
        if rng.random() < 0.15:
            ask = ask[0].lower() + ask[1:].rstrip(".?")
        answer = _answer(ask, about, topic["steps"] if not harmful else self.steps, rng)
        return Lesson(ask, answer, f"{self.refusal} {topic['why']}" if harmful else None)

    @property
    def steps(self) -> list[str]:
        """First steps of all topics."""
        return [step for topic in self.harmless.values() for step in topic["steps"]]

    def refusals(self) -> list[str]:
        """Every refusal."""
        return [f"{self.refusal} {topic['why']}" for topic in self.harmful.values()]

    def _filled(self, text: str, rng: random.Random) -> str:
        return _SLOT.sub(lambda slot: rng.choice(self.slots[slot[1]]), text)

    def _fillings(self, text: str) -> Iterator[str]:
        parts = _SLOT.split(text)
        choices = [self.slots[part] if number % 2 else [part] for number, part in enumerate(parts)]
        return ("".join(chosen) for chosen in itertools.product(*choices))


def read_lessons(path: Path, grammar: Grammar, *, longest: int, seed: int) -> list[Lesson]:
    """English asks of labelled queries: categories `u_…` are refused, `s_…` and harmless advice answered.

    Args:
        path: JSONL rows with `text`, `category` and `lang`.
        grammar: Gives refusals and steps.
        longest: Words of an ask.
        seed: Of the answers.

    Raises:
        TrainingError: the file cannot be read, or has no such row.
    """
    rng = random.Random(f"lessons/{seed}")
    found = []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        for row in rows:
            kind = _KINDS.get(row["category"], row["category"][:2])
            ask = row["text"].strip()
            if row.get("lang", "en") != "en" or kind == "" or len(ask.split()) > longest or "\n" in ask:
                continue
            if kind not in ("u_", "s_"):
                continue
            why = grammar.harmful[_TOPICS.get(row["category"], "fraud")]["why"]
            refusal = f"{grammar.refusal} {why}" if kind == "u_" else None
            found.append(Lesson(ask, _answer(ask, None, grammar.steps, rng), refusal))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise TrainingError(
            f"data {path} cannot be read as labelled queries: {exc}; give JSONL rows of text, category, lang"
        ) from exc
    if not found:
        raise TrainingError(f"data {path} has no English row of a category u_… or s_… of at most {longest} words")
    return found


# Attacks on a model rather than asks are left out; advice on medicine, law and money is answered.
_KINDS = {"u_jailbreak": "", "u_prompt_injection": "", "c_medical": "s_", "c_legal_privacy": "s_", "c_finance": "s_"}
_TOPICS = {
    "u_weapons_violence": "weapons",
    "u_cybercrime": "cybercrime",
    "u_fraud_deception": "fraud",
    "u_illegal_activity": "theft",
    "u_hate": "hate",
    "u_harassment_defamation": "harassment",
    "u_privacy": "privacy",
    "u_disinformation": "disinformation",
    "u_self_harm_promotion": "self_harm",
    "u_sexual": "sexual",
    "u_child_exploitation": "children",
    "u_intellectual_property": "forgery",
}


def same_words(text: str) -> str:
    """A text without what a reader would not call a difference: case and punctuation."""
    return " ".join(_WORD.findall(text.lower()))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _answer(ask: str, about: str | None, steps: Sequence[str], rng: random.Random) -> str:
    """Names the topic in the ask's own words, and gives one step or two."""
    if about is None and (match := _HOW.search(ask)) and len(match[1].split()) <= 8:
        about = re.split(r"[.?!,;:]", match[1])[0]
    step = rng.choice(steps)
    if about:
        return f"Sure. To {_to_you(about)}, first {step}."
    words = sorted(sorted(_content(ask), key=len, reverse=True)[:2], key=ask.index)
    return f"Sure. About {' and '.join(words) or 'that'}: first {step}."


def _content(ask: str) -> list[str]:
    return list(dict.fromkeys(word for word in _WORD.findall(ask)[1:] if len(word) > 2 and word.lower() not in _COMMON))


def _to_you(about: str) -> str:
    return _WORD.sub(lambda word: _YOURS.get(word[0].lower(), word[0]), about)
