"""The engine: judge a conversation, pick the route, answer what is not forwarded; whatever fails, fails closed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from classifier.types import Handling, Tier, Verdict
from guard.answers import AnswerTexts
from guard.config import Config
from guard.errors import AirlockError, BadRequest, JournalError, PartFailure
from guard.journal import Journal
from guard.language import Detector
from guard.policy import decide
from guard.protection import Protection
from guard.runner import Runner
from guard.sound import sound_answer, sound_findings, sound_report, sound_verdicts
from guard.texts import Kind
from guard.types import (
    FIELD,
    UNKNOWN,
    Answerer,
    AnswerGrounding,
    Classifier,
    Decision,
    Finding,
    Origin,
    Protector,
    Reply,
    ResponseCheck,
    Route,
    TextKind,
    Turn,
)
from rag.types import GroundedAnswer, GroundingReport

log = logging.getLogger("airlock")

ON_ERROR = "on_error"
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


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine is made of; built in `guard.assemble`."""

    classifier: Classifier
    answerer: Answerer
    output: ResponseCheck
    journal: Journal
    protector: Protector | None = None


@dataclass(frozen=True, slots=True)
class _Judged:
    """One text of a conversation with its verdict and the route that the policy gives it."""

    where: TextKind
    verdict: Verdict
    route: Route
    rule: str


