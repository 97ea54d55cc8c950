"""YAML files as frozen sections: read, validated, and every mistake explained with its place and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from classifier.taxonomy import UniqueKeyLoader
from guard.errors import ConfigError
from guard.fields import PASSWORD, Section
from guard.needs import what_is_needed

MALFORMED = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError)
"""What PyYAML raises beside its own: on a date such as 2001-13-45, a value that is not of its tag, or deep nesting."""
S = TypeVar("S", bound=Section)
_CONSEQUENCES = ("too_short", "default_factory_not_called")


def read_yaml(path: Path, what: str, holds: str) -> dict[str, Any]:
    """The mapping in a YAML file in which no key stands twice; empty for an empty file.

    Args:
        path: the file.
        what: it is, for messages.
        holds: what it should hold, likewise.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{what} {path} cannot be read: {exc}") from exc
    except (yaml.YAMLError, *MALFORMED) as exc:
        raise ConfigError(f"{what} {path} is no YAML: {_said(exc)}") from exc
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{what} {path} must hold {holds}, not a {type(data).__name__}")
    return data


def _said(exc: Exception) -> str:
    """What is wrong and where, without the lines around it, which may hold a password."""
    if not isinstance(exc, yaml.MarkedYAMLError):
        return " ".join(str(exc).split())
    where = [
        f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        for mark in (exc.context_mark, exc.problem_mark)
    ]
    said = [f"{text}{place}" for text, place in zip((exc.context, exc.problem), where, strict=True) if text]
    return "; ".join(said)


def validated(section: type[S], data: Mapping[str, Any], path: Path | None) -> S:
    """The section that the data of a file describe.

    Raises:
        ConfigError: a setting is unknown or wrong; the message names it, and the nearest known one.
    """
    try:
        return section.model_validate(data)
    except ValidationError as exc:
        errors = exc.errors()
        # A bad item shortens its list; a bad setting keeps a default from being made of it.
        inner = [error for error in errors if error["type"] not in _CONSEQUENCES] or errors
        raise ConfigError("; ".join(_explain(error, path, section) for error in inner[:5])) from exc


def _explain(error: ErrorDetails, path: Path | None, root: type[BaseModel]) -> str:
    location, known = _place(error["loc"], root)
    origin = f"{path}: " if path else ""
    if error["type"] == "extra_forbidden":
        *parents, key = location
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {'.'.join([*parents, near[0]])!r}?" if near else f"known here: {', '.join(known)}"
        return f"{origin}unknown setting {'.'.join(location)!r}; {hint}"
    where = ".".join(location) or "the file"
    if error["type"].startswith("union_tag"):
        kind = error["input"].get("kind") if isinstance(error["input"], Mapping) else None
        found = f" = {kind!r}: is none of them;" if kind is not None else ": is missing;"
        return f"{origin}{where}.kind{found} need one of {', '.join(_kinds(error['loc'], root))}"
    value = error["input"]
    hidden = isinstance(value, (dict, list, SecretStr)) or where.endswith("_env")  # where a key may stand by mistake
    shown = "" if hidden else f" = {PASSWORD.sub('…', repr(value))}"
    return f"{origin}{where}{shown}: {what_is_needed(error)}"


def _place(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[str], list[str]]:
    """A place as the file names it, without tags of kinds; and the settings known there."""
    names: list[str] = []
    models: list[Any] = [root]
    for part in location:
        tagged = [model for model in models if _tag(model) == part]
        if len(models) > 1 and tagged:
            models = tagged
            continue
        names.append(str(part))
        field = None if isinstance(part, int) else models[0].model_fields.get(part)
        if field is not None:  # else the key of a mapping, or a number in a list
            models = list(_models(field.annotation)) or models
    return names, list(models[0].model_fields)


def _kinds(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    field = root.model_fields[str(location[0])]
    return [str(_tag(model)) for model in _models(field.annotation)]


def _tag(model: type[BaseModel]) -> object:
    """The kind that a section is, where several kinds can stand."""
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)
