"""Configuration: one YAML file, read once, frozen, unknown keys refused with the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from classifier.taxonomy import UniqueKeyLoader
from classifier.types import MINILM, Handling, Tier
from guard.errors import ConfigError
from guard.fields import Address, Count, Seconds, Section, Share
from guard.interpretation import (
    DEFAULT_INTERPRETATION,
    DEFAULT_SUPPORT_MODEL,
    SHIPPED,
    Generative,
    Interpretation,
    Reader,
)
from guard.policy import Rule
from guard.texts import Answers, Said
from guard.types import AnswerGrounding, Route, TextKind
from rag.types import DEFAULT_GATE, DEFAULT_MODE, PROTECTIVE_FROM, Mode

TierLabel = Literal["safe", "conditionally_safe", "focused_attention", "unsafe"]
EndpointName = Literal["chat", "completions", "responses", "messages", "embeddings"]
YAML_OFF = BeforeValidator(lambda value: "off" if value is False else value)  # YAML reads a bare `off` as false


class Server(Section):
    """Where Airlock listens, and what it takes in."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_body_bytes: Count = 4 * 1024 * 1024
    read_timeout_s: Seconds = 30.0
    endpoints: tuple[EndpointName, ...] = Field(
        ("chat", "completions", "responses", "messages", "embeddings"), description="Which APIs are served, guarded."
    )
    extras: bool = Field(True, description="Put an `airlock` object with the decision into Airlock's own answers.")


class PinnedModel(Section):
    """A local checkpoint that the upstream serves, and the fingerprint that it must still have."""

    file: Path = Field(description="Written by `airlock audit fingerprint`.")
    model: Path = Field(description="Folder of the checkpoint.")


class Upstream(Section):
    """The model's server."""

    base_url: Address = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = Field(
        None, description="Environment variable with the key to send; without it the client's own key is sent on."
    )
    api_key_header: Literal["authorization", "x-api-key"] = Field(
        "authorization", description="The header that carries it; Anthropic's own server wants `x-api-key`."
    )
    connect_timeout_s: Seconds = 5.0
    read_timeout_s: Seconds = Field(120.0, description="Longest silence between two reads.")
    max_response_bytes: Count = 32 * 1024 * 1024
    fingerprint: PinnedModel | None = Field(
        None,
        description="A local checkpoint behind it (`model`) and its fingerprint (`file`): no start once it drifted.",
    )


class ClassifierSection(Section):
    """The input door."""

    model: Path | None = Field(None, description="Model folder; the shipped one by default.")
    encoder: str | None = Field(None, description="Folder, or package:NAME/PATH; the one the model names by default.")
    threads: Count = 1
    workers: Count = Field(1, description="Requests judged at once; each uses `threads` cores.")
    deadline_s: Seconds = 20.0
    max_tokens: Count = Field(
        8_192, description="Tokens of one request that are judged, known turns aside; more are refused with HTTP 400."
    )
    cache: Annotated[int, Field(ge=0)] = Field(4096, description="Verdicts kept by hash of the text; 0 keeps none.")


class Conversation(Section):
    """Which messages are judged, and how."""

    trusted_roles: tuple[str, ...] = Field(
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
        ("chat_template", "chat_template_kwargs", "documents", "prediction"),
        description="Fields beside the conversation whose texts are judged too, such as `tools`; the rest is trusted.",
    )


class Knowledge(Section):
    """The knowledge base that grounds answers."""

    path: Path | None = Field(None, description="Folder written by `airlock kb`; the shipped sample by default.")
    encoder: str = MINILM
    passages: Count = Field(3, description="Passages looked at for an answer.")
    mode: Mode = Field(DEFAULT_MODE, description="Find them by vectors (dense), by words (bm25) or by both (hybrid).")
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Metadata entries of the documents that may answer, each with its values."
    )
    reranker: Path | None = Field(
        None, description="Folder of a cross-encoder that puts them in order; none by default."
    )
    protective_from: Share = Field(
        PROTECTIVE_FROM, description="Similarity from which a protective document is quoted beside a refusal."
    )
    deadline_s: Seconds = 10.0

    @field_validator("where", mode="before")
    @classmethod
    def _one_or_many(cls, where: object) -> object:
        if not isinstance(where, dict):
            return where
        return {key: (value,) if isinstance(value, str) else value for key, value in where.items()}


