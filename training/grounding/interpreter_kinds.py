"""The rows that a generative interpreter learns from: a prompt of passages, and the quotes that answer it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rag.grounding import ground
from rag.prompting import NO_ANSWER, read_answer
from rag.types import Document, Evidence, InputError
from training.grounding.edits import EDITS, names_of, one_edit
from training.grounding.interpreter_rows import Case, Cases, Context
from training.grounding.negatives import by_likeness

_NEAREST = 5  # passages among which those that stand beside the right one are chosen
_BESIDE = 2  # of these in a prompt, at most


class Kind(StrEnum):
    """What the passages of a row say of its question."""

    ANSWERABLE = "answerable"
    PARTLY = "partly_answerable"  # two questions, one of which is answered
    UNANSWERABLE = "unanswerable"
    FALSE_PREMISE = "false_premise"  # the question claims what a passage denies
    CONTRADICTORY = "contradictory"  # two passages say different things


MIX: Mapping[Kind, float] = {
    Kind.ANSWERABLE: 1.0,
    Kind.PARTLY: 0.3,
    Kind.UNANSWERABLE: 0.5,
    Kind.FALSE_PREMISE: 0.3,
    Kind.CONTRADICTORY: 0.3,
}
_UNSEEN_CLAIM = 0.3  # share of the false premises that are asked once more, without the passage that denies them
_CLAIMED: Mapping[str, Sequence[str]] = {
    "en": (
        "Is this right? {}",
        "I was told this: {} Is that so?",
        "{} Why is that?",
        "Somebody says: {} Can I rely on it?",
    ),
    "es": ("¿Es cierto esto? {}", "Me han dicho esto: {} ¿Es verdad?"),
    "zh": ("这是真的吗？{}", "有人说：{}对吗？"),
    "ja": ("これは本当ですか。{}", "{}これは正しいですか。"),
}


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of the completion: ``text[start:end]`` of a document, and the number of its passage, from 1."""

    passage: int
    document: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        kind: what the passages say of the question.
        question: as it is put.
        evidence: the passages, in the order of the prompt.
        documents: by id, those that the passages come from.
        quotes: what the completion says, in order; empty where it is `NO_ANSWER`.
        source: of the question.
        licence: of that.
        group: rows of one group are built of the same passage.
    """

    kind: Kind
    question: str
    evidence: tuple[Evidence, ...]
    documents: Mapping[str, Document]
    quotes: tuple[Quote, ...]
    source: str
    licence: str
    group: str

    @property
    def completion(self) -> str:
        """What the model is to write."""
        said = [f"{self.documents[q.document].text[q.start : q.end]} [{q.passage}]" for q in self.quotes]
        return "\n\n".join(said) or NO_ANSWER

    @property
    def released(self) -> bool:
        """Whether the citation gate lets every quote of the completion through."""
        try:
            proposal = read_answer(self.completion, self.question, self.evidence, self.documents)
            found = ground(proposal, self.evidence, self.documents, lambda _: True)
        except InputError:
            return False
        said = [(citation.document, citation.start, citation.end) for citation in found.citations]
        return all(any(_covers(place, quote) for place in said) for quote in self.quotes)

    @property
    def smaller(self) -> Example | None:
        """The same without the last passage that is not quoted; None where every passage is needed."""
        quoted = {quote.passage for quote in self.quotes}
        spare = [number for number in range(1, len(self.evidence) + 1) if number not in quoted]
        if not spare or len(self.evidence) == 1:
            return None
        gone = spare[-1]
        quotes = (replace(quote, passage=quote.passage - (quote.passage > gone)) for quote in self.quotes)
        return replace(self, evidence=(*self.evidence[: gone - 1], *self.evidence[gone:]), quotes=tuple(quotes))


def _covers(place: tuple[str, int, int], quote: Quote) -> bool:
    document, start, end = place
    return document == quote.document and start <= quote.start and quote.end <= end


def build_examples(cases: Cases, *, seed: int, mix: Mapping[Kind, float] = MIX) -> tuple[list[Example], int]:
    """Rows of every kind, the same for the same cases and seed.

    Each question gives the row that its label says, and by chance some of the others; an answerable one is made
    unanswerable by leaving its passage out. Beside the right passage stand up to two that are like the question. The
    right one is in any place.

    Args:
        cases: those of one split.
        seed: of every choice.
        mix: how many rows of a kind come from a question that can give one, 0 to 1.

    Returns:
        The rows, and how many more there were whose completion the citation gate does not let through.
    """
    groups: dict[tuple[str, str], list[Case]] = defaultdict(list)
    pools: dict[tuple[str, str], list[Context]] = defaultdict(list)
    for case in cases.asked:
        groups[case.context.source, case.context.lang].append(case)
    for context in cases.contexts:
        pools[context.source, context.lang].append(context)
    found = [example for key, group in groups.items() for example in _Builder(group, pools[key], seed, mix).examples()]
    kept = [example for example in found if example.released]
    return kept, len(found) - len(kept)


def counts(examples: Sequence[Example]) -> dict[str, int]:
    """How many rows there are of each kind."""
    found = Counter(example.kind for example in examples)
    return {kind.value: found[kind] for kind in Kind}


class _Builder:
    """The rows of one source."""

    def __init__(self, group: Sequence[Case], pool: Sequence[Context], seed: int, mix: Mapping[Kind, float]) -> None:
        self._group = group
        self._pool = pool
        self._seed = seed
        self._mix = mix
        self._names = names_of(context.passage for context in pool)
        self._answerable = [case for case in group if case.answers]

    def examples(self) -> Iterator[Example]:
        orders = by_likeness([case.question for case in self._group], [context.passage for context in self._pool])
        for case, order in zip(self._group, orders, strict=True):
            rng = random.Random(f"{self._seed}/{case.question}/{case.context.passage}")
            near = [self._pool[at] for at in order if self._pool[at].passage != case.context.passage][:_NEAREST]
            yield from self._of(case, near, rng)

    def _of(self, case: Case, near: Sequence[Context], rng: random.Random) -> Iterator[Example]:
        if not case.answers:
            yield self._row(Kind.UNANSWERABLE, case.question, case, near, rng, quoted=False)
            return
        drawn = {kind for kind in Kind if rng.random() < self._mix.get(kind, 0.0)}
        if Kind.ANSWERABLE in drawn:
            yield self._row(Kind.ANSWERABLE, case.question, case, near, rng)
        if Kind.UNANSWERABLE in drawn and near:
            yield self._elsewhere(case.question, case, near, rng)
        if Kind.PARTLY in drawn:
            yield from self._partly(case, near, rng)
        if Kind.FALSE_PREMISE in drawn:
            yield from self._premise(case, near, rng)
        if Kind.CONTRADICTORY in drawn:
            yield from self._contradictory(case, near, rng)

    def _elsewhere(self, question: str, case: Case, near: Sequence[Context], rng: random.Random) -> Example:
        """The question with passages that are only like it; one of them may answer after all, which is not noticed."""
        first, *others = rng.sample(near, len(near))
        return self._row(Kind.UNANSWERABLE, question, replace(case, context=first), others, rng, quoted=False)

    def _partly(self, case: Case, near: Sequence[Context], rng: random.Random) -> Iterator[Example]:
        """The question together with one of another passage, which is not there."""
        shown = {context.passage for context in near} | {case.context.passage}
        others = [other for other in self._answerable if other.context.passage not in shown]
        if others:
            asked = [case.question, rng.choice(others).question]
            rng.shuffle(asked)
            yield self._row(Kind.PARTLY, " ".join(asked), case, near, rng)

    def _premise(self, case: Case, near: Sequence[Context], rng: random.Random) -> Iterator[Example]:
        """A question that claims an answer with one fact changed; quoting the answer corrects it."""
        at, context = rng.choice(sorted(case.answers)), case.context
        forms = _CLAIMED.get(context.lang, ())
        sentence = context.sentence(at)
        edit = one_edit(sentence, context.passage, self._names, lang=context.lang, kinds=list(EDITS), rng=rng)
        if edit and forms:
            claimed = rng.choice(forms).format(edit.apply(sentence))
            yield self._row(Kind.FALSE_PREMISE, claimed, replace(case, answers=frozenset({at})), near, rng)
            if near and rng.random() < _UNSEEN_CLAIM:
                yield self._elsewhere(claimed, case, near, rng)

    def _contradictory(self, case: Case, near: Sequence[Context], rng: random.Random) -> Iterator[Example]:
        """The passage, and its twin of another document in which an answer has another fact."""
        at, context = rng.choice(sorted(case.answers)), case.context
        kinds = [kind for kind in EDITS if kind != "negation"]
        sentence = context.sentence(at)
        edit = one_edit(sentence, context.passage, self._names, lang=context.lang, kinds=kinds, rng=rng)
        if edit:
            twin = _twin(context, at, edit.apply(sentence))
            yield self._row(
                Kind.CONTRADICTORY, case.question, replace(case, answers=frozenset({at})), near, rng, twin=twin
            )

    def _row(
        self,
        kind: Kind,
        question: str,
        case: Case,
        near: Sequence[Context],
        rng: random.Random,
        *,
        quoted: bool = True,
        twin: Context | None = None,
    ) -> Example:
        beside = rng.sample(near, min(len(near), rng.randint(0, _BESIDE)))
        shown = [case.context, *([twin] if twin else ()), *beside]
        rng.shuffle(shown)
        quotes = [
            Quote(number, context.document.id, *context.spans[at])
            for number, context in enumerate(shown, 1)
            if quoted and context in (case.context, twin)
            for at in sorted(case.answers)
        ]
        return Example(
            kind=kind,
            question=question,
            evidence=tuple(Evidence(context.place, 1 - number / 100) for number, context in enumerate(shown)),
            documents={context.document.id: context.document for context in shown},
            quotes=tuple(quotes),
            source=case.context.source,
            licence=case.context.licence,
            group=f"{case.context.source}/{case.context.place.id}",
        )


def _twin(context: Context, at: int, changed: str) -> Context:
    """The passage in a document of its own that says something else in one sentence."""
    start, end = context.spans[at]
    longer = len(changed) - (end - start)
    old, place = context.document, context.place
    text = old.text[:start] + changed + old.text[end:]
    version = hashlib.sha256(text.encode()).hexdigest()
    document = Document(f"{old.id}/{version[:12]}", version, old.title, text, old.metadata)
    stop = place.end + longer
    moved = tuple(
        (first + (longer if first > start else 0), last + (longer if first >= start else 0))
        for first, last in context.spans
    )
    new = replace(
        place,
        id=f"{document.id}#0",
        document=document.id,
        version=version,
        end=stop,
        text=text[place.start : stop],
    )
    return replace(context, place=new, document=document, spans=moved)
