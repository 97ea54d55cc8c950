"""Answer a question from the knowledge base: retrieve, interpret, check every citation; or abstain."""

from __future__ import annotations

from rag.grounding import compose, ground
from rag.interpret import InterpretationModel
from rag.retrieve import retrieve
from rag.scope import Where
from rag.store import KnowledgeBase
from rag.types import DEFAULT_MODE, Citation, GroundedAnswer, Mode

MAX_QUESTION = 1000  # characters; an encoder reads a few hundred words


class Answerer:
    """Questions in, grounded answers out.

    Args:
        knowledge: where every quote must stand.
        interpreter: proposes an answer; what it cannot prove is taken out.
        k: passages to look at.
        where: metadata that the documents must have; see `View.search`.
        mode: how passages are found.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        interpreter: InterpretationModel,
        k: int = 3,
        *,
        where: Where | None = None,
        mode: Mode = DEFAULT_MODE,
    ) -> None:
        self.knowledge = knowledge
        self._interpreter = interpreter
        self._k = k
        self._where = where
        self._mode = mode

    def answer(self, question: str) -> GroundedAnswer:
        """An answer whose every sentence is cited, or an abstention; a long question is read up to `MAX_QUESTION`.

        From the search to the check of the last citation, one state of the knowledge base is seen. Cited are current
        versions of the documents that the evidence comes from.
        """
        question = question.encode("utf-8", "replace").decode("utf-8").strip()[:MAX_QUESTION]
        if not question:
            return compose((), ())
        with self.knowledge.view() as view:
            evidence = retrieve(view, question, self._k, where=self._where, mode=self._mode)
            documents = {item.passage.document: view.document(item.passage.document) for item in evidence}
            answer = self._interpreter.answer(question, evidence, documents)

            def check(citation: Citation) -> bool:
                return citation.document in documents and view.check(citation, current=True)

            return ground(answer, check)
