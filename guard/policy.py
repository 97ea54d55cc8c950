"""Policy: the first rule that matches a verdict names the route; a pure function, to be tested and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from classifier.types import Handling, Tier, Verdict
from guard.types import Route, TextKind

NO_RULE = "no_rule_matched"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and a route. Every condition given must hold; none given always holds.

    Attributes:
        name: written into the decision.
        route: what becomes of the request.
        tiers: the verdict's tier is one of these.
        categories: its category is one of these.
        handlings: its category's handling is one of these.
        min_probability: the tier's probability is at least this.
        read_below: less than this share of the text could be read.
        texts: the text is one of these. Without it, a text other than the last turn only makes the route stricter when
            it is Unsafe or refused; a rule that names such a text means it, whatever the tier.
    """

    name: str
    route: Route
    tiers: frozenset[Tier] = frozenset()
    categories: frozenset[str] = frozenset()
    handlings: frozenset[Handling] = frozenset()
    min_probability: float = 0.0
    read_below: float | None = None
    texts: frozenset[TextKind] = frozenset()

    def matches(self, verdict: Verdict, text: TextKind) -> bool:
        """Whether every condition holds."""
        return (
            (not self.tiers or verdict.tier in self.tiers)
            and (not self.categories or verdict.category in self.categories)
            and (not self.handlings or verdict.handling in self.handlings)
            and verdict.tiers[verdict.tier] >= self.min_probability
            and (self.read_below is None or verdict.coverage.read < self.read_below)
            and (not self.texts or text in self.texts)
        )


def decide(rules: Sequence[Rule], verdict: Verdict, text: TextKind = TextKind.LAST_TURN) -> tuple[Route, str]:
    """Route and name of the first rule that matches a text's verdict; refuse when none does."""
    for rule in rules:
        if rule.matches(verdict, text):
            return rule.route, rule.name
    return Route.REFUSE, NO_RULE
