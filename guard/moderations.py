"""Results of `POST /v1/moderations`: OpenAI's category names where they are meant, the taxonomy's own beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from classifier.types import Verdict
from guard.errors import BadRequest
from guard.fields import OpenAICategory
from guard.types import Decision, Route
from guard.wires import CHAT
from guard.wires.openai import extras_of

OPENAI_CATEGORIES: tuple[OpenAICategory, ...] = get_args(OpenAICategory)
MAX_INPUTS = 1000
_SHIPPED = Path(__file__).parent / "assets" / "moderation.yaml"


def read_input(value: str | Sequence[str | Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The texts to judge, one for each result, and the kinds of the parts that hold no text.

    Args:
        value: a text, several texts, or the parts of one multi-modal input.

    Raises:
        BadRequest: there is no text to judge, or there are too many, or a part is malformed.
    """
    if isinstance(value, str):
        return [_some(value, "input")], []
    if not 0 < len(value) <= MAX_INPUTS:
        raise BadRequest(f"input: {len(value)} of them; send 1 to {MAX_INPUTS}", param="input")
    texts = [each for each in value if isinstance(each, str)]
    parts = [each for each in value if not isinstance(each, str)]
    if texts and parts:
        raise BadRequest("input: send either texts or parts, not both in one list", param="input")
    if texts:
        return [_some(text, f"input[{number}]") for number, text in enumerate(texts)], []
    said, others = _parts(parts)
    return ([said] if said.strip() else []), others


def results_of(
    decisions: Sequence[Decision], names: Mapping[str, Sequence[str]], *, model: str, extras: bool
) -> dict[str, Any]:
    """The body of the answer: scores are probabilities, and of an OpenAI name the sum over the categories that mean it.

    A name that no category means has score 0 and no input type, since nothing was judged by it. A category of such a
    name means it.

    Args:
        decisions: one for each input, each with a verdict.
        names: OpenAI's names by category, beside the shipped ones and in place of them.
        model: the model asked for, where no verdict names its own.
        extras: whether each result carries an `airlock` object.
    """
    meant = {**_shipped(), **names}
    results = [_result(decision, meant, extras=extras) for decision in decisions]
    spoke = next((decision.verdict.model for decision in decisions if decision.verdict), model)
    return {"id": f"modr-{decisions[0].id}", "model": spoke, "results": results}


def flagged(decision: Decision) -> bool:
    """Whether the policy lets neither the model nor the knowledge base answer."""
    return decision.route in (Route.REFUSE, Route.HAND_OVER)


def _result(decision: Decision, names: Mapping[str, Sequence[str]], *, extras: bool) -> dict[str, Any]:
    verdict = decision.verdict
    own = _scores(verdict) if verdict else {}
    found = {verdict.category, *names.get(verdict.category, ())} if verdict and flagged(decision) else set()
    meaning: dict[str, list[str]] = {
        name: [category for category in own if name in (category, *names.get(category, ()))]
        for name in OPENAI_CATEGORIES
    }
    scores = own | {name: min(1.0, sum(own[category] for category in meaning[name])) for name in meaning}
    result: dict[str, Any] = {
        "flagged": flagged(decision),
        "categories": {name: name in found for name in scores},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] if meaning.get(name, True) else [] for name in scores},
    }
    if extras:
        result["airlock"] = extras_of(decision)
    return result


def _scores(verdict: Verdict) -> dict[str, float]:
    """Probability by the taxonomy's own names."""
    return dict(verdict.categories) or {verdict.category: verdict.probability}


def _some(text: str, param: str) -> str:
    if not text.strip():
        raise BadRequest(f"{param}: there is no text to judge", param=param)
    return text


def _parts(parts: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """What the parts of one input say, read as those of a message are."""
    try:
        message = CHAT.read({"messages": [{"role": "user", "content": list(parts)}]})
    except BadRequest as exc:
        raise BadRequest(str(exc).replace("messages[0].content", "input"), param="input") from exc
    return message.turns[0].text, list(message.non_text)


@cache
def _shipped() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = yaml.safe_load(_SHIPPED.read_text(encoding="utf-8"))
    return {category: tuple(names) for category, names in table.items()}
