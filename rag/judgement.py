"""Ask a support model whether passages say what claims say, and hold its judgement against thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag.types import Gate, KnowledgeError, Status, Support, SupportModel


def judge(
    model: SupportModel, claims: Sequence[tuple[str, Sequence[str]]], gate: Gate
) -> list[tuple[Status, float, str]]:
    """What a support model says of each claim, with which probability, and of which passage.

    A claim is contradicted if one of its passages contradicts it, whatever the others say.

    Args:
        model: judges pairs of passage and claim.
        claims: each with the passages, at least one, that it may rest on.
        gate: the thresholds.

    Raises:
        KnowledgeError: the model returned rubbish.
    """
    pairs = list(dict.fromkeys((passage, claim) for claim, passages in claims for passage in passages))
    judgements = dict(zip(pairs, _sound(model.support(pairs), len(pairs)) if pairs else [], strict=True))
    found = []
    for claim, passages in claims:
        own = [judgements[passage, claim] for passage in passages]
        for_it = max(range(len(own)), key=lambda at: own[at].supported)
        against = max(range(len(own)), key=lambda at: own[at].contradicted)
        supported, contradicted = own[for_it].supported, own[against].contradicted
        if contradicted >= gate.contradicted:
            found.append((Status.CONTRADICTED, contradicted, passages[against]))
        elif supported >= gate.supported:
            found.append((Status.SUPPORTED, supported, passages[for_it]))
        else:
            found.append((Status.UNSUPPORTED, 1 - supported, passages[for_it]))
    return found


def _sound(judgements: Sequence[Support], expected: int) -> list[Support]:
    judgements = list(judgements)
    if len(judgements) != expected:
        raise KnowledgeError(f"the support model returned {len(judgements)} judgements of {expected} pairs")
    for judgement in judgements:
        parts = (judgement.supported, judgement.contradicted, judgement.not_stated)
        if min(parts) < 0 or not math.isclose(sum(parts), 1.0, abs_tol=1e-3):  # not a number is not close
            raise KnowledgeError(f"the support model returned probabilities that do not sum to 1: {parts}")
    return judgements
