"""What to label next: prompts of the journal that would teach a classifier most, no two of them alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.settings import OperatingPoint
from classifier.types import ClassifierError, Tier
from guard.journal.prompts import READABLE
from guard.journal.records import Record

_NEAR = 0.1  # of a threshold
_UNSURE = 0.5  # of the entropy that four tiers can have
_UNKNOWN = "und"  # ISO 639-2: undetermined; a row without `lang` would be English to training
_LOOKED_AT = 10  # candidates for each row that is wanted, among which unlike ones are chosen


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt that might be labelled.

    Attributes:
        decision: id of its decision.
        text: the prompt as it was kept.
        language: that it was taken for; `und` for none.
        tier: said of it.
        category: said of it.
        tiers: probability of each tier.
        windows: that the text took.
        model: that judged, with its version.
        score: how much a label would teach, 0 to 2.
        reasons: why.
    """

    decision: str
    text: str
    language: str
    tier: Tier
    category: str
    tiers: Mapping[Tier, float]
    windows: int = 1
    model: str = ""
    score: float = 0.0
    reasons: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """A row for training, once a person has put a category into it; until then no training takes it."""
        return {
            "text": self.text,
            "category": None,
            "split": "train",
            "source": "journal",
            "lang": self.language,
            "decision": self.decision,
            "said": {
                "model": self.model,
                "tier": self.tier.label,
                "category": self.category,
                "tiers": {tier.label: round(value, 4) for tier, value in self.tiers.items()},
            },
            "score": round(self.score, 4),
            "reasons": list(self.reasons),
        }


def candidates(records: Iterable[Record]) -> list[Candidate]:
    """The prompts that records kept in readable form; of one that was sent again, the last time."""
    found: dict[str, Candidate] = {}
    for record in records:
        said = record.content
        text = said.get("prompt")
        if said.get("prompts") not in READABLE or not isinstance(text, str) or not text.strip():
            continue
        if said.get("judged") != "last_turn":  # the verdict is on another text
            continue
        try:
            tiers = {tier: float(said["tiers"][tier.label]) for tier in Tier}
            candidate = Candidate(
                str(record.decision), text, str(said.get("language") or _UNKNOWN), Tier.parse(said["tier"]),
                str(said["category"]), tiers, int(said.get("windows") or 1), str(said.get("model") or ""),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, ClassifierError):
            continue
        key = " ".join(text.split())
        found.pop(key, None)  # so that it stands where the last one did
        found[key] = candidate
    return list(found.values())


def scored(
    found: Sequence[Candidate],
    point: OperatingPoint,
    others: Sequence[Tier] | None = None,
    points: Mapping[str, OperatingPoint] | None = None,
) -> list[Candidate]:
    """Candidates with what a label would teach: how unsure the classifier is, how near a threshold, who disagrees.

    Args:
        found: the candidates.
        point: the thresholds of the default.
        others: what a second model says of each.
        points: by name, those of other models, which decided what these judged.
    """
    said: Sequence[Tier | None] = others if others is not None else [None] * len(found)
    own = points or {}
    return [
        _scored(each, own.get(each.model.partition("@")[0], point), other)
        for each, other in zip(found, said, strict=True)
    ]


def chosen(
    found: Sequence[Candidate], count: int, embed: Callable[[Sequence[str]], NDArray[np.float32]], floor: float = 0.0
) -> list[Candidate]:
    """The candidates with the best scores, of which each is unlike those before it.

    Args:
        found: with scores.
        count: how many.
        embed: texts as vectors of length 1; asked for ten times as many as are wanted, at most.
        floor: cosine of two texts that have nothing in common.
    """
    best = sorted(found, key=lambda each: -each.score)[: _LOOKED_AT * count]
    if not best:
        return []
    vectors = embed([each.text for each in best])
    scores = np.array([each.score for each in best])
    nearest = np.zeros(len(best))  # similarity to the likest that is chosen
    picked: list[int] = []
    for _ in range(min(count, len(best))):
        worth = scores * (1 - nearest)
        worth[picked] = -1.0
        at = int(worth.argmax())
        picked.append(at)
        nearest = np.maximum(nearest, np.clip((vectors @ vectors[at] - floor) / (1 - floor), 0.0, 1.0))
    return [best[at] for at in picked]


def _scored(candidate: Candidate, point: OperatingPoint, other: Tier | None) -> Candidate:
    tiers = candidate.tiers
    if candidate.windows > 1 and point.several:
        point = point.several
    entropy = -sum(value * math.log(value) for value in tiers.values() if value > 0) / math.log(len(Tier))
    near = {
        "unsafe": abs(tiers[Tier.UNSAFE] - point.unsafe),
        "risk": abs(1 - tiers[Tier.SAFE] - point.risk),
    }
    closest = min(near, key=lambda name: near[name])
    disputed = [] if other is None or other is candidate.tier else [f"another model says {other.label}"]
    reasons = [
        *disputed,
        *([f"near the threshold of {closest}"] if near[closest] <= _NEAR else []),
        *(["unsure"] if entropy >= _UNSURE else []),
    ]
    score = (entropy + 1 - min(1.0, near[closest])) / 2 + len(disputed)
    return replace(candidate, score=score, reasons=tuple(reasons))
