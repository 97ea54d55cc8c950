"""Interpretation models: a question and its evidence in, an answer of cited sentences out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.chunking import Sentence, embedding_text, sentences
from rag.grounding import compose
from rag.types import Citation, Document, Encoder, Evidence, GroundedAnswer, KnowledgeError, Status


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
    """

    threshold: float = 0.42
    margin: float = 0.1
    weight: float = 0.5
    sentences: int = 4
    characters: int = 600
    duplicate: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise KnowledgeError(f"selection weight = {self.weight}: need a share between 0 and 1")
        if self.sentences < 1:
            raise KnowledgeError(f"selection sentences = {self.sentences}: need at least 1")


@dataclass(frozen=True, slots=True)
class _Candidate:
    sentence: Sentence
    document: Document
    passage: str
    vector: NDArray[np.float32]
    similarity: float
    score: float

    @property
    def quote(self) -> str:
        return self.document.text[self.sentence.start : self.sentence.end]

    @property
    def citation(self) -> Citation:
        return Citation(
            passage=self.passage,
            document=self.document.id,
            version=self.document.version,
            title=self.document.title,
            url=self.document.url,
            start=self.sentence.start,
            end=self.sentence.end,
            quote=self.quote,
            score=self.similarity,
            status=Status.SUPPORTED,
            answer_start=0,
            answer_end=0,
        )


class ExtractiveInterpreter:
    """Answers with sentences of the evidence, word for word; it can be incomplete, but not make anything up.

    Args:
        encoder: scores sentences against the question.
        selection: thresholds and limits.
    """

    def __init__(self, encoder: Encoder, selection: Selection = Selection()) -> None:
        self._encoder = encoder
        self.selection = selection

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """The best sentences, in the order of their documents; from a disputed document, one of each section."""
        candidates = self._candidates(question, evidence, documents)
        if not candidates or candidates[0].score < self.selection.threshold:
            return compose((), evidence)
        choose = self._from_each_section if candidates[0].document.disputed else self._best
        chosen = list(choose(candidates))
        order = list(dict.fromkeys(candidate.document.id for candidate in chosen))
        chosen.sort(key=lambda candidate: (order.index(candidate.document.id), candidate.sentence.start))
        return compose((candidate.citation for candidate in chosen), evidence)

    def _candidates(
        self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]
    ) -> list[_Candidate]:
        """The sentences of the evidence, best first."""
        found = [
            (sentence, documents[item.passage.document], item)
            for item in evidence
            for sentence in sentences(documents[item.passage.document].text)
            if item.passage.start <= sentence.start and sentence.end <= item.passage.end
        ]
        texts = [embedding_text(document, sentence) for sentence, document, _ in found]
        query, *vectors = self._encoder.encode([question, *texts])
        weight = self.selection.weight
        candidates = [
            _Candidate(
                sentence=sentence,
                document=document,
                passage=item.passage.id,
                vector=vector,
                similarity=(similarity := float(np.clip(vector @ query, -1, 1))),
                score=weight * similarity + (1 - weight) * item.score,
            )
            for (sentence, document, item), vector in zip(found, vectors, strict=True)
        ]
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def _best(self, candidates: Sequence[_Candidate]) -> Iterator[_Candidate]:
        """Those near the best, until the answer is full."""
        least = max(candidates[0].score - self.selection.margin, self.selection.threshold)
        near = [candidate for candidate in candidates if candidate.score >= least]
        return self._fit(near, self.selection.sentences)

    def _from_each_section(self, candidates: Sequence[_Candidate]) -> Iterator[_Candidate]:
        """The best of all, then the best of each other section from the top, until the answer is full."""
        best = candidates[0]
        sections = {candidate.sentence.section: candidate for candidate in reversed(candidates)}
        del sections[best.sentence.section]
        others = sorted(sections.values(), key=lambda candidate: candidate.sentence.start)
        return self._fit([best, *others], len(candidates))

    def _fit(self, candidates: Sequence[_Candidate], most: int) -> Iterator[_Candidate]:
        room = self.selection.characters
        chosen: list[_Candidate] = []
        for candidate in candidates:
            again = any(float(candidate.vector @ other.vector) >= self.selection.duplicate for other in chosen)
            if len(chosen) < most and not again and (not chosen or len(candidate.quote) <= room):
                chosen.append(candidate)
                room -= len(candidate.quote) + 1
                yield candidate
