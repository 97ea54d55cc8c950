"""Tests of a policy: a file of cases, each a verdict or a text with the route or the rule that is expected."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from classifier.taxonomy import DEFAULT_HANDLING, Category, Taxonomy
from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.choosing import Taxonomies, first_of
from guard.errors import ConfigError
from guard.fields import Section, Share, Word, Words
from guard.policy import NO_RULE, Match, Mode, Rule, decide
from guard.rules import EndpointName, TierLabel
from guard.types import Origin, Route, TextKind
from guard.yaml_file import read_yaml, validated

_OF_VERDICTS = {"tier", "category", "handling", "probability", "read", "sure"}


class Expected(Section):
    """What the policy is to say; whatever is left out may be anything."""

    route: Route | None = Field(None, description="Of the rule that decides.")
    rule: Word | None = Field(None, description="Its name.")
    shadow: Words | None = Field(None, description="The rules in shadow mode that would have decided, in order.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("need a `route`, a `rule` or a `shadow`")
        return self


class Case(Section):
    """A verdict or a text, where it comes from, and what is expected."""

    name: str = Field("", description="For the report; the text or the number of the case without one.")
    text: Word | None = Field(None, description="What a user says; the classifier judges it.")
    tier: TierLabel | None = Field(None, description="Of a verdict; that of the category without one.")
    category: Word | None = Field(None, description="Of a verdict; none without one.")
    handling: Handling | None = Field(None, description="Of a verdict; that of the category or the tier without one.")
    probability: Share = Field(1.0, description="Of the tier of a verdict.")
    read: Share = Field(1.0, description="Share of the text that could be read, of a verdict.")
    sure: bool = Field(True, description="`false`: the classifier, calibrated to budgets, abstains.")
    kind: TextKind = Field(TextKind.LAST_TURN, description="Which text of a request it is.")
    tenant: Word | None = Field(None, description="Who sends it.")
    model: str = Field("", description="The model asked for.")
    endpoint: EndpointName = Field("chat", description="The wire that the request speaks.")
    expect: Expected

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return Origin(self.tenant, self.model, self.endpoint)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        given = sorted(_OF_VERDICTS & self.model_fields_set)
        if self.text is not None and given:
            raise ValueError(
                f"a case with a `text` is judged by the classifier; remove {', '.join(given)}, or the text"
            )
        if self.text is None and self.tier is None and self.category is None:
            raise ValueError("need a `text`, or a `tier` or `category` of a verdict")
        return self


class Cases(Section):
    """A file of cases."""

    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the policy says of a case."""

    name: str
    case: Case
    verdict: Verdict
    match: Match

    @property
    def passed(self) -> bool:
        """Whether it is what was expected."""
        expected, rule = self.case.expect, self.match.rule
        return (
            expected.route in (None, rule.route)
            and expected.rule in (None, rule.name)
            and expected.shadow in (None, self.shadow)
        )

    @property
    def shadow(self) -> tuple[str, ...]:
        """The rules in shadow mode that would have decided."""
        return tuple(rule.name for rule in self.match.shadow)

    def as_dict(self) -> dict[str, Any]:
        """The form of the command line."""
        return {
            "case": self.name,
            "passed": self.passed,
            "expected": self.case.expect.model_dump(mode="json", exclude_none=True),
            "route": self.match.rule.route.value,
            "rule": self.match.rule.name,
            "shadow": list(self.shadow),
            "tier": self.verdict.tier.label,
            "category": self.verdict.category or None,
            "probability": round(self.verdict.tiers[self.verdict.tier], 6),
            "sure": self.verdict.sure,
        }


def read_cases(path: Path) -> tuple[Case, ...]:
    """The cases of a YAML file.

    Raises:
        ConfigError: it cannot be read, or a case is wrong.
    """
    return validated(Cases, read_yaml(path, "file of cases", "`cases:`"), path).cases


def run_cases(
    rules: Sequence[Rule],
    cases: Sequence[Case],
    taxonomy: Taxonomy | Taxonomies,
    classify: Callable[[list[str]], list[Verdict]],
    choices: Sequence[Rule] = (),
) -> list[Outcome]:
    """What a policy says of each case, in order.

    Args:
        rules: of the policy.
        cases: verdicts and texts.
        taxonomy: gives a verdict's category its tier and handling.
        classify: judges texts; not called where there are none.
        choices: the requests of `classifiers`, in order: a case of theirs means the category of their taxonomy.

    Raises:
        ConfigError: a case names a category that is not known, or another tier or handling than the category's.
    """
    texts = [case.text for case in cases if case.text is not None]
    judged = iter(classify(texts) if texts else ())
    outcomes = []
    for number, case in enumerate(cases, 1):
        name = case.name or case.text or f"case {number}"
        known = _categories(taxonomy, first_of(choices, case.origin))
        verdict = _verdict(case, name, known) if case.text is None else next(judged)
        match = decide(rules, verdict, case.kind, case.origin)
        outcomes.append(Outcome(name, case, verdict, match))
    return outcomes


def untested(rules: Sequence[Rule], outcomes: Sequence[Outcome]) -> list[str]:
    """The names of the rules that no case reaches, but for those that are off."""
    reached = {rule.name for outcome in outcomes for rule in (outcome.match.rule, *outcome.match.shadow)}
    return [rule.name for rule in rules if rule.mode is not Mode.OFF and rule.name not in reached]


def unknown_rules(rules: Sequence[Rule], outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for each rule that a case expects and the policy does not have."""
    names = [*(rule.name for rule in rules), NO_RULE.name]
    found = []
    for outcome in outcomes:
        expected = outcome.case.expect
        for name in (*filter(None, [expected.rule]), *(expected.shadow or ())):
            if name not in names:
                found.append(f"{outcome.name}: the policy has no rule {name!r}; {_nearest(name, names)}")
    return found


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names)}"


def _categories(taxonomy: Taxonomy | Taxonomies, place: int | None) -> Mapping[str, Category]:
    """All categories by id; of those that share one, that of the taxonomy at that place of `classifiers`."""
    of = taxonomy.of if isinstance(taxonomy, Taxonomies) else (taxonomy,)
    own = of[0 if place is None else place + 1]
    return {category.id: category for each in (*reversed(of), own) for category in each.categories}


def _verdict(case: Case, name: str, known: Mapping[str, Category]) -> Verdict:
    """The verdict that a case describes."""
    tier, handling = _meaning(case, name, known)
    rest = (1.0 - case.probability) / (len(Tier) - 1)
    return Verdict(
        tier=tier,
        category=case.category or "",
        handling=handling,
        tiers={each: case.probability if each is tier else rest for each in Tier},
        probability=case.probability,
        window=Span(0, 0),
        coverage=Coverage(tokens=0, windows=0, read=case.read),
        model="case",
        sure=case.sure,
    )


def _meaning(case: Case, name: str, known: Mapping[str, Category]) -> tuple[Tier, Handling]:
    tier = Tier.parse(case.tier) if case.tier else None
    if case.category is None and tier is not None:
        return tier, case.handling or DEFAULT_HANDLING[tier]
    found = known.get(str(case.category))
    if found is None:
        near = _nearest(str(case.category), [*known])
        raise ConfigError(f"{name}: the taxonomy has no category {case.category!r}; {near}")
    if tier not in (None, found.tier) or case.handling not in (None, found.handling):
        raise ConfigError(
            f"{name}: the category {found.id!r} has tier {found.tier.label!r} and handling {found.handling.value!r}; "
            "leave them out, or name these"
        )
    return found.tier, found.handling
