"""The settings under `answers`: texts by kind, category and language, help lines by country; checked when read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from guard.fields import Section

LineKind = Literal["emergency", "crisis", "child", "abuse", "poison"]
LINE_KINDS: tuple[LineKind, ...] = get_args(LineKind)
CLAIM = "claim"  # what a question takes for granted, in a `premise` text
TITLE = "title"  # of the document that is quoted, in a `related` text
PLACEHOLDERS = (*LINE_KINDS, "help_lines")
FALLBACK = "en"  # the language that has every text

_PART = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_LANGUAGE = re.compile(r"[a-z]{2}")
_TWO_LETTERS = "need two letters (ISO 639-1) such as en, de or zh"


def fill(template: str, values: Mapping[str, str]) -> str:
    """A text with its placeholders filled in, once: what is filled in is not read again. ``{{`` stands for a brace."""
    return _PART.sub(lambda part: {"{{": "{", "}}": "}"}.get(part[0]) or values[part[0][1:-1]], template)


def _language(value: object) -> object:
    if isinstance(value, str) and not _LANGUAGE.fullmatch(value):
        raise ValueError(_TWO_LETTERS)
    return value


def _shape(value: object) -> object:
    texts = value.items() if isinstance(value, dict) else [("", value)]
    for language, text in texts:
        if not isinstance(text, str):
            raise ValueError("need a text, or one for each language, such as {en: Hello, de: Hallo}")
        if language and not (isinstance(language, str) and _LANGUAGE.fullmatch(language)):
            raise ValueError(f"{language!r} is no language; {_TWO_LETTERS}")
    if value == {}:
        raise ValueError("need a text for at least one language")
    return value


def _texts(value: str | dict[str, str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value.values())


def _with_placeholders(*names: str) -> AfterValidator:
    def check(value: str | dict[str, str]) -> str | dict[str, str]:
        for text in _texts(value):
            for part in _PART.findall(text):
                if part not in ("{{", "}}") and part[1:-1] not in names:
                    known = ", ".join(f"{{{name}}}" for name in names)
                    raise ValueError(f"unknown placeholder {part!r}; known are {known}; write {{{{ or }}}} for a brace")
        return value

    return AfterValidator(check)


def _says_something(value: str | dict[str, str]) -> str | dict[str, str]:
    if not all(text.strip() for text in _texts(value)):
        raise ValueError("the text is empty; leave the setting out to keep the shipped text")
    return value


Wording = Annotated[str | dict[str, str], BeforeValidator(_shape), _with_placeholders(*PLACEHOLDERS)]
"""A text for every language, or texts by language; with placeholders for help lines."""
Naming = Annotated[str | dict[str, str], BeforeValidator(_shape), _with_placeholders(*PLACEHOLDERS, CLAIM)]
"""The same, also with one for what the question takes for granted."""
Titled = Annotated[str | dict[str, str], BeforeValidator(_shape), _with_placeholders(*PLACEHOLDERS, TITLE)]
"""The same, with one for a document's title in its place."""
Said = Annotated[Wording, AfterValidator(_says_something)]
"""The same; must say something."""


class Texts(Section):
    """What Airlock says in its own words; see `guard/assets/answers/en.yaml`."""

    refuse: Said | None = None
    hand_over: Said | None = None
    abstain: Said | None = None
    stopped: Said | None = None
    unavailable: Said | None = Field(None, description="A part failed; said to a person in distress, after `comfort`.")
    comfort: Wording | None = Field(None, description="Said first to a person in distress; empty says nothing.")
    premise: Naming | None = Field(
        None, description="Before an answer that begins by contradicting what the question takes for granted."
    )
    related: Titled | None = Field(
        None, description="Before quotes that are on the topic and no sure answer; empty says nothing."
    )
    opening: Wording | None = Field(None, description="Before an answer of several positions; empty says nothing.")
    condition: Wording | None = Field(None, description="After a grounded answer; empty says nothing.")
    protective: Wording | None = Field(
        None, description="Between a refusal and the quotes of a protective document; empty says nothing."
    )


Kind = Literal[
    "refuse",
    "hand_over",
    "abstain",
    "stopped",
    "unavailable",
    "comfort",
    "premise",
    "related",
    "opening",
    "condition",
    "protective",
]

_Plain = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Line(Section):
    """A help line.

    Attributes:
        name: who answers; may be left out.
        contact: number or address.
        source: who publishes it; not said.
    """

    name: str = ""
    contact: _Plain
    source: str = ""

    @property
    def said(self) -> str:
        """As it stands in a text."""
        return f"{self.name} {self.contact}".strip()


def _line(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    if isinstance(value, str):
        return {"contact": value}
    if not isinstance(value, (dict, Line)):
        raise ValueError('need a number in quotes, or {name: …, contact: "…"}')
    return value


Lines = Annotated[
    tuple[Annotated[Line, BeforeValidator(_line, json_schema_input_type=str | Line)], ...], Field(min_length=1)
]
HelpLines = dict[LineKind, Lines]
"""The help lines of one country, by kind."""


def _country(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", value):
        raise ValueError("need the two capital letters of ISO 3166-1, such as GB, DE or IN")
    return value


Country = Annotated[str, AfterValidator(_country)]


class Answers(Section):
    """What Airlock says in its own words: the asker's language, help lines, and texts that replace the shipped ones."""

    language: Annotated[str, BeforeValidator(_language)] = Field(
        FALLBACK, pattern="^[a-z]{2}$", description="Of those whose own is not known, mixed or without a text."
    )
    country: Country | None = Field(None, description="Whose help lines are named (ISO 3166-1), such as GB.")
    help_lines: dict[Country, HelpLines] = Field(
        default_factory=dict, description="Lines by country and kind, in place of the shipped ones of that kind."
    )
    default: Texts = Texts()
    categories: dict[str, Texts] = Field(default_factory=dict)


class Phrases(Section):
    """What stands in a language where no help line of a country is known."""

    separator: str
    emergency: _Plain
    crisis: _Plain
    child: _Plain
    abuse: _Plain
    poison: _Plain
    labels: dict[LineKind, _Plain]


class Shipped(Section):
    """One file of `guard/assets/answers`: a language."""

    phrases: Phrases
    default: Texts
    categories: dict[str, Texts]
    rules: dict[str, Said] = Field(description="Texts of the default policy's rules, by name.")
