"""Answer a question from the knowledge base, or abstain; check an answer that somebody else gave."""

from __future__ import annotations

from collections.abc import Sequence

from rag.grounding import check_answer, compose, ground
from rag.interpret import InterpretationModel
from rag.retrieve import retrieve
from rag.segments import segments
from rag.store import KnowledgeBase
from rag.types import DEFAULT_GATE, Gate, GroundedAnswer, GroundingReport, InputError, Passage, SupportModel

MAX_QUESTION = 1000  # characters; an encoder reads a few hundred words
MAX_SEARCHED = 50  # sentences of an answer that are looked up


class Answerer:
    """Questions in, grounded answers out.

    Args:
        knowledge: where every quote must stand.
        interpreter: proposes an answer; what it cannot prove is taken out.
        k: passages to look at.
        support: judges paraphrases; without one only quotes are left.
        gate: how strict the citation gate is.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        interpreter: InterpretationModel,
        k: int = 3,
        *,
        support: SupportModel | None = None,
        gate: Gate = DEFAULT_GATE,
    ) -> None:
        self.knowledge = knowledge
        self._interpreter = interpreter
        self._k = k
        self._support = support
        self._gate = gate

    def answer(self, question: str) -> GroundedAnswer:
        """An answer whose every sentence is cited, or an abstention; a long question is read up to `MAX_QUESTION`."""
        question = question.encode("utf-8", "replace").decode("utf-8").strip()[:MAX_QUESTION]
        if not question:
            return compose((), ())
        evidence = retrieve(self.knowledge, question, self._k)
        answer = self._interpreter.answer(question, evidence, self.knowledge.documents)
        return ground(
            answer, evidence, self.knowledge.documents, self.knowledge.check, support=self._support, gate=self._gate
        )

    def check(self, answer: str, passages: Sequence[str] | None = None) -> GroundingReport:
        """Hold an answer against passages; without any, against what the knowledge base has for each sentence.

        Raises:
            InputError: the answer is empty, or it or the passages are beyond a limit.
        """
        evidence: Sequence[str | Passage] = self._evidence(answer) if passages is None else passages
        return check_answer(answer, evidence, support=self._support, gate=self._gate)

    def _evidence(self, answer: str) -> list[Passage]:
        if len(answer) > self._gate.answer_characters:
            return []  # refused by the check
        found = segments(answer)
        if len(found) > MAX_SEARCHED:
            raise InputError(
                f"{len(found)} sentences, at most {MAX_SEARCHED} are looked up; split it, or give passages", "answer"
            )
        said = (answer[each.start : each.end].encode("utf-8", "replace").decode("utf-8") for each in found)
        items = [item for words in said for item in self.knowledge.search(words[:MAX_QUESTION], self._k)]
        return list({item.passage.id: item.passage for item in items}.values())
