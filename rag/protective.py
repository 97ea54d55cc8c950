"""The protective answer beside a refusal: the beginning of a document that was written to be told to whoever asks."""

from __future__ import annotations

from collections.abc import Iterator

from rag.asks import lift
from rag.chunking import Sentence, passages, sentences, sentences_inside
from rag.grounding import compose, ground
from rag.mode import Mode
from rag.scope import Where
from rag.store import KnowledgeBase
from rag.types import DEFAULT_GATE, PROTECTIVE_FROM, Citation, Document, Evidence, Gate, GroundedAnswer
from rag.view import View

PROTECTS = "protects"  # metadata entry of a document: the categories whose refusals it may stand beside
MAX_ASKED = 1000  # characters that are read of what was refused
_SENTENCES = 5
_CHARACTERS = 700


class Protector:
    """Finds the protective answer to what was refused.

    What was asked chooses a document, and never a sentence: whichever is chosen is quoted from its beginning. So all
    that can ever be said is known beforehand, one text for each document, and no wording of an ask can draw out more.
    No language model reads the ask, and nothing but quotes passes.

    Args:
        knowledge: where every quote must stand.
        least: similarity, 0 to 1, below which nothing is quoted; a near ask of the document adds to it.
        where: metadata that the documents must have beside `PROTECTS`; see `View.search`.
        gate: the limits of the citation gate.
    """

    def __init__(
        self,
        knowledge: KnowledgeBase,
        least: float = PROTECTIVE_FROM,
        *,
        where: Where | None = None,
        gate: Gate = DEFAULT_GATE,
    ) -> None:
        self._knowledge = knowledge
        self._least = least
        self._where = where or {}
        self._gate = gate

    def protect(self, asked: str, category: str) -> GroundedAnswer:
        """The beginning of the nearest document that protects against a category; an abstention without a near one.

        Args:
            asked: what was refused, of which the first `MAX_ASKED` characters are read.
            category: of the verdict by which it was refused.
        """
        asked = asked.encode("utf-8", "replace").decode("utf-8").strip()[:MAX_ASKED]
        if not asked or category not in self._where.get(PROTECTS, (category,)):
            return compose((), ())
        with self._knowledge.view() as view:
            found = view.search(asked, 1, where={**self._where, PROTECTS: (category,)}, mode=Mode.DENSE)
            if not found or found[0].score + lift(found[0].asked, found[0].score) < self._least:
                return compose((), found)
            document = view.document(found[0].passage.document)
            if not protects(document, category) or document.disputed:
                return compose((), found)
            return self._quoted(view, document, found[0])

    def _quoted(self, view: View, document: Document, found: Evidence) -> GroundedAnswer:
        said = list(beginning(document))
        evidence = [
            Evidence(passage, found.score)
            for passage in passages(document, view.manifest.words)
            if any(passage.start <= sentence.start < passage.end for sentence in said)
        ]
        cited = (
            Citation.of(document, sentence.start, sentence.end, passage=item.passage.id, score=item.score)
            for sentence in said
            for item in evidence
            if sentence in sentences_inside(item.passage, document)
        )
        places = {(sentence.start, sentence.end) for sentence in said}

        def check(citation: Citation) -> bool:
            meant = citation.verbatim and (citation.start, citation.end) in places
            return meant and view.check(citation, current=True)

        return ground(compose(cited, [found]), evidence, {document.id: document}, check, gate=self._gate)


def protects(document: Document, category: str) -> bool:
    """Whether a document was written to stand beside refusals of a category."""
    marked = document.metadata.get(PROTECTS, ())
    return category in ([marked] if isinstance(marked, str) else marked)


def beginning(document: Document) -> Iterator[Sentence]:
    """What is quoted of a document: its first sentences, as far as the first heading after them and within a length."""
    known = sentences(document.text)
    room = _CHARACTERS
    for sentence in known[:_SENTENCES]:
        room -= sentence.end - sentence.start + 1
        if sentence.section != known[0].section or room < 0:
            return
        yield sentence
