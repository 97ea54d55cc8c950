"""Questions with the passage that answers them, or does not: what rows for a generative interpreter are built of."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.chunking import passages, sentences, sentences_inside
from rag.documents import read_documents
from rag.references import opener
from rag.types import Document, Passage
from training.datasets import TrainingError
from training.grounding.edits import split_of
from training.grounding.evaluate_rag import Question, read_questions
from training.grounding.negatives import by_likeness
from training.grounding.rows import EvidenceRow, read_evidence, trainable

_JOINED = ("zh", "ja")  # without white space between sentences


@dataclass(frozen=True, slots=True)
class Context:
    """A passage that may stand in a prompt.

    Attributes:
        place: the passage.
        document: that it is of.
        spans: start and end of its sentences in the document's text.
        source: the data set or folder it came from.
        licence: of that.
        lang: ISO 639-1 code.
        split: `train`, `dev` or `test`.
    """

    place: Passage
    document: Document
    spans: tuple[tuple[int, int], ...]
    source: str
    licence: str = ""
    lang: str = "en"
    split: str = "train"

    @property
    def passage(self) -> str:
        """Its text."""
        return self.place.text

    @property
    def key(self) -> tuple[str, str]:
        """Tells it from all others."""
        return self.source, self.place.id

    def sentence(self, at: int) -> str:
        """The words of one of its sentences."""
        return self.document.text[slice(*self.spans[at])]


@dataclass(frozen=True, slots=True)
class Case:
    """A question and a passage.

    Attributes:
        question: as written.
        context: the passage.
        answers: which of its sentences answer; empty when none does.
    """

    question: str
    context: Context
    answers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Cases:
    """What rows are built of.

    Attributes:
        asked: the questions.
        contexts: all passages, also those that no question is about.
    """

    asked: tuple[Case, ...]
    contexts: tuple[Context, ...]

    def of_split(self, split: str) -> Cases:
        """Those of one split.

        Raises:
            TrainingError: no question is of it.
        """
        asked = tuple(case for case in self.asked if case.context.split == split)
        if not asked:
            splits = ", ".join(sorted({case.context.split for case in self.asked})) or "none"
            raise TrainingError(
                f"no questions of split {split!r}; there are: {splits} (a row without `split` is of `train`)"
            )
        return Cases(asked, tuple(context for context in self.contexts if context.split == split))

    def trainable(self, without: Sequence[str]) -> Cases:
        """Those that may be trained on; see `training.grounding.rows.trainable`."""
        kept = trainable(self.contexts, without)
        keys = {context.key for context in kept}
        return Cases(tuple(case for case in self.asked if case.context.key in keys), tuple(kept))

    def only(self, sources: Sequence[str], *, out: bool = False) -> Cases:
        """Those of some sources; with `out`, of all others."""
        return Cases(
            tuple(case for case in self.asked if (case.context.source in sources) is not out),
            tuple(context for context in self.contexts if (context.source in sources) is not out),
        )


def read_cases(data: Sequence[Path], documents: Path | None = None, questions: Path | None = None) -> Cases:
    """Questions of evidence rows, and questions about a folder of documents.

    Args:
        data: JSONL files; see `training.grounding.rows.read_evidence`.
        documents: a folder; see `rag.documents.read_documents`.
        questions: JSONL about it; see `training.grounding.evaluate_rag.read_questions`. A question is of the split that
            its document's id falls into; one without a document, of that of its own words.

    Raises:
        TrainingError: neither is given, or something cannot be read or does not fit together.
    """
    if (documents is None) != (questions is None):
        raise TrainingError("--documents and --questions belong together: questions need the documents they are about")
    if not data and documents is None:
        raise TrainingError("nothing to train on: give --data, or --documents with --questions")
    contexts: dict[tuple[str, str], Context] = {}
    asked = []
    for row in read_evidence(data):
        if made := _of_row(row):
            context, numbers = contexts.setdefault(made[0].key, made[0]), made[1]
            asked.append(_case(row.question, context, {numbers[at] for at in row.answers if at in numbers}))
    if documents is not None and questions is not None:
        found = _of_documents(documents)
        contexts |= {context.key: context for context in found}
        asked += _about(read_questions(questions), found, documents)
    return Cases(tuple(asked), tuple(contexts.values()))


def _case(question: str, context: Context, answers: set[int]) -> Case:
    """With the sentences that an answer leans on: “It …” goes out only with the one before."""
    for at in sorted(answers, reverse=True):
        while at > 0 and opener(context.sentence(at)):
            at -= 1
            answers.add(at)
    return Case(question, context, frozenset(answers))


def _of_row(row: EvidenceRow) -> tuple[Context, dict[int, int]] | None:
    """The passage as a document of its own, and the new number of each sentence; None where nothing can be quoted."""
    between = "" if row.lang in _JOINED else " "
    text, spans, numbers = "", list[tuple[int, int]](), dict[int, int]()
    for at, sentence in enumerate(row.sentences):
        if sentence:
            start = len(text) + (len(between) if text else 0)
            text += (between if text else "") + sentence
            numbers[at] = len(spans)
            spans.append((start, len(text)))
    if not sentences(text):
        return None
    version = hashlib.sha256(f"{row.topic}\0{text}".encode()).hexdigest()
    name = f"{row.source or 'row'}/{version[:12]}"
    document = Document(name, version, row.topic or name, text, {})
    place = Passage(f"{name}#0", name, version, 0, len(text), text)
    return Context(place, document, tuple(spans), row.source, row.licence, row.lang, row.split), numbers


def _of_documents(folder: Path) -> list[Context]:
    found = []
    for document in read_documents(folder).documents:
        licence = str(document.metadata.get("licence", ""))
        for place in passages(document):
            spans = tuple((each.start, each.end) for each in sentences_inside(place, document))
            found.append(Context(place, document, spans, folder.name, licence, "en", split_of(document.id)))
    return found


def _about(questions: Sequence[Question], contexts: Sequence[Context], folder: Path) -> list[Case]:
    """Each question with the passage that holds its answer, or the one that is most like it."""
    by_split: dict[str, list[Context]] = defaultdict(list)
    for context in contexts:
        by_split[context.split].append(context)
    cases = []
    unanswerable: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        if not question.answerable:
            unanswerable[split_of(question.question)].append(question.question)
        elif found := _holding(question, contexts):
            cases.append(found)
        else:
            raise TrainingError(
                f"question {question.question!r}: no passage of document {question.document!r} in {folder} says "
                f"{question.answer_contains!r}; correct `document` or `answer_contains`"
            )
    for split, asked in unanswerable.items():
        if pool := by_split[split]:
            orders = by_likeness(asked, [context.passage for context in pool])
            cases += [Case(words, pool[order[0]], frozenset()) for words, order in zip(asked, orders, strict=True)]
    return cases


def _holding(question: Question, contexts: Sequence[Context]) -> Case | None:
    wanted = " ".join((question.answer_contains or "").split())
    for context in contexts if wanted else ():
        if context.document.id == question.document:
            whole = [" ".join(context.sentence(at).split()) for at in range(len(context.spans))]
            holding = {at for at, sentence in enumerate(whole) if wanted in sentence}
            if holding:
                return _case(question.question, context, holding)
    return None
