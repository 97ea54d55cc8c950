"""Interpretation models: a question and its evidence in, an answer of cited sentences out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.asks import lift
from rag.chunking import Sentence, embedding_text, sentences_inside
from rag.grounding import compose
from rag.lines import turned_by_headings
from rag.types import Citation, Document, Encoder, Evidence, GroundedAnswer, KnowledgeError, similarity


class InterpretationModel(Protocol):
    """Answers from evidence, in quotes; `rag.grounding.ground` takes out what is not one."""

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """Answer, or abstain.

        Args:
            question: as the user put it.
            evidence: passages, best first.
            documents: by id; those that the evidence comes from.
        """


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sentences make an answer; the defaults are measured on ``data/questions`` (see ``docs/log.md``).

    Attributes:
        threshold: score below which nothing is quoted, -1 to 1.
        margin: how far a sentence may score below the best.
        weight: of the sentence's own similarity; the rest is its passage's.
        sentences: at most, in an answer.
        characters: at most, in an answer; the best sentence is quoted whatever its length.
        duplicate: similarity from which two sentences say the same.
        abroad: what a sentence in another language than the question's scores more, since texts in two languages are
            less similar than those in one; or what the document's nearest ask adds (`rag.asks.lift`), if that is more.
    """

    threshold: float = 0.48
    margin: float = 0.1
    weight: float = 1.0
    sentences: int = 4
    characters: int = 600
    duplicate: float = 0.95
    abroad: float = 0.12

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise KnowledgeError(f"selection weight = {self.weight}: need a share between 0 and 1")
        if self.sentences < 1:
            raise KnowledgeError(f"selection sentences = {self.sentences}: need at least 1")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be quoted.

    Attributes:
        sentence: its place in the document's text.
        document: where it stands.
        passage: id of the passage that it was found in.
        vector: of the sentence, with its title and heading.
        similarity: to the question, -1 to 1.
        score: by which the better of two is told; its scale is the interpretation model's.
    """

    sentence: Sentence
    document: Document
    passage: str
    vector: NDArray[np.float32]
    similarity: float
    score: float = 0.0

    @property
    def quote(self) -> str:
        """Its words."""
        return self.document.text[self.sentence.start : self.sentence.end]

    @property
    def citation(self) -> Citation:
        """The citation of its words, without a place in an answer."""
        start, end = self.sentence.start, self.sentence.end
        return Citation.of(self.document, start, end, passage=self.passage, score=self.similarity)


def unknown(text: str) -> str | None:
    """A language that nobody tells."""
    return None


class ExtractiveInterpreter:
    """Answers with sentences of the evidence, word for word; it can be incomplete, but not make anything up.

    Args:
        encoder: scores sentences against the question.
        selection: thresholds and limits.
        language: of a text, None where it is not known.
    """

    def __init__(
        self,
        encoder: Encoder,
        selection: Selection = Selection(),
        *,
        language: Callable[[str], str | None] = unknown,
    ) -> None:
        self._encoder = encoder
        self._language = language
        self.selection = selection

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """The best sentences, in the order of their documents; from a disputed document, one of each section."""
        weight = self.selection.weight
        abroad = self._abroad(question, documents)
        scored = []
        for candidate, item in candidates(question, evidence, documents, self._encoder):
            own = weight * candidate.similarity + (1 - weight) * item.score
            scored.append(replace(candidate, score=own + max(abroad[candidate.document.id], lift(item.asked, own))))
        ranked = ranking(scored)
        if not ranked or ranked[0].score < self.selection.threshold:
            return compose((), evidence)
        least = max(ranked[0].score - self.selection.margin, self.selection.threshold)
        near = [candidate for candidate in ranked if candidate.score >= least]
        chosen = choose(ranked, near, self.selection, self._encoder.floor)
        return compose((candidate.citation for candidate in chosen), evidence)

    def _abroad(self, question: str, documents: Mapping[str, Document]) -> dict[str, float]:
        """What sentences of each document score more for being in another language."""
        spoken = self._language(question)
        return {
            name: self.selection.abroad if spoken and spoken != (self._language(document.text) or spoken) else 0.0
            for name, document in documents.items()
        }


def candidates(
    question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document], encoder: Encoder
) -> list[tuple[Candidate, Evidence]]:
    """The sentences of the evidence, in its order and that of their passages, each with what it was found in.

    None stands below a heading such as “What not to do”, without which it would say something else.
    """
    found: list[tuple[Sentence, Document, Evidence]] = []
    for item in evidence:
        document = documents[item.passage.document]
        turned = turned_by_headings(document.text)
        quotable = (each for each in sentences_inside(item.passage, document) if each.start not in turned)
        found += ((sentence, document, item) for sentence in quotable)
    texts = [embedding_text(document, sentence) for sentence, document, _ in found]
    (query,) = encoder.encode_queries([question])
    vectors = encoder.encode(texts)
    return [
        (Candidate(sentence, document, item.passage.id, vector, similarity(float(vector @ query), encoder.floor)), item)
        for (sentence, document, item), vector in zip(found, vectors, strict=True)
    ]


def ranking(found: Iterable[Candidate]) -> list[Candidate]:
    """Best first."""
    return sorted(found, key=lambda candidate: -candidate.score)


def choose(
    ranked: Sequence[Candidate], near: Sequence[Candidate], selection: Selection, floor: float
) -> list[Candidate]:
    """The sentences of an answer, in the order of their documents.

    Args:
        ranked: all candidates, best first; where the best of `near` is of a disputed document, one of each section.
        near: those that may be quoted from any other document, best first; at least one.
        selection: limits.
        floor: of the encoder that made the vectors.
    """
    if near[0].document.disputed:
        chosen = list(_fit(_each_section(near[0], ranked), len(ranked), selection, floor))
    else:
        chosen = list(_fit(near, selection.sentences, selection, floor))
    order = list(dict.fromkeys(candidate.document.id for candidate in chosen))
    return sorted(chosen, key=lambda candidate: (order.index(candidate.document.id), candidate.sentence.start))


def _each_section(best: Candidate, ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best of all, then the best of each other section from the top."""
    sections = {candidate.sentence.section: candidate for candidate in reversed(ranked)}
    del sections[best.sentence.section]
    return [best, *sorted(sections.values(), key=lambda candidate: candidate.sentence.start)]


def _fit(found: Sequence[Candidate], most: int, selection: Selection, floor: float) -> Iterator[Candidate]:
    """Those that say something new, until the answer is full."""
    room = selection.characters
    chosen: list[Candidate] = []
    for candidate in found:
        alike = (similarity(float(candidate.vector @ other.vector), floor) for other in chosen)
        again = any(each >= selection.duplicate for each in alike)
        if len(chosen) < most and not again and (not chosen or len(candidate.quote) <= room):
            chosen.append(candidate)
            room -= len(candidate.quote) + 1
            yield candidate
