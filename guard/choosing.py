"""Which classifier judges a text: one by default, others chosen by where the request comes from and by the language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from classifier.taxonomy import SHIPPED_SPECIALISTS, Category, Taxonomy
from guard.fields import SHIPPED, Count, Seconds, Section, Words
from guard.language import TOLD
from guard.policy import Rule
from guard.rules import Endpoints
from guard.types import Classifier, Origin, Route


class Concerns(Section):
    """Where the requests come from that a classifier judges; every condition given must hold."""

    tenant: Words = Field((), description="Who sends it, or a pattern such as team-*; one or several.")
    model: Words = Field((), description="The model asked for, or a pattern such as gpt-4*; one or several.")
    endpoint: Endpoints = Field((), description="The wire that the request speaks; one or several.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.tenant or self.model or self.endpoint):
            raise ValueError("need a tenant, a model or an endpoint; what judges all requests is `classifier.model`")
        return self

    def rule(self) -> Rule:
        """A rule that concerns the same requests."""
        tenants, models, endpoints = map(frozenset, (self.tenant, self.model, self.endpoint))
        return Rule("classifiers", Route.REFUSE, tenants=tenants, models=models, endpoints=endpoints)


class OtherClassifier(Section):
    """A model that judges some requests in the place of `classifier.model`."""

    model: Path = Field(description="Model folder, or `shipped`; one on the same encoder shares its weights in memory.")
    encoder: str | None = Field(
        None, description="Folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    when: Concerns = Field(description="The requests that it judges.")


class Specialist(Section):
    """A model that judges texts of one language in the place of `classifier.model`."""

    model: Path = Field(
        SHIPPED, description="Model folder with the taxonomy of `classifier.model`, or `shipped`, which there is of en."
    )
    encoder: str | None = Field(
        None, description="Folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    asked_from: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05,
        description="Risk (1 less the probability of Safe) that `classifier.model` must find in a text for this model "
        "to be asked; 0 asks it of every text.",
    )
    required: bool = Field(
        True, description="False leaves it out, with a line in the log, where its encoder has not been fetched."
    )


def _shipped_specialists(classifier: dict[str, Any]) -> dict[str, Specialist]:
    if classifier.get("kind") == "none" or classifier.get("model") is not None:  # which may have another taxonomy
        return {}
    return {language: Specialist(required=False) for language in SHIPPED_SPECIALISTS}


class ClassifierSection(Section):
    """The input door."""

    kind: Literal["model", "none"] = Field(
        "model",
        description="`none` judges nothing: every text is Unsafe, `unjudged`, until a rule routes that category.",
    )
    model: Path | None = Field(None, description="Model folder; the one that is `shipped` by default.")
    encoder: str | None = Field(
        None, description="Folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    languages: dict[str, Specialist] = Field(
        default_factory=_shipped_specialists,
        description="Models for texts that are wholly in one language, by language (ISO 639-1). By default, beside the "
        "shipped model, the shipped ones whose encoder `airlock model fetch` brought; {} for none.",
    )
    runtime: Literal["auto", "torch", "onnx", "openvino"] = Field(
        "auto", description="Runs the model; `auto`: the fastest that `airlock export` made and verified, else torch."
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto", description="Of an exported runtime; bf16 is OpenVINO's, on processors that multiply in it."
    )
    exports: Path | None = Field(
        None, description="Folder with what `airlock export` made; airlock/runtimes in the user's cache by default."
    )
    threads: Count = 1
    workers: Count = Field(1, description="Requests judged at once; each uses `threads` cores.")
    deadline_s: Seconds = 20.0
    max_tokens: Count = Field(
        8_192, description="Tokens of one request that are judged, known turns aside; more are refused with HTTP 400."
    )
    explain_tokens: Annotated[int, Field(ge=0)] = Field(
        8_192, description="Tokens read to explain one verdict, for who asks why; 0 explains nothing."
    )
    cache: Annotated[int, Field(ge=0)] = Field(4096, description="Verdicts kept by hash of the text; 0 keeps none.")

    @field_validator("model")
    @classmethod
    def _default(cls, model: Path | None) -> Path | None:
        return None if model == SHIPPED else model

    @field_validator("languages")
    @classmethod
    def _can_be_told(cls, languages: dict[str, Specialist]) -> dict[str, Specialist]:
        for language, specialist in languages.items():
            if language not in TOLD:
                raise ValueError(f"{language!r} is no language that can be told; known: {', '.join(sorted(TOLD))}")
            if specialist.model == SHIPPED and language not in SHIPPED_SPECIALISTS:
                raise ValueError(
                    f"no model of {language!r} ships, only of {', '.join(SHIPPED_SPECIALISTS)}; name under "
                    f"{language}.model a folder that `airlock train classifier` wrote"
                )
        return languages


@dataclass(frozen=True, slots=True)
class Choice:
    """A classifier and the requests that it judges.

    Attributes:
        when: concerns these requests.
        classifier: judges them.
        taxonomy: what its verdicts mean.
    """

    when: Rule
    classifier: Classifier
    taxonomy: Taxonomy


@dataclass(frozen=True, slots=True)
class Taxonomies:
    """The categories of several taxonomies: what a policy may speak of."""

    of: tuple[Taxonomy, ...]

    @property
    def categories(self) -> tuple[Category, ...]:
        """All of them; two that share an id may differ in tier and handling."""
        return tuple(category for taxonomy in self.of for category in taxonomy.categories)

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids, each once."""
        return tuple(dict.fromkeys(category.id for category in self.categories))


def first_of(choices: Sequence[Rule], origin: Origin) -> int | None:
    """The place of the first choice that concerns a request; None where `classifier` judges it."""
    return next((place for place, when in enumerate(choices) if when.concerns(origin)), None)
