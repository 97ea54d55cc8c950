"""The output door: its settings, and the checks on what the model wrote before it leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from classifier.types import Tier, Verdict
from guard.errors import ConfigError
from guard.fields import Count, Seconds, Section, Share, named_apart
from guard.response_check import Responses
from guard.sound import sound_verdicts
from guard.types import Classifier, Finding


class Pattern(Section):
    """A regular expression that no answer of the model may hold; its longest match must be bounded."""

    name: str
    regex: str

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        try:
            re.compile(regex)
        except (re.error, OverflowError, RecursionError) as exc:  # too often repeated, nested too deep
            raise ValueError(f"not a regular expression: {exc}") from exc
        return regex


class Output(Section):
    """The output door for answers of the application's own model."""

    hold_back: Count = Field(
        240, description="Characters of a stream kept back until what follows them is checked too."
    )
    stride: Count = Field(160, description="Characters of a stream between two checks.")
    classifier: bool = Field(True, description="Judge what the model wrote with the input classifier.")
    unsafe_from: Share = Field(0.9, description="Probability of Unsafe from which an answer is withheld.")
    input_only: tuple[str, ...] = Field(
        ("u_jailbreak", "u_prompt_injection"),
        description="Categories of manipulation: they say something of a query, nothing of an answer.",
    )
    patterns: Annotated[tuple[Pattern, ...], AfterValidator(named_apart("patterns"))] = ()
    responses: Responses = Responses()
    deadline_s: Seconds = 10.0


class PatternCheck:
    """Withholds answers that hold a match of one of the operator's patterns.

    Args:
        patterns: regular expressions by name; the longest match of each, with what it looks ahead or behind, must be
            bounded by `reach`, so that the hold-back of a stream sees every match whole.
        reach: characters held back.

    Raises:
        ConfigError: a pattern's match can be longer than `reach`, or it is nested too deep.
    """

    def __init__(self, patterns: Mapping[str, str], reach: int) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._reach = reach
        for name, regex in patterns.items():
            try:
                self._patterns[name] = re.compile(regex)
                longest = _span(re._parser.parse(regex))  # type: ignore[attr-defined]
            except RecursionError as exc:
                raise ConfigError(f"output.patterns: {name!r} is nested too deep; take groups out of it") from exc
            if longest > reach:
                shown = "unbounded" if longest >= 2**31 else f"{longest} characters"
                raise ConfigError(
                    f"output.patterns: the longest match of {name!r} is {shown}, but output.hold_back is {reach}; "
                    "bound its repetitions, such as {1,40} for +, or raise output.hold_back"
                )

    @property
    def reach(self) -> int:
        """Characters that a match may span."""
        return self._reach

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        """The first pattern that matches each text."""
        return [self._first(text) for text in texts]

    def _first(self, text: str) -> Finding | None:
        return next((Finding(f"output_pattern:{name}") for name, p in self._patterns.items() if p.search(text)), None)


class ClassifierCheck:
    """Withholds answers that the input classifier takes for Unsafe.

    The classifier was trained on what people ask, not on what models answer, hence its threshold of its own.

    Args:
        classifier: the input door's.
        unsafe_from: probability of Unsafe from which a text is withheld.
        reach: characters of context that a verdict rests on.
        input_only: categories that do not count.
    """

    def __init__(self, classifier: Classifier, unsafe_from: float, reach: int, input_only: Sequence[str] = ()) -> None:
        self._classifier = classifier
        self._unsafe_from = unsafe_from
        self._reach = reach
        self._input_only = frozenset(input_only)

    @property
    def reach(self) -> int:
        """Characters of context that a verdict rests on."""
        return self._reach

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        """A finding for each text whose probability of Unsafe reaches the threshold."""
        verdicts = sound_verdicts(self._classifier.classify(texts), len(texts))
        return [Finding("output_unsafe", v.category) if self._is_unsafe(v) else None for v in verdicts]

    def _is_unsafe(self, verdict: Verdict) -> bool:
        return verdict.tiers[Tier.UNSAFE] >= self._unsafe_from and verdict.category not in self._input_only


class AllChecks:
    """Several checks as one: the first finding counts, the longest reach holds."""

    def __init__(self, checks: Sequence[PatternCheck | ClassifierCheck]) -> None:
        self._checks = tuple(checks)

    @property
    def instant(self) -> bool:
        """Whether no model is asked: a regular expression never lets go of the interpreter, in a thread or not."""
        return all(isinstance(check, PatternCheck) for check in self._checks)

    @property
    def reach(self) -> int:
        """The longest reach of the checks."""
        return max((check.reach for check in self._checks), default=0)

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        """The first finding on each text."""
        found: list[Finding | None] = [None] * len(texts)
        for check in self._checks:
            clean = [index for index, finding in enumerate(found) if finding is None]
            for index, finding in zip(clean, check.check([texts[index] for index in clean]), strict=True):
                found[index] = finding
        return found


def output_checks(settings: Output, classifier: Classifier) -> AllChecks:
    """The checks that the section `output` asks for.

    Raises:
        ConfigError: a pattern's match can be longer than what is held back.
    """
    checks: list[PatternCheck | ClassifierCheck] = []
    if settings.patterns:
        checks.append(PatternCheck({each.name: each.regex for each in settings.patterns}, settings.hold_back))
    if settings.classifier:
        checks.append(ClassifierCheck(classifier, settings.unsafe_from, settings.hold_back, settings.input_only))
    return AllChecks(checks)


def _span(parsed: Any) -> int:  # noqa: ANN401 - `re` has no public type for a parsed expression
    """The longest run of characters that a match rests on: its own, and what its assertions look at beside it."""
    return int(parsed.getwidth()[1]) + max(map(_span, _assertions(parsed)), default=0)


def _assertions(node: Any) -> Iterator[Any]:  # noqa: ANN401
    for item in getattr(node, "data", node):
        if isinstance(item, tuple) and str(item[0]) in ("ASSERT", "ASSERT_NOT"):
            yield item[1][1]
        elif isinstance(item, (tuple, list)) or hasattr(item, "data"):
            yield from _assertions(item)
