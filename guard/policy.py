"""Policy: the first rule in force that matches a verdict names the route; pure, to be tested and replayed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from classifier.types import Handling, Tier, Verdict
from guard.types import UNKNOWN, AnswerGrounding, Origin, Route, TextKind


class Mode(StrEnum):
    """What a rule may do."""

    ENFORCE = "enforce"  # it decides
    SHADOW = "shadow"  # the decision says that it would have decided, and the rules after it are asked
    OFF = "off"  # it is not asked


_SURE, _BOTH = frozenset({True}), frozenset({True, False})


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and a route. Every condition given must hold; none given always holds.

    Attributes:
        name: written into the decision.
        route: what becomes of the request.
        mode: whether it decides.
        tiers: the verdict's tier is one of these.
        categories: its category is one of these.
        handlings: its category's handling is one of these.
        min_probability: the tier's probability is at least this.
        max_probability: the tier's probability is at most this.
        read_below: less than this share of the text could be read.
        sure: the verdict is, or is not, sure at the budgets that the classifier was calibrated to. Without it, a rule
            that lets a text through or grounds it means verdicts that are sure, and any other rule means all.
        texts: the text is one of these. Without it, a text other than the last turn only makes the route stricter when
            it is Unsafe or refused; a rule that names such a text means it, whatever the tier.
        tenants: who sends the request is one of these patterns (`fnmatch`); nobody is none of them.
        models: the model asked for is one of these patterns (`fnmatch`), in capitals or not.
        endpoints: the wire that the request speaks is one of these.
        ground_answer: what becomes of the model's answer, where the route is forward.
        protect: whether protective documents may be quoted beside the refusal.
    """

    name: str
    route: Route
    mode: Mode = Mode.ENFORCE
    tiers: frozenset[Tier] = frozenset()
    categories: frozenset[str] = frozenset()
    handlings: frozenset[Handling] = frozenset()
    min_probability: float = 0.0
    max_probability: float | None = None
    read_below: float | None = None
    sure: bool | None = None
    texts: frozenset[TextKind] = frozenset()
    tenants: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    ground_answer: AnswerGrounding = AnswerGrounding.OFF
    protect: bool = False

    def matches(self, verdict: Verdict, text: TextKind, origin: Origin = UNKNOWN) -> bool:
        """Whether every condition holds."""
        probability = verdict.tiers[verdict.tier]
        return (
            (not self.tiers or verdict.tier in self.tiers)
            and (not self.categories or verdict.category in self.categories)
            and (not self.handlings or verdict.handling in self.handlings)
            and probability >= self.min_probability
            and (self.max_probability is None or probability <= self.max_probability)
            and (self.read_below is None or verdict.coverage.read < self.read_below)
            and verdict.sure in self.means
            and (not self.texts or text in self.texts)
            and self.concerns(origin)
        )

    @property
    def means(self) -> frozenset[bool]:
        """Whether it means verdicts that are sure, those that are not, or both."""
        if self.sure is None:
            return _BOTH if self.route in (Route.REFUSE, Route.HAND_OVER) else _SURE
        return frozenset({self.sure})

    def concerns(self, origin: Origin) -> bool:
        """Whether the conditions on where a request comes from hold."""
        return (
            (not self.endpoints or origin.endpoint in self.endpoints)
            and (not self.tenants or (origin.tenant is not None and fits(origin.tenant, self.tenants)))
            and (not self.models or fits(origin.model.lower(), map(str.lower, self.models)))
        )


NO_RULE = Rule("no_rule_matched", Route.REFUSE)
"""What decides where no rule matches."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a policy says of one text.

    Attributes:
        rule: the one that decides.
        shadow: those in shadow mode that stand before it and match, in order.
    """

    rule: Rule
    shadow: tuple[Rule, ...] = ()


def decide(
    rules: Sequence[Rule], verdict: Verdict, text: TextKind = TextKind.LAST_TURN, origin: Origin = UNKNOWN
) -> Match:
    """The first enforced rule that matches a text's verdict; `NO_RULE`, which refuses, when none does."""
    shadow: list[Rule] = []
    for rule in rules:
        if rule.mode is Mode.OFF or not rule.matches(verdict, text, origin):
            continue
        if rule.mode is Mode.ENFORCE:
            return Match(rule, tuple(shadow))
        shadow.append(rule)
    return Match(NO_RULE, tuple(shadow))


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of some patterns, as `fnmatch` reads them, capitals told from small letters."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
