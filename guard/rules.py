"""The `policy` section: rules as the operator writes them, and what is done where none can be asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from classifier.types import Handling, Tier
from guard.fields import Section, Share, Word, Words, named_apart, one_or_many
from guard.policy import Mode, Rule
from guard.texts import Said
from guard.types import AnswerGrounding, Route, TextKind

TierLabel = Literal["safe", "conditionally_safe", "focused_attention", "unsafe"]
EndpointName = Literal["chat", "completions", "responses", "messages", "embeddings", "check", "moderations", "litellm"]
YAML_OFF = BeforeValidator(lambda value: "off" if value is False else value)  # YAML reads a bare `off` as false


Tiers = Annotated[tuple[TierLabel, ...], one_or_many(TierLabel)]
Handlings = Annotated[tuple[Handling, ...], one_or_many(Handling)]
TextKinds = Annotated[tuple[TextKind, ...], one_or_many(TextKind)]
Endpoints = Annotated[tuple[EndpointName, ...], one_or_many(EndpointName)]


class When(Section):
    """The conditions of a rule; every one given must hold."""

    tier: Tiers = Field((), description="The text's tier; one or several.")
    category: Words = Field((), description="Its category; one or several.")
    handling: Handlings = Field((), description="How its category is meant to be met; one or several.")
    min_probability: Share = Field(0.0, description="The tier's probability is at least this.")
    max_probability: Share | None = Field(None, description="The tier's probability is at most this.")
    read_below: Share | None = Field(None, description="Less than this share of the text could be read.")
    sure: bool | None = Field(
        None,
        description="`false`: the classifier, calibrated to budgets, abstains; only a rule that says so forwards or "
        "grounds such a text.",
    )
    text: TextKinds = Field((), description="Which text of a request it is; one or several.")
    tenant: Words = Field((), description="Who sends it, or a pattern such as team-*; one or several.")
    model: Words = Field((), description="The model asked for, or a pattern such as gpt-4*; one or several.")
    endpoint: Endpoints = Field((), description="The wire that the request speaks; one or several.")

    @model_validator(mode="after")
    def _some_probability(self) -> Self:
        if self.max_probability is not None and self.max_probability < self.min_probability:
            raise ValueError(
                f"max_probability = {self.max_probability} is below min_probability = {self.min_probability}, so that "
                "nothing matches; raise the one or lower the other"
            )
        return self


class RuleSection(Section):
    """One rule of the policy."""

    name: Word = Field(description="Written into the decisions that it makes.")
    mode: Annotated[Mode, YAML_OFF] = Field(
        Mode.ENFORCE, description="`shadow` only writes down that it would have decided; `off` is not asked."
    )
    when: When = Field(When(), description="Every condition given must hold; without any it always matches.")
    route: Route = Field(description="What becomes of the request.")
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

    @property
    def needs_knowledge(self) -> bool:
        """Whether it is in use, and quotes a knowledge base or holds answers against it."""
        grounds = self.route is Route.GROUND or self.ground_answer is not AnswerGrounding.OFF
        return self.mode is not Mode.OFF and (grounds or self.protect)

    def rule(self) -> Rule:
        """The rule that `guard.policy` applies."""
        when = self.when
        return Rule(
            name=self.name,
            route=self.route,
            mode=self.mode,
            tiers=frozenset(Tier.parse(label) for label in when.tier),
            categories=frozenset(when.category),
            handlings=frozenset(when.handling),
            min_probability=when.min_probability,
            max_probability=when.max_probability,
            read_below=when.read_below,
            sure=when.sure,
            texts=frozenset(when.text),
            tenants=frozenset(when.tenant),
            models=frozenset(when.model),
            endpoints=frozenset(when.endpoint),
            ground_answer=self.ground_answer,
            protect=self.protect,
        )


def unsaid(rules: Iterable[RuleSection]) -> list[str]:
    """A sentence for each rule whose text is never said, as the model answers; rules that are off are left out."""
    return [
        f"rule {rule.name!r} has `say` and `route: forward`: the model answers, so its text is never said; remove it, "
        "or take `route: refuse` or `route: hand_over`"
        for rule in rules
        if rule.say and rule.route is Route.FORWARD and rule.mode is not Mode.OFF
    ]


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
    RuleSection(name="unsure", when=When(sure=False), route=Route.HAND_OVER),
    RuleSection(name="sensitive_ground", when=When(tier=("conditionally_safe",)), route=Route.GROUND),
    RuleSection(name="disputed_topic", when=When(tier=("focused_attention",)), route=Route.GROUND),
    RuleSection(name="safe", when=When(tier=("safe",)), route=Route.FORWARD),
)


Fallback = Literal["refuse", "hand_over", "forward"]


class OnError(Section):
    """What becomes of a request when a part fails, by part. `forward` lets requests pass unguarded."""

    classifier: Fallback = Field("refuse", description="No text could be judged.")
    knowledge: Fallback = Field("refuse", description="No answer, or check of one, came from the knowledge base.")
    output: Fallback = Field("refuse", description="What a model wrote could not be checked.")

    def of(self, part: str) -> Route:
        """The route when a part fails; one that is not named here refuses."""
        return Route(getattr(self, part)) if part in OnError.model_fields else Route.REFUSE


def _for_every_part(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    return dict.fromkeys(OnError.model_fields, value) if isinstance(value, str) else value


class PolicySection(Section):
    """Verdict to route: the first rule that matches; what matches none is refused."""

    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1), AfterValidator(named_apart("rules"))] = Field(
        DEFAULT_RULES, description="In order: the first that matches decides."
    )
    on_error: Annotated[OnError, BeforeValidator(_for_every_part, json_schema_input_type=Fallback | OnError)] = Field(
        OnError(), description="When a part fails: one route, or one for each part."
    )
    on_abstain: Literal["abstain", "refuse", "hand_over", "forward"] = Field(
        "abstain", description="When the knowledge base holds no answer."
    )
    related: bool = Field(
        True,
        description="Where it holds none for sure, quote the document that stands out, said to be on the topic only.",
    )
    min_positions: Annotated[int, Field(ge=0)] = Field(
        2,
        description="Positions that an answer from a disputed document gives at least; with fewer it is an abstention.",
    )
    on_block: Literal["refusal", "error"] = Field(
        "refusal", description="A refused request gets an answer that says so, or HTTP 400 with code content_filter."
    )
