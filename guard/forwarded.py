"""Hold a model's own answers against the knowledge base, as the policy asks, and say what may leave of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from guard.engine import Guard
from guard.errors import BadRequest, PartFailure
from guard.sound import rubbish
from guard.types import AnswerGrounding, Decision, ms_since
from rag.types import Checked, Citation, GroundingReport, Status

log = logging.getLogger("airlock")


class Standing(StrEnum):
    """What came of one answer."""

    SUPPORTED = "supported"  # every sentence is
    UNGROUNDED = "ungrounded"  # it leaves whole, and some sentence is not supported, or it is one-sided
    TRIMMED = "trimmed"  # what is not supported was taken out
    ABSTAINED = "abstained"  # too little was supported, or one side: Airlock's own text stands in its place
    FAILED = "failed"  # it leaves whole and could not be checked
    EMPTY = "empty"  # it has no text, so there was nothing to check


_WARNINGS = {
    Standing.UNGROUNDED: "ungrounded",
    Standing.FAILED: "ungrounded",
    Standing.TRIMMED: "trimmed",
    Standing.ABSTAINED: "abstained",
}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of a model.

    Attributes:
        choice: its index.
        text: its content.
        readable: whether all that it says is one text.
        refused: whether the model refused by itself.
        calls: whether it calls tools.
    """

    choice: int
    text: str
    readable: bool = True
    refused: bool = False
    calls: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A sentence of an answer with its place in what leaves; ``start`` is None for one that was taken out."""

    checked: Checked
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class Grounded:
    """One answer after its check.

    Attributes:
        said: as the model gave it.
        standing: what came of it.
        text: what leaves as its content.
        sentences: of the model's answer, in order.
        citations: one for each supported sentence, by its place in `text`.
        reason: why it was not checked, or is one-sided, for the client.
        cause: the failure behind that, for the journal.
    """

    said: Said
    standing: Standing
    text: str
    sentences: tuple[Placed, ...] = ()
    citations: tuple[Citation, ...] = ()
    reason: str = ""
    cause: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The form of the `airlock` object."""
        return {
            "choice": self.said.choice,
            "status": self.standing.value,
            "reason": self.reason or None,
            "sentences": [
                {
                    "start": placed.start,
                    "end": placed.end,
                    "status": placed.checked.status.value,
                    "rule": placed.checked.rule,
                    "score": round(placed.checked.score, 4),
                }
                for placed in self.sentences
            ],
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of all answers to one request.

    Attributes:
        answers: one for each choice.
        ms: milliseconds that it took.
    """

    answers: tuple[Grounded, ...]
    ms: float

    @property
    def warnings(self) -> list[str]:
        """For the header."""
        found = {_WARNINGS[answer.standing] for answer in self.answers if answer.standing in _WARNINGS}
        return sorted(found)

    @property
    def outcome(self) -> str:
        """For the journal."""
        standings = [answer.standing for answer in self.answers if answer.standing is not Standing.EMPTY]
        if not standings:
            return "answered"
        if any(standing in (Standing.UNGROUNDED, Standing.FAILED) for standing in standings):
            return "ungrounded"
        return "abstained" if all(standing is Standing.ABSTAINED for standing in standings) else "grounded"

    @property
    def detail(self) -> str:
        """The same in figures."""
        statuses = [placed.checked.status for answer in self.answers for placed in answer.sentences]
        figures = f"{statuses.count(Status.SUPPORTED)} of {len(statuses)} sentences supported in {self.ms:g} ms"
        causes = dict.fromkeys(answer.cause or answer.reason for answer in self.answers)
        return "; ".join([figures, *filter(None, causes)])


async def ground_answers(guard: Guard, decision: Decision, answers: Sequence[Said]) -> Summary:
    """Hold each answer against the knowledge base.

    Raises:
        PartFailure: it failed where grounding is required, and `policy.on_error` is not `forward` for it.
    """
    started = time.perf_counter()
    grounded = [await _ground(guard, decision, said) for said in answers]
    return Summary(tuple(grounded), ms_since(started))


async def _ground(guard: Guard, decision: Decision, said: Said) -> Grounded:
    required = decision.ground_answer is AnswerGrounding.REQUIRE
    if required and said.refused:
        return _withheld(guard, decision, said, reason="the model refused")
    if said.readable and not said.text.strip():
        return Grounded(said, Standing.EMPTY, said.text)
    try:
        if not said.readable:
            raise BadRequest("answer: it is not one text")
        report = await guard.ground(said.text)
        return _required(guard, decision, said, report) if required else _annotated(guard, said, report)
    except BadRequest as exc:  # it cannot be checked, so nothing of it is known to be supported
        if required:
            return _withheld(guard, decision, said, reason=str(exc))
        return Grounded(said, Standing.FAILED, said.text, reason=str(exc))
    except PartFailure as exc:
        if required and guard.config.policy.on_error.knowledge != "forward":
            raise
        log.error("decision %s: the answer passes ungrounded: %s", decision.id, exc)
        return Grounded(said, Standing.FAILED, said.text, reason="the check failed", cause=str(exc))


def _annotated(guard: Guard, said: Said, report: GroundingReport) -> Grounded:
    one_sided = _one_sided(guard, report)
    standing = Standing.SUPPORTED if report.supported and not one_sided else Standing.UNGROUNDED
    cited = _cited(report)
    sentences = tuple(Placed(checked, checked.start, checked.end) for checked in report.sentences)
    return Grounded(said, standing, said.text, sentences, tuple(cited.values()), one_sided)


def _required(guard: Guard, decision: Decision, said: Said, report: GroundingReport) -> Grounded:
    one_sided = _one_sided(guard, report)
    if report.abstained or not report.kept or one_sided:
        taken_out = tuple(Placed(checked, None, None) for checked in report.sentences)
        return _withheld(guard, decision, said, taken_out, one_sided)
    cited = _cited(report)
    sentences = _placed(report)
    citations = tuple(
        replace(cited[placed.checked.start], answer_start=placed.start, answer_end=placed.end)
        for placed in sentences
        if placed.start is not None and placed.end is not None
    )
    standing = Standing.SUPPORTED if report.supported else Standing.TRIMMED
    return Grounded(said, standing, report.kept, sentences, citations)


def _withheld(
    guard: Guard, decision: Decision, said: Said, sentences: tuple[Placed, ...] = (), reason: str = ""
) -> Grounded:
    """Nothing of the content leaves; in place of it the text of an abstention, unless tools are called."""
    if said.calls:
        return Grounded(said, Standing.TRIMMED, "", sentences, reason=reason)
    return Grounded(said, Standing.ABSTAINED, guard.abstention(decision), sentences, reason=reason)


def _one_sided(guard: Guard, report: GroundingReport) -> str:
    """What is said of an answer that rests on a disputed document and gives too few positions; empty of others."""
    least = guard.config.policy.min_positions
    if report.positions is None or len(report.positions) >= least:
        return ""
    return f"it gives {len(report.positions)} of at least {least} positions on a disputed topic"


def _cited(report: GroundingReport) -> dict[int, Citation]:
    """The citation of each supported sentence, by where the sentence starts.

    Raises:
        PartFailure: one has none.
    """
    cited = {citation.answer_start: citation for citation in report.citations}
    if any(checked.status is Status.SUPPORTED and checked.start not in cited for checked in report.sentences):
        raise rubbish("knowledge", "a supported sentence without a citation")
    return cited


def _placed(report: GroundingReport) -> tuple[Placed, ...]:
    """Every sentence, the supported ones with their places in what is kept.

    Raises:
        PartFailure: what is kept has other words than theirs.
    """
    placed = []
    end = 0
    for checked in report.sentences:
        if checked.status is not Status.SUPPORTED:
            placed.append(Placed(checked, None, None))
            continue
        start = report.kept.find(checked.text, end)
        _hold_no_word(report.kept[end:start] if start >= 0 else report.kept)
        end = start + len(checked.text)
        placed.append(Placed(checked, start, end))
    _hold_no_word(report.kept[end:])
    return tuple(placed)


def _hold_no_word(between: str) -> None:
    """What stands between two sentences is white space, list markers and numbers."""
    if any(character.isalpha() for character in between):
        raise rubbish("knowledge", "words are kept that are in no supported sentence")
