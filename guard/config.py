"""Configuration: one YAML file, read once, frozen, unknown keys refused with the nearest known one."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from guard.admission import Access, Limits, TenantShare
from guard.choosing import ClassifierSection, OtherClassifier
from guard.connections import Server, Upstream
from guard.conversation import Conversation
from guard.errors import ConfigError
from guard.fields import NO_ENCODER, SHIPPED, OpenAICategory, Section, Word
from guard.journal.settings import JournalSection
from guard.knowledge import Grounding, Interpretation, Knowledge, Similarity
from guard.output import Output
from guard.rules import PolicySection
from guard.telemetry import Logging, Metrics, Tracing
from guard.tenants import TENANT
from guard.texts import Answers
from guard.unreachable import shadowed
from guard.yaml_file import read_yaml, validated

_NO_FOLDERS = ("package:", "fetched:")  # what the names of encoders begin with that are no folders

NO_JOURNAL: Mapping[str, Any] = {"journal.path": None, "journal.url": None}
"""Overrides for commands that decide without a record."""


class Moderation(Section):
    """What `POST /v1/moderations` calls the categories."""

    categories: dict[str, tuple[OpenAICategory, ...]] = Field(
        default_factory=dict,
        description="OpenAI's names for a category of the taxonomy, in place of the shipped ones; [] for none.",
    )


class Config(Section):
    """Every setting of the gateway."""

    server: Server = Server()
    access: Access = Access()
    limits: Limits = Limits()
    upstream: Upstream = Upstream()
    classifier: ClassifierSection = ClassifierSection()
    classifiers: dict[Word, OtherClassifier] = Field(
        default_factory=dict,
        description="Further models by name, each with the requests that it judges; the first that concerns one does.",
    )
    conversation: Conversation = Conversation()
    knowledge: Knowledge = Knowledge()
    interpretation: Interpretation = Similarity()
    grounding: Grounding = Grounding()
    output: Output = Output()
    policy: PolicySection = PolicySection()
    journal: JournalSection = JournalSection()
    answers: Answers = Answers()
    moderation: Moderation = Moderation()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.access.keys is not None and self.upstream.api_key_env is None:
            raise ValueError(
                "access.keys is set and upstream.api_key_env is not; the key of a client opens Airlock and is never "
                "sent on, so name the variable with the model server's own key (any value, if it asks for none)"
            )
        if self.access.keys is None and (self.limits.tenants or self.limits.tenant != TenantShare()):
            raise ValueError(
                "limits.tenant and limits.tenants need tenants, and without access.keys nobody logs in; set "
                "access.keys, or use limits.total"
            )
        return self

    @model_validator(mode="after")
    def _limits_tenants(self) -> Self:
        for tenant in self.limits.tenants:
            if not re.fullmatch(TENANT, tenant):
                raise ValueError(
                    f"limits.tenants names {tenant!r}, which no tenant is called: names have 1 to 64 letters, digits, "
                    "dots, dashes or underscores, and are no patterns; what holds for each tenant is limits.tenant"
                )
        return self

    @model_validator(mode="after")
    def _asks_nothing_of_absent_parts(self) -> Self:
        _check_absent(self)
        return self


def load_config(path: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration file; without one, every setting has its default.

    Relative paths count from the file's folder; defaults and `overrides` from the working directory.

    Args:
        path: the YAML file.
        overrides: settings that win over the file, as dotted names: ``{"server.port": 9000}``.

    Raises:
        ConfigError: the file is missing or no YAML, or a setting is unknown or wrong; or an override has no effect.
    """
    path = Path(path) if path else None
    data = _read(path) if path else {}
    try:
        in_file = {name for name, _ in _flat(data)} - set(overrides or {})
    except RecursionError as exc:
        raise ConfigError(f"configuration {path} holds itself by an alias (*); write out what it names") from exc
    for name, value in (overrides or {}).items():
        _set(data, name.split("."), value)
    config = validated(Config, data, path)
    for name in ("server.host", "server.port"):
        if name in (overrides or {}) and config.server.socket is not None:
            raise ConfigError(
                f"{name} = {(overrides or {})[name]} is given (--{name.removeprefix('server.')}) and server.socket = "
                f"{config.server.socket} is set, which takes its place; leave the one out, or remove the other"
            )
    return _resolve(config, path.parent, in_file) if path else config


def absolute(config: Config) -> Config:
    """The same with no relative path in it, so that a file of it means the same wherever it is saved."""
    return _resolve(config, Path.cwd(), None)


