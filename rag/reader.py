"""The evidence reader: which sentences of a passage answer a question, or that none does; and answers made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from rag.chunking import topic
from rag.grounding import compose
from rag.interpret import Candidate, Selection, candidates, choose, ranking
from rag.pairs import NO_SPAN, Base, Pair, PairReader, Task, logits, room, sigmoid
from rag.types import Document, Encoder, Evidence, GroundedAnswer

SHIPPED = Path(__file__).parent / "assets" / "reader-e5-small"
SENTENCE, PASSAGE = 0, 1  # outputs of the head
_SIMILARITY = 6.0  # logits that a similarity of 1 is worth; chosen on `dev` rows (docs/log.md)
_LIMITS = Selection()


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is read: a question, and a passage in sentences.

    Attributes:
        question: as the user put it.
        sentences: in order.
        topic: title and heading, which the passage takes for granted; may be empty.
    """

    question: str
    sentences: tuple[str, ...]
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader makes of an excerpt.

    Attributes:
        answers: probability that the passage answers the question at all.
        sentences: for each sentence the probability that it does.
    """

    answers: float
    sentences: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReadingWindow:
    """A part of an excerpt that is read at a time.

    Attributes:
        pair: question and passage; sentences are the spans from 1 on.
        sentences: which sentences of the excerpt these are.
    """

    pair: Pair
    sentences: range


class EvidenceReader(PairReader):
    """Excerpts in, readings out.

    A passage that is longer than a window is read in several, of whole sentences, the last one of a window again in the
    next. What any window finds counts. A sentence, question or topic too long for its part of a window is cut.
    """

    task: ClassVar[Task] = "reader"

    def read(self, excerpts: Sequence[Excerpt]) -> list[Reading]:
        """One reading for each excerpt, in order; one without sentences answers nothing."""
        windows = [reading_windows(self._base, excerpt, self.settings.window) for excerpt in excerpts]
        found = logits(self.model, self._base, [window.pair for each in windows for window in each], self._batch)
        readings = []
        for excerpt, each in zip(excerpts, windows, strict=True):
            answers, sentences = 0.0, [0.0] * len(excerpt.sentences)
            for window in each:
                values = next(found)
                answers = max(answers, sigmoid(values[0, PASSAGE].item()))
                for at, value in zip(window.sentences, values[1:, SENTENCE].tolist(), strict=True):
                    sentences[at] = max(sentences[at], sigmoid(value))
            readings.append(Reading(answers, tuple(sentences)))
        return readings


def reading_windows(base: Base, excerpt: Excerpt, window: int) -> list[ReadingWindow]:
    """The windows of an excerpt; none if it has no sentences."""
    size = room(base, window)
    question, topic, *sentences = base.tokenize([excerpt.question, excerpt.topic, *excerpt.sentences])["input_ids"]
    question, topic = question[: size // 4], topic[: size // 8]
    left = size - len(question) - len(topic)
    pad = base.tokenizer.pad_token_id
    lengths = [[*(ids or [pad])][:left] for ids in sentences]  # each span has a token, also that of an odd sentence
    return [
        ReadingWindow(
            Pair(
                first=question,
                second=[*topic, *(token for ids in lengths[part.start : part.stop] for token in ids)],
                spans=[NO_SPAN] * len(topic)
                + [number for number, ids in enumerate(lengths[part.start : part.stop], 1) for _ in ids],
            ),
            part,
        )
        for part in _parts([len(ids) for ids in lengths], left)
    ]


def _parts(lengths: Sequence[int], size: int) -> Iterator[range]:
    """Runs of sentences that fit, the last one again as the first of the next where there is room for another."""
    start = 0
    while start < len(lengths):
        stop, used = start + 1, lengths[start]
        while stop < len(lengths) and used + lengths[stop] <= size:
            used += lengths[stop]
            stop += 1
        yield range(start, stop)
        again = stop < len(lengths) and stop - start > 1 and lengths[stop - 1] + lengths[stop] <= size
        start = stop - 1 if again else stop


def weighed(probabilities: Sequence[float], similarities: Sequence[float]) -> list[float]:
    """The probabilities of a passage's sentences, less for those that are less like the question than the most similar.

    Args:
        probabilities: of each sentence, 0 to 1.
        similarities: of each sentence to the question, -1 to 1.
    """
    most = max(similarities, default=0.0)
    return [
        sigmoid(_logit(probability) + _SIMILARITY * (similarity - most))
        for probability, similarity in zip(probabilities, similarities, strict=True)
    ]


def _logit(probability: float) -> float:
    sure = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(sure / (1 - sure))


class ReaderInterpreter:
    """Answers with the sentences that the reader finds, word for word; an `rag.interpret.InterpretationModel`.

    Nothing is answered where no passage is at least as likely to answer as the threshold `passage` says. Of those that
    are, the best sentence is quoted, and others from the threshold `sentence` on, within the limits of `selection`,
    whose own `threshold`, `margin` and `weight` are for similarities and not used.

    Args:
        reader: finds sentences.
        encoder: tells which sentences say the same, and gives citations their similarity.
        selection: limits.
    """

    def __init__(self, reader: EvidenceReader, encoder: Encoder, selection: Selection = _LIMITS) -> None:
        self._reader = reader
        self._encoder = encoder
        self.selection = selection

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """The best sentences, in the order of their documents; from a disputed document, one of each section."""
        found = candidates(question, evidence, documents, self._encoder)
        passages = [(item, [candidate for candidate, of in found if of is item]) for item in evidence]
        readings = self._reader.read([_excerpt(question, item, documents, sentences) for item, sentences in passages])
        thresholds = self._reader.settings
        ranked: list[Candidate] = []
        answering: list[Candidate] = []
        near: list[Candidate] = []
        for (_, sentences), reading in zip(passages, readings, strict=True):
            probabilities = weighed(reading.sentences, [candidate.similarity for candidate in sentences])
            scored = [
                replace(candidate, score=reading.answers * probability)
                for candidate, probability in zip(sentences, probabilities, strict=True)
            ]
            ranked += scored
            if reading.answers >= thresholds.threshold("passage"):
                answering += scored
                sure = thresholds.threshold("sentence")
                near += [each for each, found in zip(scored, probabilities, strict=True) if found >= sure]
        if not answering:
            return compose((), evidence)
        near = ranking(near) or ranking(answering)[:1]
        chosen = choose(ranking(ranked), near, self.selection, self._encoder.floor)
        return compose((candidate.citation for candidate in chosen), evidence)


def _excerpt(
    question: str, item: Evidence, documents: Mapping[str, Document], sentences: Sequence[Candidate]
) -> Excerpt:
    document = documents[item.passage.document]
    quotes = tuple(" ".join(candidate.quote.split()) for candidate in sentences)
    return Excerpt(question, quotes, topic(document, item.passage) if sentences else "")
