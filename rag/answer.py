"""Answer a question from the knowledge base: retrieve, interpret, check every citation; or abstain."""

from __future__ import annotations

from rag.grounding import compose, ground
from rag.interpret import InterpretationModel
from rag.retrieve import retrieve
from rag.store import KnowledgeBase
from rag.types import DEFAULT_GATE, Gate, GroundedAnswer, SupportModel

MAX_QUESTION = 1000  # characters; an encoder reads a few hundred words


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
