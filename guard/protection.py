"""The protective answer beside a refusal: quotes of documents that were written for it, or the refusal alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from guard.answers import AnswerTexts
from guard.errors import BadRequest, PartFailure
from guard.policy import Rule
from guard.runner import Runner
from guard.sound import rubbish, sound_answer
from guard.types import Decision, Protector, Reply, Route, TextKind, ms_since
from rag.types import GroundedAnswer

log = logging.getLogger("airlock")

_ASKED = (TextKind.LAST_TURN.value, TextKind.CONTEXT.value)  # what the user asks now


class Protection:
    """Adds what a knowledge base tells whoever asks to refusals of the rules that want it.

    Args:
        protector: finds the quotes; None finds none.
        runner: of the knowledge base.
    """

    def __init__(self, protector: Protector | None, runner: Runner) -> None:
        self._protector = protector
        self._runner = runner

    def wanted(self, decision: Decision, refusing: Iterable[Rule], on_block: str) -> bool:
        """Whether a decision may be answered with more than a refusal.

        It is the user who asks, not in distress, and each text that has to be refused is so by a rule that wants it.

        Args:
            decision: as the texts of the request make it.
            refusing: the rules by which texts of the request are refused.
            on_block: of the policy; an HTTP error has no place for citations.
        """
        asked = decision.route is Route.REFUSE and decision.judged in _ASKED and decision.distress is None
        whole = asked and on_block == "refusal" and self._protector is not None
        return whole and all(rule.protect for rule in refusing)

    async def beside(
        self, decision: Decision, asked: str, refusal: Reply, texts: AnswerTexts
    ) -> tuple[Decision, Reply]:
        """The refusal with quotes behind it, put together with `texts`; whatever fails, the refusal."""
        verdict, protector = decision.verdict, self._protector
        if verdict is None or protector is None:
            return decision, refusal
        started = time.perf_counter()
        try:
            answer = await self._runner.run(lambda: _sound(protector.protect(asked, verdict.category)))
        except (PartFailure, BadRequest) as exc:
            log.error("decision %s: %s -> refused without a protective answer", decision.id, exc)
            answer = None
        decision.timings_ms["protect"] = ms_since(started)
        if answer is None or answer.abstained:
            return decision, refusal
        return replace(decision, cited=answer.cited), texts.protective(decision, answer)


def _sound(answer: object) -> GroundedAnswer:
    """The answer, if it is an abstention or nothing but quotes, and says nothing of what was asked.

    Raises:
        PartFailure: it is not.
    """
    sound = sound_answer(answer)
    if sound.premises or sound.positions is not None or not all(citation.verbatim for citation in sound.citations):
        raise rubbish("knowledge", "a protective answer that is more than quotes")
    return sound