class Grounding(Section):
    """The citation gate: how strict it is, and how much it reads; see `rag.types.Gate`."""

    support_model: Path | None = Field(
        DEFAULT_SUPPORT_MODEL,
        description="Judges paraphrases: folder written by `airlock train support`, or `shipped`. Quotes need none.",
    )
    support_encoder: str | None = Field(
        None, description="Its encoder: folder, or package:NAME/PATH; the one the model names by default."
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


class Pattern(Section):
    """A regular expression that no answer of the model may hold; its longest match must be bounded."""

    name: str
    regex: str

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        try:
            re.compile(regex)
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        return regex


class Output(Section):
    """The output door for answers of the application's own model."""

    hold_back: Annotated[int, Field(ge=1)] = Field(
        240, description="Characters of a stream kept back until what follows them is checked too."
    )
    stride: Annotated[int, Field(ge=1)] = Field(160, description="Characters of a stream between two checks.")
    classifier: bool = Field(True, description="Judge what the model wrote with the input classifier.")
    unsafe_from: Share = Field(0.9, description="Probability of Unsafe from which an answer is withheld.")
    input_only: tuple[str, ...] = Field(
        ("u_jailbreak", "u_prompt_injection"),
        description="Categories of manipulation: they say something of a query, nothing of an answer.",
    )
    patterns: tuple[Pattern, ...] = ()
    deadline_s: Seconds = 10.0


class When(Section):
    """The conditions of a rule; every one given must hold."""

    tier: tuple[TierLabel, ...] = ()
    category: tuple[str, ...] = ()
    handling: tuple[Handling, ...] = ()
    min_probability: Share = 0.0
    read_below: Share | None = None
    text: tuple[TextKind, ...] = ()

    @field_validator("tier", "category", "handling", "text", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class RuleSection(Section):
    """One rule of the policy."""

    name: Annotated[str, Field(min_length=1)]
    when: When = When()
    route: Route
    say: Said | None = Field(None, description="Text of the refusal or the hand-over; by category without one.")
    ground_answer: Annotated[AnswerGrounding, YAML_OFF] = Field(
        AnswerGrounding.OFF,
        description="Hold the answer of the model that a request is forwarded to against the knowledge base.",
    )
    protect: bool = Field(
        False, description="Quote documents that protect against the category (`protects`) beside the refusal."
    )

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if self.ground_answer is not AnswerGrounding.OFF and self.route is not Route.FORWARD:
            raise ValueError(
                f"rule {self.name!r} has `ground_answer: {self.ground_answer}` and `route: {self.route}`; only what "
                "the model answers can be grounded: set `route: forward`, or remove `ground_answer`"
            )
        if self.protect and self.route is not Route.REFUSE:
            raise ValueError(
                f"rule {self.name!r} has `protect: true` and `route: {self.route}`; protective documents stand beside "
                "a refusal: set `route: refuse`, or remove `protect`"
            )
        return self

    def rule(self) -> Rule:
        """The rule that `guard.policy` applies."""
        return Rule(
            name=self.name,
            route=self.route,
            tiers=frozenset(Tier.parse(label) for label in self.when.tier),
            categories=frozenset(self.when.category),
            handlings=frozenset(self.when.handling),
            min_probability=self.when.min_probability,
            read_below=self.when.read_below,
            texts=frozenset(self.when.text),
        )


DEFAULT_RULES = (
    RuleSection(
        name="unsafe_insensitive",
        when=When(tier=("unsafe",), handling=(Handling.GUIDE,)),
        route=Route.REFUSE,
        protect=True,
    ),
    RuleSection(name="unsafe", when=When(tier=("unsafe",)), route=Route.REFUSE),
    RuleSection(name="unreadable", when=When(read_below=0.6), route=Route.REFUSE),
    RuleSection(name="person_in_distress", when=When(handling=(Handling.SUPPORT,)), route=Route.HAND_OVER),
    RuleSection(name="sensitive_ground", when=When(tier=("conditionally_safe",)), route=Route.GROUND),
    RuleSection(name="disputed_topic", when=When(tier=("focused_attention",)), route=Route.GROUND),
    RuleSection(name="safe", when=When(tier=("safe",)), route=Route.FORWARD),
)


def _unique(rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two rules are named {twice[0]!r}; give each its own name")
    return rules


class PolicySection(Section):
    """Verdict to route: the first rule that matches; what matches none is refused."""

    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1), AfterValidator(_unique)] = DEFAULT_RULES
    on_error: Literal["refuse", "hand_over", "forward"] = Field(
        "refuse", description="When a part fails. `forward` lets requests pass unguarded."
    )
    on_abstain: Literal["abstain", "refuse", "hand_over", "forward"] = Field(
        "abstain", description="When the knowledge base holds no answer."
    )
    min_positions: Annotated[int, Field(ge=0)] = Field(
        2,
        description="Positions that an answer from a disputed document gives at least; with fewer it is an abstention.",
    )
    on_block: Literal["refusal", "error"] = Field(
        "refusal", description="A refused request gets an answer that says so, or HTTP 400 with code content_filter."
    )


class JournalSection(Section):
    """Where decisions are written down."""

    path: Path | None = Field(Path("airlock.db"), description="SQLite file; null keeps no journal.")
    prompts: Annotated[Literal["off", "hashed", "full"], YAML_OFF] = Field(
        "off", description="What is kept of the judged text."
    )
    deadline_s: Seconds = 10.0
    on_error: Literal["refuse", "continue"] = Field(
        "refuse", description="When a decision cannot be written: refuse the request, or answer and log an alarm."
    )


class Config(Section):
    """Every setting of the gateway."""

    server: Server = Server()
    upstream: Upstream = Upstream()
    classifier: ClassifierSection = ClassifierSection()
    conversation: Conversation = Conversation()
    knowledge: Knowledge = Knowledge()
    interpretation: Interpretation = DEFAULT_INTERPRETATION
    grounding: Grounding = Grounding()
    output: Output = Output()
    policy: PolicySection = PolicySection()
    journal: JournalSection = JournalSection()
    answers: Answers = Answers()


def load_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration file; without one, every setting has its default.

    Relative paths count from the file's folder; defaults and `overrides` from the working directory.

    Args:
        path: the YAML file.
        overrides: settings that win over the file, as dotted names: ``{"server.port": 9000}``.

    Raises:
        ConfigError: the file is missing or no YAML, or a setting is unknown or wrong.
    """
    data = _read(path) if path else {}
    in_file = {name for name, _ in _flat(data)} - set(overrides or {})
    for name, value in (overrides or {}).items():
        _set(data, name.split("."), value)
    try:
        config = Config.model_validate(data)
    except ValidationError as exc:
        errors = exc.errors()
        inner = [error for error in errors if error["type"] != "too_short"] or errors  # a bad item shortens its list
        raise ConfigError("; ".join(_explain(error, path) for error in inner[:5])) from exc
    return _resolve(config, path.parent, in_file) if path else config


def settings(config: Config, path: Path | None, overrides: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Each setting with its value and where it came from: ``default``, ``file`` or ``command line``."""
    given = dict(_flat(_read(path))) if path else {}
    rows = []
    for name, value in _flat(config.model_dump(mode="json")):
        origin = "command line" if name in (overrides or {}) else "file" if name in given else "default"
        rows.append({"setting": name, "value": value, "origin": origin})
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except FileNotFoundError as exc:
        raise ConfigError(
            f"configuration {path} does not exist; `airlock config show` prints one to start from"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"configuration {path} cannot be read: {exc}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date such as 2001-13-45
        raise ConfigError(f"configuration {path} is no YAML: {' '.join(str(exc).split())}") from exc
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"configuration {path} must hold settings such as `upstream:`, not a {type(data).__name__}")
    return data


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


def _resolve(config: Config, folder: Path, in_file: Container[str]) -> Config:
    def below(name: str, path: Path | None) -> Path | None:
        return folder / path if path not in (None, SHIPPED) and name in in_file else path

    def encoder(name: str, value: str | None) -> str | None:
        return value if value is None or value.startswith("package:") else str(below(name, Path(value)))

    classifier, knowledge, journal = config.classifier, config.knowledge, config.journal
    interpretation, grounding = config.interpretation, config.grounding
    if isinstance(interpretation, Reader | Generative):
        named: dict[str, Any] = {"model": below("interpretation.model", interpretation.model)}
        if isinstance(interpretation, Generative):
            named["base"] = below("interpretation.base", interpretation.base)
        else:
            named["encoder"] = encoder("interpretation.encoder", interpretation.encoder)
        interpretation = interpretation.model_copy(update=named)
    upstream = config.upstream
    if (pinned := upstream.fingerprint) is not None:
        found = {key: below(f"upstream.fingerprint.{key}", getattr(pinned, key)) for key in ("file", "model")}
        upstream = upstream.model_copy(update={"fingerprint": pinned.model_copy(update=found)})
    return config.model_copy(
        update={
            "upstream": upstream,
            "classifier": classifier.model_copy(
                update={
                    "model": below("classifier.model", classifier.model),
                    "encoder": encoder("classifier.encoder", classifier.encoder),
                }
            ),
            "knowledge": knowledge.model_copy(
                update={
                    "path": below("knowledge.path", knowledge.path),
                    "reranker": below("knowledge.reranker", knowledge.reranker),
                    "encoder": encoder("knowledge.encoder", knowledge.encoder),
                }
            ),
            "interpretation": interpretation,
            "grounding": grounding.model_copy(
                update={
                    "support_model": below("grounding.support_model", grounding.support_model),
                    "support_encoder": encoder("grounding.support_encoder", grounding.support_encoder),
                }
            ),
            "journal": journal.model_copy(update={"path": below("journal.path", journal.path)}),
        }
    )


def _explain(error: ErrorDetails, path: Path | None) -> str:
    location, known = _place(error["loc"])
    origin = f"{path}: " if path else ""
    if error["type"] == "extra_forbidden":
        *parents, key = location
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {'.'.join([*parents, near[0]])!r}?" if near else ""
        return f"{origin}unknown setting {'.'.join(location)!r}{hint}" + (
            "" if near else f"; known here: {', '.join(known)}"
        )
    where = ".".join(location) or "configuration"
    if error["type"].startswith("union_tag"):
        kind = error["input"].get("kind") if isinstance(error["input"], Mapping) else None
        found = f" = {kind!r}: is none of them;" if kind is not None else ": is missing;"
        return f"{origin}{where}.kind{found} need one of {', '.join(_kinds(error['loc']))}"
    value = error["input"]
    shown = "" if isinstance(value, (dict, list, SecretStr)) else f" = {value!r}"
    return f"{origin}{where}{shown}: {error['msg'].removeprefix('Value error, ')}"


def _place(location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """A place of the configuration as its file names it, without tags of kinds; and the settings known there."""
    names: list[str] = []
    models: list[Any] = [Config]
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


def _kinds(location: tuple[int | str, ...]) -> list[str]:
    field = Config.model_fields[str(location[0])]
    return [str(_tag(model)) for model in _models(field.annotation)]


def _tag(model: type[BaseModel]) -> object:
    """The kind that a section is, where several kinds can stand."""
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type expression
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)
