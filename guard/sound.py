"""What parts return is data from outside: refuse rubbish before anything is decided by it."""

from __future__ import annotations

import math

from classifier.types import Handling, Tier, Verdict
from guard.errors import PartFailure
from guard.types import Finding
from rag.types import GroundedAnswer, GroundingReport, Status

_TIERS = frozenset(Tier)


def sound_verdicts(verdicts: object, expected: int) -> list[Verdict]:
    """The verdicts, if there is a sound one for each text.

    Raises:
        PartFailure: there is not.
    """
    if not isinstance(verdicts, list) or len(verdicts) != expected:
        raise rubbish("classifier", f"no list of {expected} verdicts")
    for verdict in verdicts:
        if not isinstance(verdict, Verdict) or verdict.tiers.keys() != _TIERS:
            raise rubbish("classifier", "not a verdict with a probability for each tier")
        if not isinstance(verdict.tier, Tier) or not isinstance(verdict.handling, Handling):
            raise rubbish("classifier", "a tier or handling that does not exist")
        if not isinstance(verdict.sure, bool):
            raise rubbish("classifier", "neither sure nor unsure")
        total = sum(verdict.tiers.values())
        if not math.isclose(total, 1.0, abs_tol=1e-3) or min(verdict.tiers.values()) < 0:
            raise rubbish("classifier", f"the tiers' probabilities sum to {total:g}")
        if not (0 <= verdict.coverage.read <= 1 and 0 <= verdict.probability <= 1):
            raise rubbish("classifier", "a share that is not between 0 and 1")
        if not all(0 <= probability <= 1 for probability in verdict.categories.values()):
            raise rubbish("classifier", "a category's probability that is not between 0 and 1")
    return verdicts


def sound_findings(findings: object, expected: int) -> list[Finding | None]:
    """The findings, if there is one or None for each text.

    Raises:
        PartFailure: there is not.
    """
    if not isinstance(findings, list) or len(findings) != expected:
        raise rubbish("output", f"no list of {expected} findings")
    if not all(finding is None or isinstance(finding, Finding) for finding in findings):
        raise rubbish("output", "neither a finding nor None")
    return findings


def sound_answer(answer: object) -> GroundedAnswer:
    """The answer, if it is an abstention, or text of which every word is a quote or rests on one.

    Raises:
        PartFailure: it is neither.
    """
    if not isinstance(answer, GroundedAnswer):
        raise rubbish("knowledge", "not a grounded answer")
    rest = list(answer.answer)
    for citation in answer.citations:
        span = slice(citation.answer_start, citation.answer_end)
        said = answer.answer[span]
        misquoted = said != citation.quote if citation.verbatim else not said
        if citation.status is not Status.SUPPORTED or not citation.quote or misquoted:
            raise rubbish("knowledge", f"a citation of {citation.document!r} is not in the answer")
        if not math.isfinite(citation.score):
            raise rubbish("knowledge", f"a citation's score is {citation.score}")
        rest[span] = " " * len(said)
    _sound_positions(answer)
    lead = answer.citations[: len({(each.citation.document, each.citation.start) for each in answer.premises})]
    if any(premise.citation not in lead for premise in answer.premises):
        raise rubbish("knowledge", "a premise is put right by no sentence that the answer begins with")
    if not isinstance(answer.related, bool) or (answer.related and (answer.abstained or answer.premises)):
        raise rubbish("knowledge", "`related` of no answer, or of one that puts a premise right")
    if "".join(rest).strip() or answer.abstained != (not answer.citations):
        raise rubbish("knowledge", "the answer holds words that no citation supports")
    return answer


def sound_report(report: object, answer: str) -> GroundingReport:
    """The report, if it is on this answer, and keeps and cites nothing that is not supported.

    Raises:
        PartFailure: it is not.
    """
    if not isinstance(report, GroundingReport) or report.answer != answer:
        raise rubbish("knowledge", "not a report on this answer")
    kept = [checked for checked in report.sentences if checked.status is Status.SUPPORTED]
    if any(answer[checked.start : checked.end] != checked.text for checked in report.sentences):
        raise rubbish("knowledge", "a sentence is not in the answer")
    if report.kept and (report.abstained or not all(checked.text in report.kept for checked in kept) or not kept):
        raise rubbish("knowledge", "what is kept is not what is supported")
    supported = {(checked.start, checked.end) for checked in kept}
    for citation in report.citations:
        if citation.status is not Status.SUPPORTED or (citation.answer_start, citation.answer_end) not in supported:
            raise rubbish("knowledge", "a citation of a sentence that is not supported")
    _sound_positions(report)
    scores = [*(checked.score for checked in report.sentences), *(citation.score for citation in report.citations)]
    if not all(map(math.isfinite, scores)):
        raise rubbish("knowledge", "a score that is no number")
    return report


def _sound_positions(found: GroundedAnswer | GroundingReport) -> None:
    if found.positions is not None and not all(isinstance(position, str) for position in tuple(found.positions)):
        raise rubbish("knowledge", "positions that are no texts")


def rubbish(part: str, what: str) -> PartFailure:
    """The failure of a part that returned what cannot be."""
    return PartFailure(part, f"returned rubbish: {what}")
