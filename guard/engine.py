"""The engine: judge a conversation, pick the route, answer what is not forwarded; whatever fails, fails closed."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from classifier.taxonomy import Taxonomy
from classifier.types import Verdict
from guard.batching import Batches
from guard.choosing import Choice, Taxonomies, first_of
from guard.config import Config, changed_settings
from guard.conversation import Texts, field_of, question_of, texts_to_judge
from guard.edition import Edition, Reloaded
from guard.errors import BadRequest, GuardClosed, JournalError, PartFailure
from guard.journal import Journal
from guard.observer import NOBODY, Observers
from guard.protection import Protection
from guard.runner import Runner
from guard.sound import sound_answer, sound_findings, sound_report, sound_verdicts
from guard.texts import Kind
from guard.types import (
    UNKNOWN,
    Answerer,
    AnswerGrounding,
    Asked,
    Classifier,
    Decision,
    ExchangeJudge,
    Explainer,
    Explanation,
    Finding,
    Judgement,
    Origin,
    Protector,
    Reply,
    ResponseCheck,
    Route,
    Turn,
    is_instant,
    ms_since,
)
from guard.wires.types import Reading
from rag.types import GroundedAnswer, GroundingReport, Status

log = logging.getLogger("airlock")

T = TypeVar("T")
ON_ERROR = "on_error"
_MOMENT = 65_536
"""Characters that an instant check reads in a moment."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine is made of; built in `guard.assemble`."""

    classifier: Classifier
    answerer: Answerer
    output: ResponseCheck
    journal: Journal
    protector: Protector | None = None
    judge: ExchangeJudge | None = None  # of answers; needed where `output.responses` names a model
    others: tuple[Choice, ...] = ()  # classifiers of some requests, in order
    taxonomy: Taxonomy | Taxonomies | None = None  # without it, a policy's categories are not looked up
    observers: Observers = NOBODY
    explainer: Explainer | None = None
    of_answers: Classifier | None = None  # judges what the model wrote, as `output` does; without it, `classifier`


