"""The output door: checks on what the model wrote, before it leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from classifier.types import Tier
from guard.errors import ConfigError
from guard.types import Classifier, Finding


class PatternCheck:
    """Withholds answers that hold a match of one of the operator's patterns.

    Args:
        patterns: regular expressions by name; the longest match of each must be bounded by `reach`, so that the
            hold-back of a stream sees every match whole.
        reach: characters held back.

    Raises:
        ConfigError: a pattern's match can be longer than `reach`.
    """

    def __init__(self, patterns: Mapping[str, str], reach: int) -> None:
        self._patterns = {name: re.compile(regex) for name, regex in patterns.items()}
        self._reach = reach
        for name, regex in patterns.items():
            longest = int(re._parser.parse(regex).getwidth()[1])  # type: ignore[attr-defined]
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
    """

    def __init__(self, classifier: Classifier, unsafe_from: float, reach: int) -> None:
        self._classifier = classifier
        self._unsafe_from = unsafe_from
        self._reach = reach

    @property
    def reach(self) -> int:
        """Characters of context that a verdict rests on."""
        return self._reach

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        """A finding for each text whose probability of Unsafe reaches the threshold."""
        return [
            Finding("output_unsafe", verdict.category) if verdict.tiers[Tier.UNSAFE] >= self._unsafe_from else None
            for verdict in self._classifier.classify(texts)
        ]


class AllChecks:
    """Several checks as one: the first finding counts, the longest reach holds."""

    def __init__(self, checks: Sequence[PatternCheck | ClassifierCheck]) -> None:
        self._checks = tuple(checks)

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
