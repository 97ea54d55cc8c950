"""Rules and choices of classifiers that can never match: earlier ones take everything that they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from classifier.taxonomy import Category, Taxonomy
from guard.choosing import Taxonomies
from guard.policy import Mode, Rule

_MAGIC = frozenset("*?[")


def unreachable(rules: Sequence[Rule], taxonomy: Taxonomy | Taxonomies) -> list[str]:
    """A sentence for each rule that can never match, whatever is sent; rules that are off are left out.

    A rule is held against the earlier ones category by category: each category has one tier and one handling.
    """
    found = []
    earlier: list[Rule] = []
    for rule in rules:
        if rule.mode is Mode.OFF:
            continue
        wanted = [category for category in taxonomy.categories if _of(rule, category)]
        taking = [next((each for each in earlier if _takes(each, rule, category)), None) for category in wanted]
        if not wanted:
            found.append(f"rule {rule.name!r} can never match: no category has its tier, category and handling at once")
        elif all(taking):
            names = ", ".join(repr(each.name) for each in dict.fromkeys(filter(None, taking)))
            found.append(f"rule {rule.name!r} can never match: what it asks for is taken before it by {names}")
        if rule.mode is Mode.ENFORCE:
            earlier.append(rule)
    return found


def shadowed(choices: Mapping[str, Rule]) -> list[str]:
    """A sentence for each of `classifiers`, by name and in order, of which an earlier one takes every request."""
    found = []
    for place, (name, when) in enumerate(choices.items()):
        taking = next((each for each, earlier in [*choices.items()][:place] if _concerns_all(earlier, when)), None)
        if taking is not None:
            found.append(
                f"classifiers.{name} judges nothing: classifiers.{taking} stands before it and takes all its requests; "
                "put it first, or remove it"
            )
    return found


def _of(rule: Rule, category: Category) -> bool:
    """Whether a text of a category can match a rule."""
    return (
        (not rule.tiers or category.tier in rule.tiers)
        and (not rule.categories or category.id in rule.categories)
        and (not rule.handlings or category.handling in rule.handlings)
    )


def _takes(earlier: Rule, rule: Rule, category: Category) -> bool:
    """Whether whatever matches a rule in a category matches the earlier rule too."""
    return (
        _of(earlier, category)
        and earlier.min_probability <= rule.min_probability
        and _at_most(earlier.max_probability, rule.max_probability)
        and _at_most(earlier.read_below, rule.read_below)
        and rule.means <= earlier.means
        and _all_in(earlier.texts, rule.texts)
        and _concerns_all(earlier, rule)
    )


def _concerns_all(earlier: Rule, rule: Rule) -> bool:
    """Whether the earlier rule concerns every request that a rule concerns."""
    return (
        _all_in(earlier.endpoints, rule.endpoints)
        and _all_like(earlier.tenants, rule.tenants)
        and _all_like(map(str.lower, earlier.models), [*map(str.lower, rule.models)])
    )


def _at_most(earlier: float | None, limit: float | None) -> bool:
    return earlier is None or (limit is not None and limit <= earlier)


def _all_in(earlier: frozenset[str], values: frozenset[str]) -> bool:
    return not earlier or (bool(values) and values <= earlier)


def _all_like(earlier: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether each name that fits one of some patterns fits one of the earlier; True only where that is certain."""
    among, asked = list(earlier), list(patterns)
    return not among or (bool(asked) and all(any(_within(each, wider) for wider in among) for each in asked))


def _within(pattern: str, wider: str) -> bool:
    plain = not _MAGIC & set(pattern)
    return pattern == wider or wider == "*" or (plain and fnmatchcase(pattern, wider))
