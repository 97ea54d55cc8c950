"""The high-risk questions: each with what makes an answer good or harmful; read strictly, by docs/safety_score.md."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from classifier.taxonomy import Taxonomy
from classifier.types import ClassifierError, Handling, Tier
from guard.needs import what_is_needed
from training.datasets import TrainingError

Kind = Literal["contrast", "mild_harm", "false_premise", "distress", "disputed", "wrapper", "plain"]
Words = Annotated[str, Field(pattern=r"^\S(?s:.*\S)?$")]  # neither empty nor with white space at an end


def _tier(label: object) -> Tier:
    try:
        return label if isinstance(label, Tier) else Tier.parse(str(label))
    except ClassifierError as exc:
        raise ValueError(str(exc)) from exc


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Constructive(_Entry):
    """What makes an answer worth 2, each sufficient.

    Attributes:
        documents: ids, one of which is cited.
        says_any: strings, one of which is said.
        forwarded: the application's model answers.
    """

    documents: tuple[Words, ...] = ()
    says_any: tuple[Words, ...] = ()
    forwarded: bool = False


class Risky(_Entry):
    """What makes an answer worth 0, each sufficient.

    Attributes:
        documents: ids whose citation answers another question or tells too much.
        forwarded: the application's model answers.
        one_position_only: a disputed document is quoted from fewer than two positions.
    """

    documents: tuple[Words, ...] = ()
    forwarded: bool = False
    one_position_only: bool = False


class _Line(_Entry):
    id: str
    question: Annotated[str, Field(pattern=r"\S")]
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")]
    tier: Annotated[Tier, PlainValidator(_tier)]
    category: str
    kind: Kind
    constructive: Constructive
    risky: Risky
    why: Words


class HighRiskRow(_Line):
    """One question.

    Attributes:
        id: `hr-001` and so on, in the order of the file.
        question: sent as the only user message.
        language: ISO 639-1.
        tier: the category's.
        category: id in the taxonomy.
        kind: what is most telling about it.
        constructive: what is worth 2.
        risky: what is worth 0.
        why: what it is scored for, in one sentence.
        handling: the category's; it is not in the file.
    """

    handling: Handling


def read_high_risk(path: Path, taxonomy: Taxonomy) -> list[HighRiskRow]:
    """Read JSONL rows with every field of docs/safety_score.md and no other.

    Raises:
        TrainingError: the file is missing or empty, or a row breaks a rule; the message names the line and the field.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise TrainingError(f"questions {path} cannot be read: {exc}; give JSON lines as in high_risk.jsonl") from exc
    if lines == [""]:
        raise TrainingError(f"questions {path} holds no rows; give JSON lines as in high_risk.jsonl")
    rows: list[HighRiskRow] = []
    for number, text in enumerate(lines, 1):
        where = f"questions {path}, line {number}"
        line = _parse(text, where)
        fault = next(_faults(line, f"hr-{number:03}", taxonomy, rows), None)
        if fault:
            raise TrainingError(f"{where}: {fault}")
        rows.append(HighRiskRow(**dict(line), handling=taxonomy.category(line.category).handling))
    return rows


def _parse(text: str, where: str) -> _Line:
    try:
        return _Line.model_validate_json(text)
    except ValidationError as exc:
        raise TrainingError(f"{where}: {_explain(exc.errors()[0])}") from exc


def _faults(line: _Line, expected: str, taxonomy: Taxonomy, before: list[HighRiskRow]) -> Iterator[str]:
    if line.id != expected:
        yield f"id {line.id!r}: rows are numbered in order, and this one is {expected!r}"
    if line.category not in taxonomy.ids:
        yield f"category {line.category!r} is not in taxonomy {taxonomy.name!r}; it has: {', '.join(taxonomy.ids)}"
    elif taxonomy.category(line.category).tier is not line.tier:
        tier = taxonomy.category(line.category).tier.label
        yield f"tier {line.tier.label!r}: the category {line.category!r} is {tier!r}; correct one of them"
    if before and line.tier is not before[-1].tier and any(row.tier is line.tier for row in before):
        yield f"tier {line.tier.label!r}: rows of another tier stand between; keep the rows of a tier together"
    if line.constructive.forwarded == line.risky.forwarded:
        yield "forwarded: say `forwarded: true` in `constructive` or in `risky`, and in one of them only"
    if not (line.constructive.documents or line.constructive.says_any or line.constructive.forwarded):
        yield "constructive is empty: name what is worth 2, in `documents` or `says_any`"
    both = sorted({*line.constructive.documents} & {*line.risky.documents})
    if both:
        yield f"document {both[0]!r} is both constructive and risky; keep it in one of them"
    twice = next((row.id for row in before if row.question == line.question), None)
    if twice:
        yield f"question: the same as of {twice}; ask each once"


def _explain(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        *parents, key = map(str, error["loc"])
        known = list(_fields(parents))
        near = difflib.get_close_matches(key, known, n=1)
        return f"unknown field {where!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"the field {where!r} is missing"
    if not where:
        return f"not a JSON object: {what_is_needed(error)}"
    return f"{where} = {error['input']!r}: {what_is_needed(error)}"


def _fields(parents: list[str]) -> dict[str, Any]:
    models: dict[str, type[BaseModel]] = {"constructive": Constructive, "risky": Risky}
    return (models[parents[0]] if parents else _Line).model_fields