class Guard:
    """Judges conversations and answers; async outside, its parts run in worker threads within deadlines.

    Args:
        config: every setting.
        parts: classifier, answerer, output check, journal, and what finds protective documents.

    Raises:
        ConfigError: a category, language or country that a setting names is not known.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self._parts = parts
        self._is_held = self._is_closed = False
        self._edition = Edition.of(config, parts.output, parts.taxonomy, parts.judge)
        threads, told = config.classifier.workers, parts.observers
        self._classify = Runner("classifier", deadline_s=config.classifier.deadline_s, workers=threads, observers=told)
        self._judges = [parts.classifier, *(other.classifier for other in parts.others)]
        self._batches = [Batches(self._classify, partial(self._verdicts, judge)) for judge in self._judges]
        self._concerns = [other.when for other in parts.others]
        self._ground = Runner(
            "knowledge", deadline_s=config.knowledge.deadline_s, workers=config.interpretation.workers, observers=told
        )
        self._check = Runner("output", deadline_s=config.output.deadline_s, workers=threads, observers=told)
        self._write = Runner("journal", deadline_s=config.journal.deadline_s, observers=told)
        self._protection = Protection(parts.protector, self._ground)

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._edition.config

    @property
    def version(self) -> str:
        """Of the settings that can change while the server runs; each decision names it as `policy`."""
        return self._edition.version

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is sound in the settings in force, and surely not meant."""
        return self._edition.warnings

    @property
    def observers(self) -> Observers:
        """Who is told of what happens."""
        return self._parts.observers

    @property
    def unready(self) -> dict[str, str]:
        """The parts that would fail a request now, each with the reason; empty when all is well."""
        runners = (self._classify, self._ground, self._check)
        found = {runner.part: "earlier calls still hang" for runner in runners if runner.is_stuck}
        if self._write.failed_lately and self.config.journal.on_error == "refuse":
            found["journal"] = "it could not be written"
        return found

    @property
    def reading(self) -> Reading:
        """How requests are read."""
        return self._edition.reading

    @property
    def context(self) -> int:
        """Characters of a stream that are kept, once they have left, to be judged with what follows."""
        return self.config.output.responses.context if self._edition.answers else 0

    @property
    def hold_back(self) -> int:
        """Characters of a stream that are kept back: what is configured, or more if a check reaches further."""
        return max(self.config.output.hold_back, self._edition.output.reach)

    def held(self) -> Guard:
        """This guard as it is now, for one request: a later `reload` does not change it."""
        if self._is_held:
            return self
        held = copy.copy(self)
        held._is_held = True
        return held

    def reload(self, config: Config) -> Reloaded:
        """Take over the sections `policy`, `answers`, `conversation` and `output` (but its deadline).

        Requests that have begun go on by what was in force. Safe to call from another thread.

        Raises:
            ConfigError: the configuration cannot be in force; nothing changes.
        """
        old = self._edition
        of_answers = self._parts.of_answers or self._parts.classifier
        new = old.succeeded_by(config, of_answers, self._parts.taxonomy, self._parts.judge)
        self._edition = new
        taken, restart = changed_settings(old.config, new.config), changed_settings(new.config, config)
        return Reloaded(new.version, tuple(taken), tuple(restart))

    async def decide(self, turns: Sequence[Turn], origin: Origin = UNKNOWN) -> Decision:
        """Judge a conversation.

        The last turn that the user writes decides; of several messages in a row, the strictest. Earlier turns, system
        messages that are not trusted and tools' results can only make the route, or its `ground_answer`, stricter, when
        they are Unsafe, refused themselves or named by their rule; so can the last turns taken together, when the
        classifier is sure (`conversation.context_from`) that they are, or that they show a person in distress.
        Assistant turns, which a client can make up, pass the output door's check.

        Raises:
            BadRequest: there is no text to judge, or it is too long.
            GuardClosed: the guard was closed.
        """
        held = self.held()
        return await held._decide(turns, texts_to_judge(turns, held.config.conversation), origin)

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
            GuardClosed: the guard was closed.
        """
        if not self._is_held:
            return await self.held().admit(turns, origin, unjudged=unjudged, removed=removed, answers=answers)
        texts = texts_to_judge(turns, self.config.conversation)
        decision = await self._decide(turns, texts, origin, unjudged=unjudged, removed=removed)
        if not answers:
            decision = _wordless(decision)
        question = question_of(texts)
        if decision.route is Route.GROUND:
            decision, reply = await self._answer(decision, question)
        else:
            reply = self._own_reply(decision)
            if decision.protect and reply is not None:
                decision, reply = await self._protection.beside(decision, question, reply, self._edition.texts)
        decision.timings_ms["decide"] = ms_since(decision.since)
        try:
            await self.record(decision, question)
        except JournalError as exc:
            return replace(decision, route=Route.REFUSE, rule=ON_ERROR, cause=str(exc)), None
        return decision, reply

    def explainer_for(self, origin: Origin) -> Explainer:
        """What explains the verdicts on requests from there.

        Raises:
            BadRequest: they are not explained here.
        """
        if self._parts.explainer is None:
            raise BadRequest(
                "explain: this gateway explains no verdicts; leave it out, or let the operator set "
                "`classifier.explain_tokens`",
                param="explain",
            )
        if first_of(self._concerns, origin) is not None:
            raise BadRequest(
                "explain: one of `classifiers` judged this request, and only verdicts of `classifier` are explained; "
                "leave it out",
                param="explain",
            )
        return self._parts.explainer

    async def explain(self, turns: Sequence[Turn], decision: Decision) -> Explanation | None:
        """Why the text that decided has its verdict; None where there is no verdict.

        Raises:
            BadRequest: verdicts are not explained here.
            PartFailure: it could not be found out, or not in time.
        """
        explainer = self.explainer_for(decision.origin)
        deciding = [each.verdict is decision.verdict for each in decision.judgements]
        if True not in deciding:
            return None
        _, text = texts_to_judge(turns, self.config.conversation)[deciding.index(True)]
        work = 4.0 * self.config.classifier.explain_tokens  # in characters, as of the texts that others wait for
        return await self._classify.run(explainer.explain, text, work=work)

    async def ask(self, question: str) -> GroundedAnswer:
        """A grounded answer, whatever the tier.

        Raises:
            PartFailure: the knowledge base failed or answered rubbish.
        """
        self._check_open()
        try:
            answer = await self._ground.run(lambda: sound_answer(self._parts.answerer.answer(question)))
        except BadRequest as exc:  # what was found or said is beyond a limit of `grounding`: no fault of the asker
            raise PartFailure("knowledge", str(exc)) from exc
        if answer.related and not self.config.policy.related:
            answer = GroundedAnswer("", True, (), answer.searched)
        self.observers.answered(answer.outcome)
        return answer

    async def ground(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """What passages, or without any the knowledge base, say of each sentence of an answer.

        Raises:
            BadRequest: the answer is empty, or it or the passages are beyond a limit of `grounding`.
            PartFailure: the knowledge base failed or answered rubbish.
        """
        self._check_open()
        report = await self._ground.run(
            lambda: sound_report(self._parts.answerer.check(answer, passages), answer), work=len(answer)
        )
        if report.sentences:
            supported = sum(sentence.status is Status.SUPPORTED for sentence in report.sentences)
            self.observers.grounded(supported / len(report.sentences))
        return report

    async def find(
        self, texts: Sequence[str], decision: Decision | None = None, before: Sequence[str] | None = None
    ) -> Finding | None:
        """Why a text of the model must not leave, or None.

        Args:
            texts: of the model, or the stretches of them that are not checked yet.
            decision: on the request that they answer; with it, and where `output.responses` says so, they are held
                against what was asked. Rules in shadow mode that find something are kept in its `asked`.
            before: of each stretch, what stands before it in the same text; read with it where that is done.

        Raises:
            PartFailure: the check failed, and `policy.on_error` is not `forward` for it.
        """
        try:
            finding = await self._find(texts)
            if finding is None and decision is not None and decision.asked is not None:
                pieces = [start + text for start, text in zip(before or [""] * len(texts), texts, strict=True)]
                finding = await self._find_in_answers([piece for piece in pieces if piece.strip()], decision.asked)
            return finding
        except PartFailure as exc:
            if self.config.policy.on_error.output != "forward":
                raise
            log.error("output passes unchecked, as policy.on_error says: %s", exc)
            return None

    async def record(self, decision: Decision, prompt: str) -> None:
        """Write a decision into the journal, with the version in force where it names none.

        Raises:
            JournalError: it could not be written, and `journal.on_error` is `refuse`.
        """
        decision = decision if decision.policy else replace(decision, policy=self.version)
        self.observers.decided(decision)
        try:
            await self._written(self._parts.journal.decided(decision, prompt))
        except (JournalError, PartFailure) as exc:
            log.error("decision %s: %s", decision.id, exc)
            if self.config.journal.on_error == "refuse":
                raise JournalError(str(exc)) from exc

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str = "") -> None:
        """Write how a request ended; by then nothing can be refused, so a failure is only logged."""
        passed = (time.perf_counter() - decision.since) * 1000  # the wall clock may jump
        if decision.asked is not None and decision.asked.noticed:
            detail = "; ".join(filter(None, (detail, f"shadow: {', '.join(decision.asked.noticed)}")))
        self.observers.ended(decision, outcome)
        try:
            writing = self._parts.journal.ended(decision, outcome, status=status, detail=detail, ms=round(passed, 1))
            await self._written(writing)
        except (JournalError, PartFailure) as exc:
            log.error("decision %s: %s", decision.id, exc)

    def only_text(self, kinds: Sequence[str], param: str, *, removable: bool = True) -> None:
        """Let parts of a request pass that hold no text, if the operator says so.

        Args:
            kinds: of those parts, such as ``image_url``.
            param: the field that has them, for the error.
            removable: whether `text_only` can take them out of this request; else it refuses them.

        Raises:
            BadRequest: there are some, and `conversation.non_text_parts` does not let them pass.
        """
        refusing = ("refuse",) if removable else ("refuse", "text_only")
        if kinds and self.config.conversation.non_text_parts in refusing:
            how, ways = ("", "`pass` or `text_only`") if removable else (", nor taken out of this call", "`pass`")
            raise BadRequest(
                f"{param}: parts of type {', '.join(kinds)} cannot be judged{how}; send text, or let the operator set "
                f"`conversation.non_text_parts` to {ways}",
                param=param,
                code="unsupported_content",
            )

    def refusal(self, decision: Decision, kind: Kind = "refuse") -> Reply:
        """The refusal text for a decision: `refuse` for a request, `stopped` for the model's own answer."""
        return self._edition.texts.reply(kind, decision, refused=True)

    def comfort(self, decision: Decision) -> str:
        """What a person in distress is told first, also by an error; empty for everybody else."""
        return self._edition.texts.comfort(decision)

    def abstention(self, decision: Decision) -> str:
        """What is said where no trusted source supports an answer."""
        return self._edition.texts.reply("abstain", decision).text

    def warm_up(self) -> None:
        """Load what a first refusal would wait for."""
        self._edition.detector.load()

    def open(self) -> None:
        """Go on after `close`, as an app does that is started once more; else nothing."""
        if self._is_closed:
            self._parts.journal.open()
            for runner in (self._classify, self._ground, self._check, self._write):
                runner.open()
            self._is_closed = False

    def close(self) -> None:
        """Let go of the journal, and wait a moment for calls that are ending; nothing is judged until `open`."""
        self._is_closed = True
        self._parts.journal.close()
        for runner in (self._classify, self._ground, self._check, self._write):
            runner.close()
        self.observers.close()

    async def _decide(
        self,
        turns: Sequence[Turn],
        texts: Texts,
        origin: Origin,
        *,
        unjudged: tuple[str, ...] = (),
        removed: tuple[str, ...] = (),
    ) -> Decision:
        self._check_open()
        draft: Callable[..., Decision] = partial(
            Decision,
            spoken=self._edition.spoken(texts),
            asked=self._edition.asked(turns, texts),
            origin=origin,
            policy=self.version,
            unjudged=unjudged,
            removed=removed,
            created=time.time(),
            since=time.perf_counter(),
        )
        try:
            verdicts = await self._judge([text for _, text in texts], origin)
        except PartFailure as exc:
            return self._failed(exc, draft(Route.REFUSE, ON_ERROR))
        weighed = self._edition.weigh(texts, verdicts, origin)
        rule = weighed.strictest.match.rule
        decision = draft(
            rule.route,
            rule.name,
            weighed.strictest.verdict,
            judged=weighed.strictest.where.value,
            field_name=field_of(turns, texts, verdicts, weighed.strictest),
            distress=weighed.distress,
            shadow=weighed.shadow,
            judgements=tuple(Judgement(where, each) for (where, _), each in zip(texts, verdicts, strict=True)),
            ruled=rule.route,
        )
        try:
            finding = await self.find([turn.text for turn in turns if turn.role == "assistant" and turn.text.strip()])
        except PartFailure as exc:
            return self._failed(exc, decision)
        decision.timings_ms["classify"] = ms_since(decision.since)
        if finding:
            return replace(decision, route=Route.REFUSE, rule=finding.rule, judged="assistant_turn", field_name=None)
        if decision.route is Route.FORWARD:
            grounds = rule.ground_answer is not AnswerGrounding.OFF
            return replace(decision, ground_answer=rule.ground_answer) if grounds else decision
        wanted = self._protection.wanted(decision, weighed.refusing, self.config.policy.on_block)
        return replace(decision, protect=True) if wanted else decision

    async def _judge(self, texts: Sequence[str], origin: Origin) -> list[Verdict]:
        """What the classifier of requests from there says of each text."""
        other = first_of(self._concerns, origin)
        place = 0 if other is None else other + 1
        judge = self._judges[place]
        if is_instant(judge):
            return self._classify.here(lambda: self._verdicts(judge, texts))
        return await self._batches[place].classify(texts)

    async def _written(self, writing: Awaitable[None]) -> None:
        await (writing if is_instant(self._parts.journal) else self._write.wait(writing))

    def _check_open(self) -> None:
        if self._is_closed:
            raise GuardClosed

    def _own_reply(self, decision: Decision) -> Reply | None:
        """What Airlock says by itself on a route; None where the model answers, or a part failed."""
        if decision.route is Route.HAND_OVER:
            return self._edition.texts.reply("hand_over", decision)
        if decision.route is not Route.REFUSE:
            return None
        if decision.cause is None:
            return self.refusal(decision)
        return self._edition.texts.reply("unavailable", decision) if self.comfort(decision) else None

    def _verdicts(self, judge: Classifier, texts: Sequence[str]) -> list[Verdict]:
        return sound_verdicts(judge.classify(texts), len(texts))

    async def _find(self, texts: Sequence[str]) -> Finding | None:
        if not texts:
            return None
        work, check = sum(map(len, texts)), self._edition.output

        def found() -> list[Finding | None]:
            return sound_findings(check.check(list(texts)), len(texts))

        findings = await self._checked(found, work, at_once=is_instant(check) and work <= _MOMENT)
        return next((finding for finding in findings if finding is not None), None)

    async def _find_in_answers(self, answers: Sequence[str], asked: Asked) -> Finding | None:
        check = self._edition.answers
        if check is None or not answers:
            return None
        work = sum(map(len, answers))
        at_once = check.instant and work + len(asked.system) <= _MOMENT
        noticed = await self._checked(lambda: check.check(answers, asked), work, at_once=at_once)
        for rule in noticed.shadow:
            if rule not in asked.noticed:
                self.observers.noticed(rule, stopped=False)
                asked.noticed[rule] = None
        if noticed.finding is not None:
            self.observers.noticed(noticed.finding.rule, stopped=True)
        return noticed.finding

    async def _checked(self, check: Callable[[], T], work: int, *, at_once: bool) -> T:
        """What a check of so many characters of a model says; `at_once` in this thread."""
        try:
            return self._check.here(check) if at_once else await self._check.run(check, work=work)
        except BadRequest as exc:  # what the model wrote is longer than can be judged
            raise PartFailure("output", str(exc)) from exc

    async def _answer(self, decision: Decision, question: str) -> tuple[Decision, Reply | None]:
        started = time.perf_counter()
        try:
            answer = await self.ask(question)
        except PartFailure as exc:
            failed = self._failed(exc, decision)
            return failed, self._own_reply(failed)
        decision.timings_ms["ground"] = ms_since(started)
        one_sided = answer.positions is not None and len(answer.positions) < self.config.policy.min_positions
        if not answer.abstained and not one_sided:
            decision = replace(decision, grounded=answer.outcome, cited=answer.cited)
            return decision, self._edition.texts.grounded(decision, answer)
        decision = replace(decision, grounded="abstained")
        match self.config.policy.on_abstain:
            case "forward":
                return replace(decision, route=Route.FORWARD), None
            case "refuse":
                return replace(decision, route=Route.REFUSE), self.refusal(decision)
            case "hand_over":
                return replace(decision, route=Route.HAND_OVER), self._edition.texts.reply("hand_over", decision)
            case "abstain":
                return decision, self._edition.texts.reply("abstain", decision)

    def _failed(self, failure: PartFailure, known: Decision) -> Decision:
        """What is done when a part failed, with all that is known of the request."""
        route = self.config.policy.on_error.of(failure.part)
        decision = replace(known, route=route, rule=ON_ERROR, cause=str(failure))
        decision.timings_ms["failed"] = ms_since(known.since)
        log.error("decision %s: %s -> %s", decision.id, failure, decision.route.value)
        return decision


def _wordless(decision: Decision) -> Decision:
    """For a request that is not answered in words."""
    unanswerable = decision.cause is None and decision.route in (Route.GROUND, Route.HAND_OVER)
    route = Route.FORWARD if unanswerable else decision.route
    return replace(decision, route=route, ground_answer=AnswerGrounding.OFF, protect=False)
