"""What the sections of the configuration are made of: their base, and what several of them use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from guard.errors import ConfigError


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)
SHIPPED = Path("shipped")  # in the place of a folder: the model in the package
NO_ENCODER = "none"  # in the place of an encoder's name
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
PASSWORD = re.compile(
    r"(?<=://)[^:/?#@\s]*:\S*(?=@)"  # up to the last @: a password may hold one, unescaped
    r"|(?<=http://)\S*(?=@)|(?<=https://)\S*(?=@)"
    r"|(?<=^['\"])[^:/?#@\s]+:(?!//)\S*(?=@)"  # of an address without its scheme, quoted
    r"|(?<=[?&])[^=&\s]*(?:pass(?!file)|pwd|secret)[^&\s]*",
    re.IGNORECASE,
)
"""Credentials in an address."""
OpenAICategory = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]


def _http(url: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", url):
        raise ValueError("need an http:// or https:// address such as http://127.0.0.1:8000/v1")
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "a user or a password has no place in a configuration; a key comes from the variable of api_key_env, for "
            "a collector of traces from OTEL_EXPORTER_OTLP_HEADERS"
        )
    return url.rstrip("/")


def _variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("need the name of an environment variable, not what it holds; null for none")
    return name


def _as_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def named_apart(what: str) -> Callable[[tuple[N, ...]], tuple[N, ...]]:
    """A check that no two sections have one name; `what` they are, in the plural, for the error."""

    def check(sections: tuple[N, ...]) -> tuple[N, ...]:
        names = [section.name for section in sections]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two {what} are named {twice[0]!r}; give each its own name")
        return sections

    return check


def one_or_many(item: Any) -> BeforeValidator:  # noqa: ANN401 - a type or an annotation
    """Takes one item for a tuple of it; the JSON Schema says so too, for editors."""
    return BeforeValidator(_as_many, json_schema_input_type=item | tuple[item, ...])


Word = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Word, ...], one_or_many(Word)]
Address = Annotated[str, AfterValidator(_http)]
Variable = Annotated[str, AfterValidator(_variable)]
"""Name of an environment variable."""


class Section(BaseModel):
    """One section: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def api_key(variable: str, setting: str, *, without: str = "or remove the setting to send no key") -> str:
    """The key that an environment variable holds; never part of a message.

    Args:
        variable: its name.
        setting: the one that names it, for the error.
        without: what to do where there is no key, for the error.

    Raises:
        ConfigError: it is not set, or no header can carry it.
    """
    key = os.environ.get(variable, "")
    if re.fullmatch(r"[\x21-\x7e]+", key):
        return key
    fault = (
        "holds white space or other characters that no key has; export it without" if key else "is not set; export it"
    )
    raise ConfigError(f"{setting} = {variable!r}: this environment variable {fault}, {without}")
