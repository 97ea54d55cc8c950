"""Answer a question from the knowledge base, or abstain; check an answer that somebody else gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rag.chunking import headings, sentences
from rag.grounding import check_answer, cite, compose, ground, measured
from rag.interpret import InterpretationModel
from rag.mode import DEFAULT_MODE, Mode
from rag.premise import false_premises, put_right
from rag.presupposition import presuppositions
from rag.related import AROUND, Related
from rag.retrieve import from_all_sides, retrieve
from rag.scope import Where
from rag.segments import segments
from rag.store import KnowledgeBase
from rag.types import (
    DEFAULT_GATE,
    Citation,
    Document,
    Evidence,
    Gate,
    GroundedAnswer,
    GroundingReport,
    InputError,
    SupportModel,
)
from rag.view import View

MAX_QUESTION = 1000  # characters; an encoder reads a few hundred words
MAX_SEARCHED = 50  # sentences of an answer that are looked up


class Answerer:
    """Questions in, grounded answers out.

    Args:
        knowledge: where every quote must stand.
        interpreter: proposes an answer; what it cannot prove is taken out.
        k: passages to look at.
        where: metadata that the documents must have; see `View.search`.
        mode: how passages are found.
        support: judges paraphrases; without one only quotes are left.
        gate: how strict the citation gate is.
        related: finds what is said on the topic where nothing answers; without it, that is an abstention.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        interpreter: InterpretationModel,
        k: int = 3,
        *,
        where: Where | None = None,
        mode: Mode = DEFAULT_MODE,
        support: SupportModel | None = None,
        gate: Gate = DEFAULT_GATE,
        related: Related | None = None,
    ) -> None:
        self.knowledge = knowledge
        self._interpreter = interpreter
        self._k = k
        self._where = where
        self._mode = mode
        self._support = support
        self._gate = gate
        self._related = related

    def answer(self, question: str) -> GroundedAnswer:
        """An answer whose every sentence is cited, or an abstention; a long question is read up to `MAX_QUESTION`.

        From the search to the check of the last citation, one state of the knowledge base is seen. Cited are current
        versions of the documents that the evidence comes from. Where nothing answers for sure, what a document says on
        the topic may be quoted as `related`.
        """
        question = question.encode("utf-8", "replace").decode("utf-8").strip()[:MAX_QUESTION]
        if not question:
            return compose((), ())
        with self.knowledge.view() as view:
            found = view.search(question, max(self._k, AROUND), where=self._where, mode=self._mode)
            evidence = from_all_sides(view, question, found[: self._k], self._k, mode=self._mode)
            answer = self._interpreted(view, self._interpreter, question, evidence)
            claims = presuppositions(question)
            if claims:
                evidence += self._beside(view, claims, evidence)
                documents = _documents(view, evidence)
                false = false_premises(claims, evidence, documents, support=self._support, gate=self._gate)
                answer = put_right(answer, false, lambda answer: self._gated(view, answer, evidence))
            if answer.abstained and self._related is not None:
                evidence = from_all_sides(view, question, self._related.of(found)[: self._k], self._k, mode=self._mode)
                near = self._interpreted(view, self._related.interpreter, question, evidence)
                answer = answer if near.abstained else replace(near, related=True)
            return replace(answer, positions=positions(answer.citations, _documents(view, evidence)))

    def check(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """Hold an answer against passages; without any, against what the knowledge base has for each sentence.

        What the knowledge base supports is cited, from one state of it. The score of a citation is the similarity of
        its passage to the sentence of the answer that is most like it.

        Raises:
            InputError: the answer is empty, or it or the passages are beyond a limit.
        """
        if passages is not None:
            return check_answer(answer, passages, support=self._support, gate=self._gate)
        with self.knowledge.view() as view:
            found = self._evidence(view, answer)
            documents = _documents(view, found)
            places = [item.passage for item in found]
            report = check_answer(answer, places, support=self._support, gate=self._gate, documents=documents)
            report = cite(report, found, documents, lambda citation: view.check(citation, current=True))
            return replace(report, positions=positions(report.citations, documents))

    def _interpreted(
        self, view: View, interpreter: InterpretationModel, question: str, evidence: Sequence[Evidence]
    ) -> GroundedAnswer:
        """What an interpretation model says, as far as it passes the citation gate."""
        return self._gated(view, interpreter.answer(question, evidence, _documents(view, evidence)), evidence)

    def _gated(self, view: View, answer: GroundedAnswer, evidence: Sequence[Evidence]) -> GroundedAnswer:
        documents = _documents(view, evidence)

        def check(citation: Citation) -> bool:
            return citation.document in documents and view.check(citation, current=True)

        return ground(answer, evidence, documents, check, support=self._support, gate=self._gate)

    def _beside(self, view: View, claims: Sequence[str], evidence: Sequence[Evidence]) -> list[Evidence]:
        """What is found for the claims of a question, and not for its own words."""
        known = {item.passage.id for item in evidence}
        found = (
            item for claim in claims for item in retrieve(view, claim, self._k, where=self._where, mode=self._mode)
        )
        return _best(item for item in found if item.passage.id not in known)

    def _evidence(self, view: View, answer: str) -> list[Evidence]:
        """What the knowledge base has for each sentence."""
        found = segments(measured(answer, (), self._gate))
        if len(found) > MAX_SEARCHED:
            raise InputError(
                f"{len(found)} sentences, at most {MAX_SEARCHED} are looked up; split it, or give passages", "answer"
            )
        said = (answer[each.start : each.end][:MAX_QUESTION] for each in found)
        items = (item for words in said for item in view.search(words, self._k, where=self._where, mode=self._mode))
        return _best(items)


def positions(citations: Sequence[Citation], documents: Mapping[str, Document]) -> tuple[str, ...] | None:
    """The headings of the positions on a disputed topic that are quoted; None where no disputed document is.

    A document names them in `positions`; without, every section does but what stands under its title.
    """
    disputed = [citation for citation in citations if documents[citation.document].disputed]
    if not disputed:
        return None
    found: list[str] = []
    for citation in disputed:
        document = documents[citation.document]
        known = _named(document)
        for sentence in sentences(document.text):
            if sentence.start <= citation.start < sentence.end and sentence.section.heading in known:
                found.append(sentence.section.heading)
    return tuple(dict.fromkeys(found))


def _best(found: Iterable[Evidence]) -> list[Evidence]:
    """Each passage once, as it was found with the highest score."""
    best: dict[str, Evidence] = {}
    for item in found:
        known = best.setdefault(item.passage.id, item)
        if item.score > known.score:
            best[item.passage.id] = item
    return list(best.values())


def _documents(view: View, evidence: Sequence[Evidence]) -> dict[str, Document]:
    """By id, those that the evidence comes from."""
    return {name: view.document(name) for name in {item.passage.document for item in evidence}}


def _named(document: Document) -> Sequence[str]:
    named = document.metadata.get("positions")
    if named:
        return [named] if isinstance(named, str) else named
    return headings(document.text)[1:]
