"""What the record of a decision holds beyond what clients are told: enough to decide anew without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.types import Decision, Judgement, TextKind

_TEXTS = 50  # verdicts that a record keeps; a long conversation has more, and nearly all of them say Safe
_DIGITS = 9


def decision_content(decision: Decision) -> dict[str, Any]:
    """The payload of a decision's record, without the prompt."""
    kept = _weightiest(decision.judgements)
    return decision.as_dict() | {
        "created": decision.created,
        "ruled": decision.ruled.value if decision.ruled else None,
        "protect": decision.protect,
        "cited": list(decision.cited),
        "texts": [_judgement_dict(each) for each in kept],
        "texts_left_out": len(decision.judgements) - len(kept),
    }


def judgements(content: Mapping[str, Any]) -> list[Judgement]:
    """The verdicts that a decision's record keeps; none where it was written before records kept them.

    Raises:
        KeyError, TypeError, ValueError: they are damaged, or of a newer Airlock.
        ClassifierError: a tier is unknown.
    """
    return [
        Judgement(
            TextKind(each["text"]),
            Verdict(
                tier=Tier.parse(each["tier"]),
                category=each["category"],
                handling=Handling(each["handling"]),
                tiers=dict(zip(Tier, each["tiers"], strict=True)),
                probability=each["probability"],
                window=Span(0, 0),
                coverage=Coverage(0, 0, each["read"]),
                model="",
                sure=each.get("sure", True),
            ),
        )
        for each in content.get("texts", ())
    ]


def _judgement_dict(judgement: Judgement) -> dict[str, Any]:
    verdict = judgement.verdict
    return {
        "text": judgement.where.value,
        "tier": verdict.tier.label,
        "category": verdict.category,
        "handling": verdict.handling.value,
        "tiers": [round(verdict.tiers[tier], _DIGITS) for tier in Tier],
        "probability": round(verdict.probability, _DIGITS),
        "read": round(verdict.coverage.read, _DIGITS),
        "sure": verdict.sure,
    }


def _weightiest(judged: Sequence[Judgement]) -> list[Judgement]:
    """All, or the last turn's and those of the highest tiers, in order."""
    if len(judged) <= _TEXTS:
        return list(judged)
    last_turn = TextKind.LAST_TURN
    ranked = sorted(
        range(len(judged)), key=lambda at: (judged[at].where is not last_turn, -judged[at].verdict.tier, at)
    )
    return [judged[at] for at in sorted(ranked[:_TEXTS])]
