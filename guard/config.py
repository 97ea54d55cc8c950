"""Configuration: one YAML file, read once, frozen, unknown keys refused with the nearest known one."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from classifier.taxonomy import SHIPPED_SPECIALISTS
from classifier.types import E5_SMALL
from guard.admission import Access, Limits, TenantShare
from guard.choosing import OtherClassifier, Specialist
from guard.connections import Server, Upstream
from guard.errors import ConfigError
from guard.fields import (
    NO_ENCODER,
    PASSWORD,
    SHIPPED,
    Count,
    OpenAICategory,
    Seconds,
    Section,
    Share,
    Variable,
    Word,
    one_or_many,
)
from guard.interpretation import DEFAULT_INTERPRETATION, DEFAULT_SUPPORT_MODEL, Interpretation
from guard.language import TOLD
from guard.output import Output
from guard.rules import YAML_OFF, PolicySection
from guard.telemetry import Logging, Metrics, Tracing
from guard.tenants import TENANT
from guard.texts import Answers
from guard.yaml_file import read_yaml, validated
from rag.mode import DEFAULT_MODE, Mode
from rag.types import DEFAULT_GATE, PROTECTIVE_FROM

_NO_FOLDERS = ("package:", "fetched:")  # what the names of encoders begin with that are no folders
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
"""The roles of all wires."""


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
    model: Path | None = Field(None, description="Model folder; the shipped one by default.")
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


class Conversation(Section):
    """Which messages are judged, and how."""

    trusted_roles: tuple[Role, ...] = Field(
        ("system", "developer"), description="Roles that the operator writes; every other role is judged."
    )
    context_turns: Annotated[int, Field(ge=1)] = Field(
        4, description="The last user turns that are also judged as one text."
    )
    context_characters: Count = Field(6000, description="Of that text, its end is read, at most this long.")
    context_from: Share = Field(
        0.9, description="Probability from which turns taken together make the route stricter than the last one alone."
    )
    forget_refused: bool = Field(
        True,
        description="Take refused turns, with the refusal, out of a conversation that goes on; else it ends there.",
    )
    non_text_parts: Literal["refuse", "pass", "text_only"] = Field(
        "refuse",
        description="Images, audio and files, which Airlock cannot judge; `text_only` takes them out of the request.",
    )
    stored_text: Literal["refuse", "pass"] = Field(
        "refuse",
        description="Text that the model's server keeps and a request only names (`previous_response_id`, `prompt`).",
    )
    judged_fields: tuple[str, ...] = Field(
        (
            "assistant_continue_message",
            "bos_token",
            "chat_template",
            "chat_template_kwargs",
            "context_management",
            "data_sources",
            "documents",
            "eos_token",
            "extra_body",
            "final_prompt_value",
            "guideline",
            "initial_prompt_value",
            "prediction",
            "prompt_variables",
            "role_mapping",
            "roles",
            "tool_prompt",
            "user_continue_message",
        ),
        description="Fields beside the conversation whose texts are judged too, such as `tools`; the rest is trusted.",
    )


class Knowledge(Section):
    """The knowledge base that grounds answers."""

    kind: Literal["base", "none"] = Field("base", description="`none` loads none; then no rule may ground or protect.")
    path: Path | None = Field(None, description="Folder written by `airlock kb`; the shipped sample by default.")
    encoder: str = E5_SMALL
    english_encoder: str | None = Field(
        None,
        description="A second one, by which questions in English are compared too: folder, package:NAME/PATH or "
        "fetched:NAME. Name it when the base is made; then it is used where it is there, unless this says none.",
    )
    passages: Count = Field(3, description="Passages looked at for an answer.")
    mode: Mode = Field(DEFAULT_MODE, description="Find them by vectors (dense), by words (bm25) or by both (hybrid).")
    where: dict[str, Annotated[tuple[str, ...], one_or_many(str)]] = Field(
        default_factory=dict, description="Metadata entries of the documents that may answer, each with its values."
    )
    reranker: Path | None = Field(
        None, description="Folder of a cross-encoder that puts them in order; none by default."
    )
    protective_from: Share = Field(
        PROTECTIVE_FROM, description="Similarity from which a protective document is quoted beside a refusal."
    )
    deadline_s: Seconds = 10.0


class Grounding(Section):
    """The citation gate: how strict it is, and how much it reads; see `rag.types.Gate`."""

    support_model: Path | None = Field(
        DEFAULT_SUPPORT_MODEL,
        description="Judges paraphrases: folder written by `airlock train support`, or `shipped`: the larger one after "
        "`airlock model fetch`. Quotes need none.",
    )
    support_encoder: str | None = Field(
        None, description="Its encoder: folder, package:NAME/PATH or fetched:NAME; the one the model names by default."
    )
    supported: Share = Field(
        DEFAULT_GATE.supported, description="Probability of a support model from which a paraphrase stays."
    )
    contradicted: Share = Field(
        DEFAULT_GATE.contradicted, description="Probability of a support model from which it is contradicted."
    )
    overlap: Share = Field(
        DEFAULT_GATE.overlap, description="Share of a sentence's words below which no evidence is like it."
    )
    kept: Share = Field(
        DEFAULT_GATE.kept, description="Share of an answer below which what remains of it does not answer."
    )
    answer_characters: Count = DEFAULT_GATE.answer_characters
    passage_characters: Count = DEFAULT_GATE.passage_characters
    passage_sentences: Count = DEFAULT_GATE.passage_sentences


class JournalSection(Section):
    """Where decisions are written down."""

    path: Path | None = Field(Path("airlock.db"), description="SQLite file; null keeps no journal.")
    url: str | None = Field(
        None,
        description="PostgreSQL in place of the file: postgresql://user@host/database, the password in PGPASSWORD.",
    )
    prompts: Annotated[Literal["off", "hashed", "redacted", "full"], YAML_OFF] = Field(
        "off", description="What is kept of the judged text; `redacted` masks numbers, addresses, accounts and keys."
    )
    prompt_key_env: Variable | None = Field(
        None, description="Environment variable with a key for `hashed`; without one, a guessed text can be confirmed."
    )
    key_env: Variable | None = Field(
        None,
        description="Environment variable with a key for the chain of records; older keys behind it, after a space.",
    )
    retention_days: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Records older than that are deleted once a day; null keeps them."
    )
    sync: bool = Field(
        False,
        description="Wait for the disk with each decision, so that none is lost by a power cut either; for the file.",
    )
    deadline_s: Seconds = 10.0
    on_error: Literal["refuse", "continue"] = Field(
        "refuse", description="When a decision cannot be written: refuse the request, or answer and log an alarm."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.url is not None and self.path is not None and "path" in self.model_fields_set:
            raise ValueError(f"path = {self.path} and url = {self.url}: a journal is at one place; remove one of them")
        return self

    @field_validator("url")
    @classmethod
    def _postgres(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not re.match(r"postgres(?:ql)?://", url):
            raise ValueError("need an address such as postgresql://user@host/database; a file goes to journal.path")
        if PASSWORD.search(url):
            raise ValueError("a password has no place in a configuration; put it into PGPASSWORD or a passfile")
        return url

    @property
    def kept(self) -> bool:
        """Whether there is a journal."""
        return self.path is not None or self.url is not None


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
    interpretation: Interpretation = DEFAULT_INTERPRETATION
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
    return found


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
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


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