class Guard:
    """Judges conversations and answers; async outside, its parts run in worker threads within deadlines.

    Args:
        config: every setting.
        parts: classifier, answerer, output check, journal, and what finds protective documents.

    Attributes:
        refusals: the texts by which a refusal is known in a conversation that goes on.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self.config = config
        self._parts = parts
        self._rules = [rule.rule() for rule in config.policy.rules]
        self._of_some_texts = {rule.name for rule in self._rules if rule.texts}
        self._grounding = {rule.name: rule.ground_answer for rule in config.policy.rules}
        self._texts = AnswerTexts(config.answers, {rule.name: rule.say for rule in config.policy.rules if rule.say})
        self._detector = Detector(self._texts.languages)
        self.refusals = self._texts.refusals if config.conversation.forget_refused else frozenset()
        threads = config.classifier.workers
        self._classify = Runner("classifier", deadline_s=config.classifier.deadline_s, workers=threads)
        self._ground = Runner(
            "knowledge", deadline_s=config.knowledge.deadline_s, workers=config.interpretation.workers
        )
        self._check = Runner("output", deadline_s=config.output.deadline_s, workers=threads)
        self._write = Runner("journal", deadline_s=config.journal.deadline_s)
        self._protection = Protection(config.policy, parts.protector, self._texts, self._ground)

    async def decide(self, turns: Sequence[Turn], origin: Origin = UNKNOWN) -> Decision:
        """Judge a conversation.

        The last turn that the user writes decides; of several messages in a row, the strictest. Earlier turns, system
        messages that are not trusted and tools' results can only make the route, or its `ground_answer`, stricter, when
        they are Unsafe, refused themselves or named by their rule; so can the last turns taken together, when the
        classifier is sure (`conversation.context_from`) that they are, or that they show a person in distress.
        Assistant turns, which a client can make up, pass the output door's check.

        Raises:
            BadRequest: there is no text to judge, or it is too long.
        """
        return await self._decide(turns, self._texts_to_judge(turns), origin)

    async def admit(
        self,
        turns: Sequence[Turn],
        origin: Origin = UNKNOWN,
        *,
        unjudged: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
        answers: bool = True,
    ) -> tuple[Decision, Reply | None]:
        """Decide on a request, write the decision down, and answer it unless it is to be forwarded.

        Args:
            turns: its texts.
            origin: where it comes from.
            unjudged: what of it goes on unjudged, for the decision.
            removed: what of it was taken out, for the decision.
            answers: whether it can be answered in words; else only a refusal keeps it from the model, since nobody
                reads what the model returns.

        Returns:
            The decision, and Airlock's own reply; None when the request goes on to the model, or when a part failed
            or the decision could not be written, and the request is refused for that (``decision.cause`` is set). A
            person in distress is told where help is, also when a part failed.

        Raises:
            BadRequest: the request cannot be judged.
        """
        started = time.perf_counter()
        texts = self._texts_to_judge(turns)
        decision = await self._decide(turns, texts, origin)
        decision = replace(decision, unjudged=unjudged, removed=removed)
        if not answers:
            decision = _wordless(decision)
        question = "\n".join(text for where, text in texts if where is TextKind.LAST_TURN)
        if decision.route is Route.GROUND:
            decision, reply = await self._answer(decision, question)
        else:
            reply = self._own_reply(decision)
            if decision.protect and reply is not None:
                decision, reply = await self._protection.beside(decision, question, reply)
        decision = replace(decision, timings_ms={**decision.timings_ms, "decide": _since(started)})
        try:
            await self.record(decision, question)
        except JournalError as exc:
            return replace(decision, route=Route.REFUSE, rule=ON_ERROR, cause=str(exc)), None
        return decision, reply

    async def ask(self, question: str) -> GroundedAnswer:
        """A grounded answer, whatever the tier.

        Raises:
            PartFailure: the knowledge base failed or answered rubbish.
        """
        try:
            return await self._ground.run(lambda: sound_answer(self._parts.answerer.answer(question)))
        except BadRequest as exc:  # what was found or said is beyond a limit of `grounding`: no fault of the asker
            raise PartFailure("knowledge", str(exc)) from exc

    async def ground(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """What passages, or without any the knowledge base, say of each sentence of an answer.

        Raises:
            BadRequest: the answer is empty, or it or the passages are beyond a limit of `grounding`.
            PartFailure: the knowledge base failed or answered rubbish.
        """
        return await self._ground.run(lambda: sound_report(self._parts.answerer.check(answer, passages), answer))

    async def find(self, texts: Sequence[str]) -> Finding | None:
        """Why a text of the model must not leave, or None.

        Raises:
            PartFailure: the check failed, and `policy.on_error` is not `forward`.
        """
        try:
            return await self._find(texts)
        except PartFailure as exc:
            if self.config.policy.on_error != "forward":
                raise
            log.error("output passes unchecked, as policy.on_error says: %s", exc)
            return None

    async def record(self, decision: Decision, prompt: str) -> None:
        """Write a decision into the journal.

        Raises:
            JournalError: it could not be written, and `journal.on_error` is `refuse`.
        """
        try:
            await self._write.wait(self._parts.journal.decided(decision, prompt))
        except (JournalError, PartFailure) as exc:
            log.error("decision %s: %s", decision.id, exc)
            if self.config.journal.on_error == "refuse":
                raise JournalError(str(exc)) from exc

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str = "") -> None:
        """Write how a request ended; by then nothing can be refused, so a failure is only logged."""
        passed = (time.time() - decision.created) * 1000
        try:
            writing = self._parts.journal.ended(decision, outcome, status=status, detail=detail, ms=round(passed, 1))
            await self._write.wait(writing)
        except (JournalError, PartFailure) as exc:
            log.error("decision %s: %s", decision.id, exc)

    def refusal(self, decision: Decision, kind: Kind = "refuse") -> Reply:
        """The refusal text for a decision: `refuse` for a request, `stopped` for the model's own answer."""
        return self._texts.reply(kind, decision, refused=True)

    def comfort(self, decision: Decision) -> str:
        """What a person in distress is told first, also by an error; empty for everybody else."""
        return self._texts.comfort(decision)

    def abstention(self, decision: Decision) -> str:
        """What is said where no trusted source supports an answer."""
        return self._texts.reply("abstain", decision).text

    @property
    def hold_back(self) -> int:
        """Characters of a stream that are kept back: what is configured, or more if a check reaches further."""
        return max(self.config.output.hold_back, self._parts.output.reach)

    def close(self) -> None:
        """Let go of the journal, and wait a moment for calls that are ending."""
        self._parts.journal.close()
        for runner in (self._classify, self._ground, self._check, self._write):
            runner.close()

    async def _decide(self, turns: Sequence[Turn], texts: Sequence[tuple[TextKind, str]], origin: Origin) -> Decision:
        started = time.perf_counter()
        language = self._language(texts)
        try:
            verdicts = await self._classify.run(self._verdicts, [text for _, text in texts])
            judged = [
                _Judged(where, verdict, *decide(self._rules, verdict, where))
                for (where, _), verdict in zip(texts, verdicts, strict=True)
            ]
        except PartFailure as exc:
            return self._failed(exc, started, Decision(Route.REFUSE, ON_ERROR, language=language, origin=origin))
        counting = list(filter(self._counts, judged))
        strictest = max(counting, key=self._strictness)
        decision = Decision(
            strictest.route,
            strictest.rule,
            strictest.verdict,
            strictest.where.value,
            language=language,
            distress=self._distress(judged),
            origin=origin,
        )
        try:
            finding = await self._find([turn.text for turn in turns if turn.role == "assistant" and turn.text.strip()])
        except PartFailure as exc:
            return self._failed(exc, started, decision)
        if finding:
            decision = replace(decision, route=Route.REFUSE, rule=finding.rule, judged="assistant_turn")
        elif decision.route is Route.FORWARD:
            decision = replace(decision, ground_answer=self._grounding.get(decision.rule, AnswerGrounding.OFF))
        else:
            refusing = (each.rule for each in counting if each.route is Route.REFUSE)
            decision = replace(decision, protect=self._protection.wanted(decision, refusing))
        return replace(decision, timings_ms={"classify": _since(started)})

    def _language(self, texts: Sequence[tuple[TextKind, str]]) -> str | None:
        """Of the last turn, or else of the last turns together."""
        last = "\n".join(text for where, text in texts if where is TextKind.LAST_TURN)
        together = [text for where, text in texts if where is TextKind.CONTEXT]
        return next(filter(None, map(self._detector.language, (last, *together))), None)

    def _distress(self, judged: Sequence[_Judged]) -> str | None:
        """Category of the text that shows a person in distress, the likeliest of those that have a say."""
        shown = [
            each.verdict
            for each in judged
            if each.verdict.handling is Handling.SUPPORT and (each.where is TextKind.LAST_TURN or self._counts(each))
        ]
        return max(shown, key=lambda verdict: verdict.probability).category if shown else None

    def _own_reply(self, decision: Decision) -> Reply | None:
        """What Airlock says by itself on a route; None where the model answers, or a part failed."""
        if decision.route is Route.HAND_OVER:
            return self._texts.reply("hand_over", decision)
        if decision.route is not Route.REFUSE:
            return None
        if decision.cause is None:
            return self.refusal(decision)
        return self._texts.reply("unavailable", decision) if self.comfort(decision) else None

    def _kind(self, turn: Turn) -> TextKind | None:
        """What a turn is before it is known which one is last; None for what is not judged."""
        if turn.role == "assistant" or turn.role in self.config.conversation.trusted_roles:
            return None
        return _KINDS.get(turn.role, TextKind.EARLIER_TURN)

    def _texts_to_judge(self, turns: Sequence[Turn]) -> list[tuple[TextKind, str]]:
        """Each text that is judged, the last turn's first and in order."""
        written = [bool(turn.text.strip()) for turn in turns]
        kinds = [self._kind(turn) if there else None for turn, there in zip(turns, written, strict=True)]
        users = [at for at, kind in enumerate(kinds) if kind is TextKind.EARLIER_TURN]
        if users:
            ends = [at for at, turn in enumerate(turns) if turn.role in _ENDS_A_TURN and at < users[-1]]
            last = [at for at in users if at > max(ends, default=-1)]
        else:  # then whatever the model would answer to is judged as if a user had written it
            last = [at for at, there in enumerate(written) if there][-1:]
            kinds = [
                kind or TextKind.EARLIER_TURN if there else None for kind, there in zip(kinds, written, strict=True)
            ]
        if not last:
            raise BadRequest("there is no text to judge; send a message with text", param="messages", code="no_text")
        texts = [(TextKind.LAST_TURN, turns[at].text) for at in last]
        texts += [(kind, turns[at].text) for at, kind in enumerate(kinds) if kind and at not in last]
        settings = self.config.conversation
        together = [turns[at].text for at, kind in enumerate(kinds) if kind and kind not in _NOT_TOGETHER]
        together = together[-settings.context_turns :]
        if len(together) > 1:
            texts.append((TextKind.CONTEXT, "\n".join(together)[-settings.context_characters :]))
        return texts

    def _counts(self, judged: _Judged) -> bool:
        """Whether a text has a say: the last turn always, the others only where they make the route stricter."""
        verdict = judged.verdict
        strict = judged.route is Route.REFUSE or verdict.tier is Tier.UNSAFE or judged.rule in self._of_some_texts
        if judged.where is TextKind.CONTEXT:
            sure = verdict.tiers[verdict.tier] >= self.config.conversation.context_from
            return sure and (strict or verdict.handling is Handling.SUPPORT)
        return strict or judged.where is TextKind.LAST_TURN

    def _strictness(self, judged: _Judged) -> tuple[int, int, Tier, bool]:
        grounding = _GROUNDING.index(self._grounding.get(judged.rule, AnswerGrounding.OFF))
        last = judged.where is TextKind.LAST_TURN
        return _STRICTNESS.index(judged.route), grounding, judged.verdict.tier, last

    def _verdicts(self, texts: Sequence[str]) -> list[Verdict]:
        return sound_verdicts(self._parts.classifier.classify(texts), len(texts))

    async def _find(self, texts: Sequence[str]) -> Finding | None:
        if not texts:
            return None
        try:
            findings = await self._check.run(lambda: sound_findings(self._parts.output.check(list(texts)), len(texts)))
        except BadRequest as exc:  # the model's text is longer than can be judged
            raise PartFailure("output", str(exc)) from exc
        return next((finding for finding in findings if finding is not None), None)

    async def _answer(self, decision: Decision, question: str) -> tuple[Decision, Reply | None]:
        started = time.perf_counter()
        try:
            answer = await self.ask(question)
        except PartFailure as exc:
            failed = self._failed(exc, started, decision)
            return failed, self._own_reply(failed)
        decision = replace(decision, timings_ms={**decision.timings_ms, "ground": _since(started)})
        one_sided = answer.positions is not None and len(answer.positions) < self.config.policy.min_positions
        if not answer.abstained and not one_sided:
            return decision, self._texts.grounded(decision, answer)
        match self.config.policy.on_abstain:
            case "forward":
                return replace(decision, route=Route.FORWARD), None
            case "refuse":
                return replace(decision, route=Route.REFUSE), self.refusal(decision)
            case "hand_over":
                return replace(decision, route=Route.HAND_OVER), self._texts.reply("hand_over", decision)
            case "abstain":
                return decision, self._texts.reply("abstain", decision)

    def _failed(self, failure: AirlockError, started: float, known: Decision) -> Decision:
        """What is done when a part failed, with all that is known of the request."""
        timings = {**known.timings_ms, "failed": _since(started)}
        route = Route(self.config.policy.on_error)
        decision = replace(known, route=route, rule=ON_ERROR, cause=str(failure), timings_ms=timings)
        log.error("decision %s: %s -> %s", decision.id, failure, decision.route.value)
        return decision


def _wordless(decision: Decision) -> Decision:
    """For a request that is not answered in words."""
    unanswerable = decision.cause is None and decision.route in (Route.GROUND, Route.HAND_OVER)
    route = Route.FORWARD if unanswerable else decision.route
    return replace(decision, route=route, ground_answer=AnswerGrounding.OFF, protect=False)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
