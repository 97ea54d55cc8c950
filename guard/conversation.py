"""The `conversation` section; which texts are judged by it, which have a say, and what they come to, all of it pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from classifier.types import Handling, Tier, Verdict
from guard.errors import BadRequest
from guard.fields import Count, Section, Share
from guard.policy import Match, Rule
from guard.types import FIELD, SYSTEM_ROLES, AnswerGrounding, Role, Route, Shadow, TextKind, Turn

_ENDS_A_TURN = ("assistant", "tool", "function")  # what stands between two turns of the user
_KINDS = {
    "tool": TextKind.TOOL_RESULT,
    "function": TextKind.TOOL_RESULT,
    "system": TextKind.SYSTEM_MESSAGE,
    "developer": TextKind.SYSTEM_MESSAGE,
    FIELD: TextKind.REQUEST_FIELD,
}
_NOT_TOGETHER = (TextKind.TOOL_RESULT, TextKind.REQUEST_FIELD)
_STRICTNESS = (Route.FORWARD, Route.GROUND, Route.HAND_OVER, Route.REFUSE)
_GROUNDING = tuple(AnswerGrounding)  # from the mildest to the strictest

Texts = Sequence[tuple[TextKind, str]]


class Conversation(Section):
    """Which messages are judged, and how."""

    trusted_roles: tuple[Role, ...] = Field(
        SYSTEM_ROLES, description="Roles that the operator writes; every other role is judged."
    )
    context_turns: Count = Field(4, description="The last user turns that are also judged as one text.")
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
        ("chat_template", "chat_template_kwargs", "documents", "prompt_variables"),
        description="Fields beside the conversation of which every string is judged too, such as `tools`.",
    )
    trusted_fields: tuple[str, ...] = Field(
        (),
        description="Further fields beside the conversation that only the application writes, and that are not judged.",
    )
    unknown_fields: Literal["judge", "refuse", "pass"] = Field(
        "judge",
        description="What reads as text in fields beside the conversation that Airlock does not know: judge it, refuse "
        "the request with HTTP 400, or let it pass unjudged.",
    )


def texts_to_judge(turns: Sequence[Turn], settings: Conversation) -> list[tuple[TextKind, str]]:
    """Each text that is judged, the last turn's first and in order.

    Raises:
        BadRequest: there is none.
    """
    written = [bool(turn.text.strip()) for turn in turns]
    kinds = [_kind(turn, settings) if there else None for turn, there in zip(turns, written, strict=True)]
    users = [at for at, kind in enumerate(kinds) if kind is TextKind.EARLIER_TURN]
    if users:
        ends = [at for at, turn in enumerate(turns) if turn.role in _ENDS_A_TURN and at < users[-1]]
        last = [at for at in users if at > max(ends, default=-1)]
    else:  # then whatever the model would answer to is judged as if a user had written it
        last = [at for at, there in enumerate(written) if there][-1:]
        kinds = [kind or TextKind.EARLIER_TURN if there else None for kind, there in zip(kinds, written, strict=True)]
    if not last:
        raise BadRequest("there is no text to judge; send a message with text", param="messages", code="no_text")
    texts = [(TextKind.LAST_TURN, turns[at].text) for at in last]
    deciding = frozenset(last)
    texts += [(kind, turns[at].text) for at, kind in enumerate(kinds) if kind and at not in deciding]
    together = [turns[at].text for at, kind in enumerate(kinds) if kind and kind not in _NOT_TOGETHER]
    together = together[-settings.context_turns :]
    if len(together) > 1:
        texts.append((TextKind.CONTEXT, "\n".join(together)[-settings.context_characters :]))
    return texts


def question_of(texts: Texts) -> str:
    """The last turn, in one piece."""
    return "\n".join(text for where, text in texts if where is TextKind.LAST_TURN)


@dataclass(frozen=True, slots=True)
class Judged:
    """One text of a conversation with its verdict and what the policy says of it."""

    where: TextKind
    verdict: Verdict
    match: Match


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the texts of a conversation come to.

    Attributes:
        strictest: the text that decides.
        refusing: the rules by which texts that have a say are refused.
        distress: category of a text that shows a person in distress; None where none does.
        shadow: rules in shadow mode that would have decided on a text that would have had a say by them.
    """

    strictest: Judged
    refusing: tuple[Rule, ...]
    distress: str | None
    shadow: tuple[Shadow, ...]


def weigh(judged: Sequence[Judged], sure_from: float) -> Weighed:
    """What judged texts come to.

    Args:
        judged: one for each text, that of the last turn among them.
        sure_from: probability from which the last turns taken together have a say (`conversation.context_from`).
    """
    counting = [each for each in judged if _counts(each, each.match.rule, sure_from)]
    shadow = (rule for each in judged for rule in each.match.shadow if _counts(each, rule, sure_from))
    return Weighed(
        strictest=max(counting, key=_strictness),
        refusing=tuple(each.match.rule for each in counting if each.match.rule.route is Route.REFUSE),
        distress=_distress(counting),
        shadow=tuple(Shadow(rule.name, rule.route) for rule in dict.fromkeys(shadow)),
    )


def field_of(turns: Sequence[Turn], texts: Texts, verdicts: Sequence[Verdict], strictest: Judged) -> str | None:
    """Name of the field in which the text that decided stands; None where it is one of the conversation."""
    if strictest.where is not TextKind.REQUEST_FIELD:
        return None
    deciding = {
        text
        for (where, text), verdict in zip(texts, verdicts, strict=True)
        if where is TextKind.REQUEST_FIELD and verdict is strictest.verdict
    }
    return next((turn.name for turn in turns if turn.role == FIELD and turn.text in deciding), None)


def _kind(turn: Turn, settings: Conversation) -> TextKind | None:
    """What a turn is before it is known which one is last; None for what is not judged."""
    if turn.role == "assistant" or turn.role in settings.trusted_roles:
        return None
    return _KINDS.get(turn.role, TextKind.EARLIER_TURN)


def _counts(judged: Judged, rule: Rule, sure_from: float) -> bool:
    """Whether a text has a say by a rule: the last turn always, the others only where they make the route stricter."""
    verdict = judged.verdict
    strict = rule.route is Route.REFUSE or verdict.tier is Tier.UNSAFE or bool(rule.texts)
    if judged.where is TextKind.CONTEXT:
        sure = verdict.tiers[verdict.tier] >= sure_from
        return sure and (strict or verdict.handling is Handling.SUPPORT)
    return strict or judged.where is TextKind.LAST_TURN


def _distress(counting: Sequence[Judged]) -> str | None:
    """Category of the text that shows a person in distress, the likeliest of those that have a say."""
    shown = [each.verdict for each in counting if each.verdict.handling is Handling.SUPPORT]
    return max(shown, key=lambda verdict: verdict.probability).category if shown else None


def _strictness(judged: Judged) -> tuple[int, int, Tier, bool]:
    rule = judged.match.rule
    last = judged.where is TextKind.LAST_TURN
    return _STRICTNESS.index(rule.route), _GROUNDING.index(rule.ground_answer), judged.verdict.tier, last
