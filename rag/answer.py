"""Answer a question from the knowledge base: retrieve, interpret, check every citation; or abstain."""

from __future__ import annotations

from rag.grounding import compose, ground
from rag.interpret import InterpretationModel
from rag.retrieve import retrieve
from rag.store import KnowledgeBase
from rag.types import GroundedAnswer

MAX_QUESTION = 1000  # characters; an encoder reads a few hundred words


class Answerer:
    """Questions in, grounded answers out.

    Args:
        knowledge: where every quote must stand.
        interpreter: proposes an answer; what it cannot prove is taken out.
        k: passages to look at.
    """

    def __init__(self, knowledge: KnowledgeBase, interpreter: InterpretationModel, k: int = 3) -> None:
        self.knowledge = knowledge
        self._interpreter = interpreter
        self._k = k

    def answer(self, question: str) -> GroundedAnswer:
        """An answer whose every sentence is cited, or an abstention; a long question is read up to `MAX_QUESTION`."""
        question = question.encode("utf-8", "replace").decode("utf-8").strip()[:MAX_QUESTION]
        if not question:
            return compose((), ())
        evidence = retrieve(self.knowledge, question, self._k)
        answer = self._interpreter.answer(question, evidence, self.knowledge.documents)
        return ground(answer, self.knowledge.check)