def warnings_of(config: Config) -> list[str]:
    """What the settings alone show to be sound, and surely not meant."""
    found = []
    if "user" in config.conversation.trusted_roles:
        found.append(
            "conversation.trusted_roles has `user`: then no role is left to judge, so all of each conversation is "
            "judged as if a user had written it, the system message and the model's turns too; remove it"
        )
    workers = config.server.workers
    if workers > 1 and config.limits.counted and config.limits.redis_env is None:
        found.append(
            f"server.workers = {workers} and limits.redis_env is not set: each worker counts `limits` by itself, so "
            f"up to {workers} times as much passes; name a Redis, or take one worker"
        )
    rules = {f"policy rule {rule.name!r}": rule.when.tenant for rule in config.policy.rules}
    choices = {f"classifiers.{name}": other.when.tenant for name, other in config.classifiers.items()}
    for where, tenants in (rules | choices).items():
        if tenants and config.access.keys is None:
            found.append(
                f"{where} asks for the tenant {', '.join(tenants)} and access.keys is not set: nobody logs in, so no "
                "request is a tenant's, and it never matches; set access.keys, or remove the condition"
            )
    return [*found, *shadowed({name: other.when.rule() for name, other in config.classifiers.items()})]


def settings(config: Config, path: Path | None, overrides: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Each setting with its value and where it came from: ``default``, ``file`` or ``command line``."""
    given = dict(_flat(_read(path))) if path else {}
    rows = []
    for name, value in _flat(config.model_dump(mode="json")):
        origin = "command line" if name in (overrides or {}) else "file" if name in given else "default"
        rows.append({"setting": name, "value": value, "origin": origin})
    return rows


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Airlock configuration"}


def changed_settings(old: Config, new: Config) -> list[str]:
    """The settings in which two configurations differ, as dotted names; a list counts as one setting."""
    before, after = (dict(_flat(config.model_dump(mode="json"))) for config in (old, new))
    found = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if old.classifiers == new.classifiers and [*old.classifiers] != [*new.classifiers]:
        found.add("classifiers")  # the first that concerns a request judges it
    return sorted(found)


def _check_absent(config: Config) -> None:
    """Whether the other sections ask for nothing of a part that is left out.

    Raises:
        ValueError: one does; the message names both settings.
    """
    without_classifier = config.classifier.kind == "none"
    if without_classifier and config.output.classifier:
        raise ValueError(
            "output.classifier is true and classifier.kind is 'none': nothing judges answers; set output.classifier: "
            "false and name output.patterns, or take a classifier"
        )
    if without_classifier and config.classifiers:
        raise ValueError(
            f"classifiers.{next(iter(config.classifiers))} is set and classifier.kind is 'none': requests that it does "
            "not concern would be judged by nothing; take a classifier, or remove `classifiers`"
        )
    if without_classifier and config.classifier.languages:
        raise ValueError(
            f"classifier.languages.{next(iter(config.classifier.languages))} is set and classifier.kind is 'none': "
            "other texts would be judged by nothing; take a classifier, or remove `classifier.languages`"
        )
    needing = next((rule.name for rule in config.policy.rules if rule.needs_knowledge), None)
    if config.knowledge.kind == "none" and needing is not None:
        raise ValueError(
            f"policy rule {needing!r} needs a knowledge base and knowledge.kind is 'none'; give it another route, "
            "without `ground_answer` and `protect`, or take a knowledge base"
        )


def _read(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):  # which, unlike that of `Path`, never raises
        raise ConfigError(f"configuration {path} does not exist; `airlock config show` prints one to start from")
    return read_yaml(path, "configuration", "settings such as `upstream:`")


def _set(data: dict[str, Any], names: list[str], value: object) -> None:
    for name in names[:-1]:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the validation names what is wrong with it
        data = inner
    data[names[-1]] = value


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _resolve(config: Config, folder: Path, names: Container[str] | None) -> Config:
    """With paths, and encoders that are folders, below a folder: those of the settings that are named, or of all."""

    def below(name: str, path: Path) -> Path:
        return folder / path if path != SHIPPED and (names is None or name in names) else path

    def resolved(name: str, value: Any) -> Any:  # noqa: ANN401 - of any setting
        match value:
            case Section():
                return value.model_copy(update={field: resolved(f"{name}.{field}", each) for field, each in value})
            case dict():
                inner = {key: each for key, each in value.items() if isinstance(each, Section)}
                return {**value, **{key: resolved(f"{name}.{key}", each) for key, each in inner.items()}}
            case Path():
                return below(name, value)
            case str() if name.endswith("encoder") and value != NO_ENCODER and not value.startswith(_NO_FOLDERS):
                return str(below(name, Path(value)))
        return value

    return config.model_copy(update={name: resolved(name, section) for name, section in config})
