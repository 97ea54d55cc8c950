"""The taxonomy: categories, each with its definition, tier and handling, frozen and versioned by a hash."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from classifier.types import ClassifierError, Handling, Tier

SHIPPED_MODEL = Path(__file__).parent / "assets" / "tiers-e5-small"
SHIPPED_SPECIALISTS = {"en": SHIPPED_MODEL.with_name("tiers-mpnet")}  # by language; their encoders do not ship
SHIPPED_RESPONSES = SHIPPED_MODEL.with_name("responses-e5-small")
MAX_REPEATED = 100_000  # values that the aliases of a YAML file may stand for
TAXONOMY = "taxonomy.yaml"  # in the folder of a model
DEFAULT_HANDLING = {
    Tier.SAFE: Handling.ANSWER,
    Tier.CONDITIONALLY_SAFE: Handling.GROUND,
    Tier.FOCUSED_ATTENTION: Handling.BALANCE,
    Tier.UNSAFE: Handling.REFUSE,
}
_CATEGORY_KEYS = {"tier", "definition", "handling"}


@dataclass(frozen=True, slots=True)
class Category:
    """One class of queries."""

    id: str
    tier: Tier
    definition: str
    handling: Handling


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """An ordered set of categories; the order is the order of the classifier's outputs."""

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not self.categories:
            raise ClassifierError(f"taxonomy {self.name!r} has no categories; list at least one under `categories`")
        ids = [category.id for category in self.categories]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ClassifierError(f"taxonomy {self.name!r} names {', '.join(twice)} more than once; keep one of each")

    @property
    def version(self) -> str:
        """First 12 hex digits of the SHA-256 of everything that gives an output its meaning, the order included."""
        canonical = json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def ids(self) -> tuple[str, ...]:
        """The category ids, in order."""
        return tuple(category.id for category in self.categories)

    @property
    def tier_indices(self) -> tuple[int, ...]:
        """The tier of each category as an integer, in order: shape ``(categories,)``."""
        return tuple(int(category.tier) for category in self.categories)

    def category(self, category_id: str) -> Category:
        """The category of that id.

        Raises:
            ClassifierError: the taxonomy has none.
        """
        for category in self.categories:
            if category.id == category_id:
                return category
        raise ClassifierError(
            f"category {category_id!r} is not in taxonomy {self.name!r}; it has: {', '.join(self.ids)}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The form that `from_dict` reads."""
        return {
            "name": self.name,
            "categories": {
                c.id: {"tier": c.tier.label, "definition": c.definition, "handling": c.handling.value}
                for c in self.categories
            },
        }

    def save(self, path: Path) -> None:
        """Write the taxonomy as YAML."""
        text = yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=120)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, origin: str = "taxonomy") -> Taxonomy:
        """A taxonomy from ``{name, categories: {id: {tier, definition, handling?}}}``.

        Raises:
            ClassifierError: a key, tier or handling is missing or unknown; the message names every such category.
        """
        entries = data.get("categories") if isinstance(data, Mapping) else None
        if not isinstance(entries, Mapping):
            raise ClassifierError(f"{origin}: `categories` must map category ids to {{tier, definition, handling}}")
        unknown = sorted(map(str, set(data) - {"name", "categories"}))
        if unknown:
            raise ClassifierError(f"{origin}: unknown key {unknown[0]!r}; a taxonomy has `name` and `categories`")
        categories, faults = [], []
        for key, entry in entries.items():
            try:
                categories.append(_category(str(key), entry))
            except ClassifierError as exc:
                faults.append(str(exc))
        if faults:
            raise ClassifierError(f"{origin}: {'; '.join(faults)}")
        return cls(name=str(data.get("name", origin)), categories=tuple(categories))

    @classmethod
    def load(cls, path: Path) -> Taxonomy:
        """Read a taxonomy from a YAML file.

        Raises:
            ClassifierError: the file is missing, is no YAML, or holds no taxonomy.
        """
        try:
            data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
        except FileNotFoundError as exc:
            raise ClassifierError(f"taxonomy file {path} does not exist; give the path of a YAML taxonomy") from exc
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as exc:
            raise ClassifierError(f"taxonomy file {path} is not readable YAML: {exc}") from exc
        return cls.from_dict(data, origin=str(path))


def tier_sums(probabilities: Sequence[float], taxonomy: Taxonomy) -> dict[Tier, float]:
    """Probability of each tier: the sum over its categories."""
    sums = dict.fromkeys(Tier, 0.0)
    for category, probability in zip(taxonomy.categories, probabilities, strict=True):
        sums[category.tier] += probability
    return sums


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that is written twice is an error; YAML itself would keep the last one and say nothing.

    So are aliases of aliases that, written out, come to more than `MAX_REPEATED` values.
    """

    def get_single_node(self) -> yaml.Node | None:
        """The document before it becomes values.

        Raises:
            yaml.composer.ComposerError: its aliases stand for too much, or a key stands twice.
        """
        node: yaml.Node | None = super().get_single_node()
        sizes: dict[yaml.Node, int] = {}
        if node is not None and _size(node, sizes) > len(sizes) + MAX_REPEATED:
            raise yaml.composer.ComposerError(
                None, None, f"its aliases (*) stand for more than {MAX_REPEATED:,} values; write out what is meant"
            )
        for mapping in sizes:
            if isinstance(mapping, yaml.MappingNode):
                _check_keys(mapping)
        return node


def _check_keys(mapping: yaml.MappingNode) -> None:
    """Before anything is merged into it (`<<`), which may repeat its keys."""
    seen = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.composer.ComposerError(None, None, f"{key.value!r} is named more than once", key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node comes to with its aliases written out; `sizes` are those of the nodes below it too."""
    if node not in sizes:
        sizes[node] = 0  # for one that holds itself
        inner = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_size(each, sizes) for each in inner))
    return sizes[node]


def _category(category_id: str, entry: Any) -> Category:  # noqa: ANN401 - parsed YAML
    where = f"category {category_id!r}"
    if not isinstance(entry, Mapping) or not {"tier", "definition"} <= set(entry):
        raise ClassifierError(f"{where} needs `tier` and `definition`")
    unknown = sorted(map(str, set(entry) - _CATEGORY_KEYS))
    if unknown:
        raise ClassifierError(
            f"{where} has the unknown key {unknown[0]!r}; it may have {sorted(_CATEGORY_KEYS)}, and no category has "
            "parents or other names: a taxonomy is flat"
        )
    if not isinstance(entry["definition"], str):
        raise ClassifierError(f"{where}: the definition is no text; write a sentence that says what belongs there")
    try:
        tier = Tier.parse(str(entry["tier"]))
        handling = Handling(entry.get("handling", DEFAULT_HANDLING[tier]))
    except ClassifierError as exc:
        raise ClassifierError(f"{where}: {exc}") from exc
    except ValueError as exc:
        known = ", ".join(handling.value for handling in Handling)
        raise ClassifierError(f"{where}: handling {entry['handling']!r} is unknown; known: {known}") from exc
    return Category(id=category_id, tier=tier, definition=entry["definition"], handling=handling)
