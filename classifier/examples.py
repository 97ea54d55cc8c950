"""Labelled examples that a text can be held against: which of them the classifier takes to be most like it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from classifier.taxonomy import Taxonomy
from classifier.types import ClassifierError, Tier, Verdict
from classifier.weights import file_sha256

TEXTS, ODDS = "examples.jsonl", "examples.safetensors"  # in a model's folder
Odds = NDArray[np.float32]
_LEAST = 1e-7


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text, and how like it is to the one that was asked about.

    Attributes:
        id: of the row, by the hash of its text.
        text: as labelled.
        category: its label.
        tier: of that category.
        similarity: cosine between what the classifier says of both, as log-odds of all categories; -1 to 1.
    """

    id: str
    text: str
    category: str
    tier: Tier
    similarity: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row of the examples."""

    id: str
    text: str
    category: str


class Examples:
    """Labelled rows with what the classifier says of each.

    Two texts are alike where all categories are as likely for both: what every runtime can tell, and what the verdict
    rests on.

    Args:
        rows: the rows.
        odds: log-odds of the categories of each (`log_odds`), shape ``(rows, categories)``.
        taxonomy: of the classifier.
        adapter: SHA-256 of the adapter that spoke.
    """

    def __init__(self, rows: Sequence[Labelled], odds: Odds, taxonomy: Taxonomy, adapter: str) -> None:
        self._rows = list(rows)
        self._odds = np.asarray(odds, np.float32)
        self._taxonomy = taxonomy
        self._adapter = adapter
        self._centre = self._odds.mean(0)
        self._directions = _unit(self._odds - self._centre)

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, verdict: Verdict, count: int) -> list[Example]:
        """The rows most like a text with that verdict, the likest first."""
        odds = log_odds([verdict.categories[name] for name in self._taxonomy.ids])
        found = self._directions @ _unit(odds - self._centre)
        return [
            Example(row.id, row.text, row.category, self._taxonomy.category(row.category).tier, float(found[at]))
            for at in np.argsort(-found, kind="stable")[:count]
            for row in (self._rows[at],)
        ]

    def save(self, folder: Path) -> None:
        """Write both files."""
        lines = [
            json.dumps({"id": r.id, "text": r.text, "category": r.category}, ensure_ascii=False) for r in self._rows
        ]
        (folder / TEXTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        save_file({"odds": self._odds.astype(np.float16)}, folder / ODDS, metadata={"adapter": self._adapter})
        (folder / ODDS).chmod(0o644)  # safetensors writes for the owner only

    @classmethod
    def load(cls, folder: Path, taxonomy: Taxonomy) -> Examples | None:
        """Those of a model's folder; None where it has none.

        Raises:
            ClassifierError: they are damaged, or of another adapter or taxonomy.
        """
        if not (folder / ODDS).exists():
            return None
        again = "write them again with `airlock model examples`"
        try:
            with safe_open(folder / ODDS, framework="np") as file:
                made_by = (file.metadata() or {}).get("adapter")
                odds = file.get_tensor("odds").astype(np.float32)
            rows, adapter = list(_read(folder / TEXTS)), adapter_of(folder)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as exc:
            raise ClassifierError(
                f"the examples of {folder} are damaged ({type(exc).__name__}: {exc}); {again}"
            ) from exc
        if made_by != adapter:
            raise ClassifierError(f"the examples of {folder} are of another adapter; {again}")
        if len(rows) != len(odds) or not rows or not np.isfinite(odds).all():
            raise ClassifierError(
                f"the examples of {folder}: {len(rows)} rows and {len(odds)} lines of figures; {again}"
            )
        strange = {row.category for row in rows} - set(taxonomy.ids)
        if strange:
            raise ClassifierError(
                f"the examples of {folder}: category {min(strange)!r} is not in the taxonomy; {again}"
            )
        return cls(rows, odds, taxonomy, adapter)


def adapter_of(folder: Path) -> str:
    """SHA-256 of the adapter in a model's folder."""
    return file_sha256(folder / "adapter_model.safetensors")


def _read(path: Path) -> Iterator[Labelled]:
    for line in path.read_text(encoding="utf-8").strip("\n").split("\n"):
        entry = json.loads(line)
        yield Labelled(str(entry["id"]), str(entry["text"]), str(entry["category"]))


def log_odds(probabilities: ArrayLike) -> Odds:
    """Logarithms of probabilities, their mean taken away: the logits, but for what softmax loses."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float32), _LEAST))
    found: Odds = logs - logs.mean(-1, keepdims=True)
    return found


def _unit(vectors: Odds) -> Odds:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Odds = vectors / np.maximum(length, 1e-9)
    return found
