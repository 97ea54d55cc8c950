"""What is said about a document: read from YAML, merged with a sidecar, its dates and levels checked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import yaml

from rag.types import KnowledgeError, Unreadable

SIDECAR = ".meta.yaml"
ASKS = "asks"  # questions that the document answers; searched by their vectors, not asked for by `pairs`
MAX_ASKS = 64
ASK_CHARACTERS = 500
MAX_REPEATED = 10_000  # values that aliases may stand for
DATES = ("published", "retrieved", "expires")
_SINGLE = ("title", "url", "publisher", "licence", "trust", *DATES)  # `stance` and others may be lists
_KNOWN = frozenset({*_SINGLE, ASKS, "stance", "positions", "protects"})

Metadata = dict[str, str | list[str]]


class Trust(StrEnum):
    """How far a document's publisher is trusted: the metadata entry `trust`."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The entries of a YAML mapping; null for a key that has no value. The known ones are in lower case.

    Raises:
        Unreadable: it is no YAML, something else than a mapping, names an entry twice, or has aliases of aliases that
            stand for too much; `where` is named.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        names = [_name(key.value) for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        sizes: dict[yaml.Node, int] = {}
        if node is not None and _size(node, sizes) > len(sizes) + MAX_REPEATED:
            raise Unreadable(
                f"{where} has aliases (*) that stand for more than {MAX_REPEATED:,} values; write out what is meant"
            )
        data = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date that does not exist
        raise Unreadable(f"{where} is not YAML: {exc}") from exc
    finally:
        loader.dispose()
    if not isinstance(data, dict | None):
        raise Unreadable(f"{where} is {type(data).__name__}, not `key: value` lines")
    if twice := [name for name in names if names.count(name) > 1]:
        raise Unreadable(f"{where} names `{twice[0]}` twice; give each a name of its own")
    return {_name(str(key)): value for key, value in (data or {}).items()}


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node comes to with its aliases written out; `sizes` are those of the nodes below it too."""
    if node not in sizes:
        sizes[node] = 0  # for one that holds itself
        inner = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_size(each, sizes) for each in inner))
    return sizes[node]


def _name(key: str) -> str:
    lower = key.strip().lower()
    return lower if lower in _KNOWN else key


def merge(own: Mapping[str, Any], sidecar: Mapping[str, Any]) -> Metadata:
    """A file's own entries under those of its sidecar, as texts and flat lists of texts, checked.

    A null in the sidecar takes the file's own entry away.

    Raises:
        Unreadable: an entry is nested, a list where one text belongs, no ISO 8601 date, no known level of trust, or
            beyond the limits of `asks`.
    """
    metadata = dict(_entries({**own, **sidecar}))
    if isinstance(text := metadata.get(ASKS), str):  # a cell, or a block of YAML: one on each line
        metadata[ASKS] = [line.strip() for line in text.splitlines() if line.strip()]
    asks(metadata)
    for key in _SINGLE:
        if isinstance(metadata.get(key), list):
            raise Unreadable(f"metadata `{key}` is a list; give one text")
    for key in DATES:
        if value := metadata.get(key):
            metadata[key] = _date(key, str(value))
    trust = metadata.get("trust")
    if trust is not None and trust not in set(Trust):
        raise Unreadable(f"metadata `trust` is {trust!r}; give one of {', '.join(Trust)}")
    return metadata


def asks(metadata: Mapping[str, str | list[str]]) -> list[str]:
    """The questions that a document says it answers.

    Raises:
        Unreadable: there are more than `MAX_ASKS`, or one is empty or longer than `ASK_CHARACTERS`.
    """
    found = metadata.get(ASKS, [])
    texts = [found] if isinstance(found, str) else found
    if len(texts) > MAX_ASKS:
        raise Unreadable(f"metadata `{ASKS}` has {len(texts)} texts; give at most {MAX_ASKS}")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise Unreadable(f"metadata `{ASKS}`: text {number} is empty; write some, or take it out")
        if len(text) > ASK_CHARACTERS:
            raise Unreadable(
                f"metadata `{ASKS}`: text {number} has {len(text)} characters; give at most {ASK_CHARACTERS}"
            )
    return texts


def expiry(metadata: Mapping[str, str | list[str]]) -> float | None:
    """When a document expires, in seconds since 1970; None if it never does.

    A date without a time is the last day; a time without a zone is UTC. 9999-12-31 is never.

    Raises:
        KnowledgeError: `expires` is no ISO 8601 date.
    """
    text = str(metadata.get("expires") or "")
    if not text:
        return None
    try:
        ends = datetime.fromisoformat(text)
    except ValueError as exc:
        raise KnowledgeError(f"metadata `expires` is {text!r}, not an ISO 8601 date; write it like 2026-01-31") from exc
    if len(text) <= len("2026-01-31"):
        if ends.date() == date.max:  # often written for never
            return None
        ends += timedelta(days=1)
    return (ends if ends.tzinfo else ends.replace(tzinfo=UTC)).timestamp()


def pairs(metadata: Mapping[str, str | list[str]]) -> list[tuple[str, str]]:
    """What a search can ask for, as pairs of entry and value, sorted; a list gives a pair for each of its values.

    `ASKS` are none of it.
    """
    return sorted(
        {
            (key, value)
            for key, values in metadata.items()
            if key != ASKS
            for value in ([values] if isinstance(values, str) else values)
        }
    )


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[str, str | list[str]]]:
    for key, value in data.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) for item in values):
            raise Unreadable(f"metadata `{key}` is nested; give a text or a flat list of texts")
        try:
            texts = [str(item) for item in values if item is not None]
        except ValueError as exc:  # of thousands of digits
            raise Unreadable(f"metadata `{key}` is too long a number; write it in quotes") from exc
        if isinstance(value, list):
            yield key, texts
        elif texts:
            yield key, texts[0]


def _date(key: str, text: str) -> str:
    """A date or a date with a time, in the extended format of ISO 8601."""
    for kind in (date, datetime):
        try:
            return kind.fromisoformat(text.strip()).isoformat()
        except ValueError:
            continue
    raise Unreadable(f"metadata `{key}` is {text!r}, not an ISO 8601 date; write it like 2026-01-31")
