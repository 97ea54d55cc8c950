"""An interpretation model that lies: answers made of true sentences, one of which was changed or put where it is false.

The lie stands between quotes of its passage, so that the answer as a whole is not thrown away for it, and half of the
lies are cited as if they stood in a document.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rag.chunking import sentences_inside
from rag.references import opener
from rag.spelling import key, normal
from rag.types import Citation, Document, Evidence, GroundedAnswer, Passage, Status
from training.grounding.edits import EDITS, overlap, reworded

HONEST = ("quote", "reworded")
_SAID = 0.6  # share of a sentence's words from which another says much the same
_UNITS = [
    tuple(pair.split("/"))
    for pair in "mg/g micrograms/milligrams hours/days hour/day days/weeks weeks/months months/years years/months"
    " minutes/seconds mph/km kilograms/grams metres/kilometres millilitres/litres pounds/euros".split()
]
_OPPOSITES = [
    tuple(pair.split("/"))
    for pair in "raises/lowers raise/lower lower/raise higher/lower more/less increase/reduce before/after after/before"
    " safe/dangerous dangerous/safe legal/illegal illegal/legal better/worse worse/better first/last early/late"
    " cause/prevent long/short older/younger large/small protects/endangers with/without begin/end rise/fall".split()
]
_FORCE = [
    tuple(pair.split("/"))
    for pair in "may/must can/must should/may must/may usually/always often/always some/all many/all most/all"
    " sometimes/always generally/always never/sometimes".split()
] + [("at least", "at most"), ("up to", "at least"), ("more than", "less than"), ("only ", ""), (" nearly all", " all")]
_CONDITION = re.compile(
    r",? (?:unless|if|when|until|except|only if|provided that|where|because of|while) [^,;.]{8,120}(?=\.?$)"
)
_REPORTED = re.compile(
    r"^[^,;.\"]{3,70}?\b(?:say|says|argue|argues|argued|claim|claims|thought|believe|reports?|think) that "
    r"(?P<said>[^.]{15,})\.$"
)
_FALSE = re.compile(r"^The (?:claim|idea) that (?P<said>.{10,}?) is false\.$")
_INVENTED = (
    "Experts recommend this to everyone without exception.",
    "{title} is covered by a law of 2019 in most countries.",
    "Nine out of ten people who tried it were satisfied.",
    "Ask for the form at any post office, it costs 15 euros.",
    "{start} in every case.",
    "{start}, and nobody disputes it.",
    "A study from Oslo found the effect in 73 % of 4,100 people.",
    "In short, {lower} is entirely harmless.",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What an interpretation model proposes, and which sentence of it is tested.

    Attributes:
        kind: of the lie; `HONEST` names those that are none.
        answer: the proposal.
        target: the sentence.
        evidence: what it is to rest on.
        documents: all of them.
        group: id of the passage that it was made of.
    """

    kind: str
    answer: GroundedAnswer
    target: str
    evidence: tuple[Evidence, ...]
    documents: dict[str, Document]
    group: str

    def released(self, answer: GroundedAnswer) -> bool:
        """Whether an answer that left the gate says the target."""
        said = [answer.answer[each.answer_start : each.answer_end] for each in answer.citations]
        if self.kind in HONEST:  # a quote leaves in the words of its document
            return _key(self.target) in map(_key, said)
        return self.target in said


@dataclass(frozen=True, slots=True)
class Place:
    """A passage with its document and the sentences that can be quoted of it."""

    passage: Passage
    document: Document
    quotes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, passage: Passage, document: Document) -> Place:
        """The passage with its sentences."""
        inside = sentences_inside(passage, document)
        return cls(passage, document, tuple((each.start, each.end) for each in inside))

    def quote(self, number: int) -> str:
        """The words of a sentence."""
        start, end = self.quotes[number]
        return self.document.text[start:end]


Make = Callable[[Place, Sequence[Place], random.Random], str | None]  # a sentence for an answer


class Liar:
    """Makes the cases of places, the same for the same places and seed.

    Args:
        places: what can be quoted.
        seed: of everything random.
    """

    def __init__(self, places: Sequence[Place], seed: int) -> None:
        self._places = [place for place in places if place.quotes]
        self._all = {place.quote(number) for place in self._places for number in range(len(place.quotes))}
        names = re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})?", " ".join(sorted(self._all)))
        self._names = sorted(set(names))
        self._seed = seed

    def cases(self) -> Iterator[Case]:
        """For each place, one case of each kind that it allows."""
        for place in self._places:
            rng = random.Random(f"{self._seed}/{place.passage.id}")
            others = [each for each in self._places if each.document.id != place.document.id]
            near = rng.sample(others, min(2, len(others)))
            for kind, make in self._kinds().items():
                target = make(place, near, rng)
                if target is None:
                    continue
                evidence = [*near] if kind == "removed" else [place, *near]
                yield self._case(kind, target, place, evidence, rng)

    def _kinds(self) -> dict[str, Make]:
        return {
            "quote": lambda place, near, rng: rng.choice(_quotes(place)),
            "reworded": self._reworded,
            **{kind: self._edited(kind) for kind in EDITS},
            "unit": self._worded(_UNITS, number=True),
            "opposite": self._worded(_OPPOSITES),
            "force": self._worded(_FORCE),
            "order": self._order,
            "condition": self._condition,
            "unreported": self._unreported,
            "glued": self._glued,
            "swapped": self._swapped,
            "removed": self._removed,
            "invented": self._invented,
            "pronoun": self._pronoun,
        }

    def _case(self, kind: str, target: str, place: Place, evidence: Sequence[Place], rng: random.Random) -> Case:
        own = evidence[0]
        honest = [quote for quote in _quotes(own) if quote != target and quote not in target and not opener(quote)]
        honest = rng.sample(honest, min(2, len(honest)))
        parts = [*honest[:1], target, *honest[1:]]
        if kind == "pronoun":
            parts = [honest[0] if honest else evidence[-1].quote(0), target]
        text, citations = "", []
        for part in parts:
            start = len(text) + (2 if text else 0)  # paragraphs, since some have no full stop
            text = f"{text}\n\n{part}" if text else part
            if kind in HONEST or part != target or rng.random() < 0.5:
                citations.append(_cited(part, own, start))
        items = tuple(Evidence(each.passage, 0.6 - number / 10) for number, each in enumerate(evidence))
        documents = {each.document.id: each.document for each in evidence}
        answer = GroundedAnswer(text, False, tuple(citations), items)
        return Case(kind, answer, target, items, documents, place.passage.id)

    def _reworded(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        found = [new for quote in _quotes(place) if (new := reworded(quote, rng)) != quote and len(new) > 15]
        return rng.choice(found) if found else None

    def _edited(self, kind: str) -> Make:
        def make(place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
            edits = [
                (quote, edit)
                for quote in _quotes(place)
                for edit in EDITS[kind](quote, place.passage.text, self._names, rng)
            ]
            return self._new(edit.apply(quote) for quote, edit in rng.sample(edits, min(3, len(edits))))

        return make

    def _worded(self, pairs: Sequence[tuple[str, ...]], *, number: bool = False) -> Make:
        """Other words in the place of some: of a unit, only behind a number."""

        def make(place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
            found = []
            for quote in _quotes(place):
                for old, new in pairs:
                    pattern = rf"(?<=\d ){re.escape(old)}\b" if number else rf"(?<!\w){re.escape(old)}(?!\w)"
                    changed = re.sub(pattern, new, quote, count=1)
                    if changed != quote:
                        found.append(changed)
            rng.shuffle(found)
            return self._new(found)

        return make

    def _order(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """Two numbers of a sentence in each other's place."""
        found = []
        for quote in _quotes(place):
            numbers = list(re.finditer(r"(?<![\w.,/-])\d[\d,.]*(?<![.,])(?![\w/-])", quote))
            for one, other in itertools.pairwise(numbers):
                middle = quote[one.end() : other.start()]
                if one[0] != other[0] and len(middle.split()) > 1:  # 6 August 1945 is no other date than 1945 August 6
                    found.append(quote[: one.start()] + other[0] + middle + one[0] + quote[other.end() :])
        return self._new(found)

    def _condition(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """Without its condition, or with that of another sentence."""
        quotes = [quote for each in (place, *near) for quote in _quotes(each)]
        bound = [(quote, match[0]) for quote in quotes if (match := _CONDITION.search(quote.rstrip(".")))]
        own = [(quote, condition) for quote, condition in bound if quote in _quotes(place)]
        if not own:
            return None
        quote, condition = rng.choice(own)
        foreign = [other for _, other in bound if other != condition]
        new = rng.choice(foreign) if foreign and rng.random() < 0.5 else ""
        return self._new([quote.replace(condition, new)])

    def _unreported(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """What somebody only says, as a fact."""
        found = [match["said"] for quote in _quotes(place) if (match := _FALSE.match(quote) or _REPORTED.match(quote))]
        return self._new(f"{said[0].upper()}{said[1:]}." for said in found)

    def _glued(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """The beginning of one sentence with the end of another."""
        quotes = _quotes(place) + _quotes(near[0]) if near else _quotes(place)
        halves = [(quote, quote[: m.start()], quote[m.start() :]) for quote in quotes if (m := _middle(quote))]
        if len(halves) < 2:
            return None
        (first, head, _), (second, _, tail) = rng.sample(halves, 2)
        return self._new([head + tail]) if first != second else None

    def _swapped(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """A sentence of another document, which is no evidence here."""
        known = {each.document.id for each in (place, *near)}
        others = [
            each for each in rng.sample(self._places, min(20, len(self._places))) if each.document.id not in known
        ]
        found = [quote for each in others for quote in _quotes(each)]
        texts = [each.document.text for each in (place, *near)]
        best = sorted(found, key=lambda quote: -overlap(quote, place.passage.text))[:3]
        free = [quote for quote in best if not any(quote in text for text in texts)]
        return rng.choice(free) if free else None

    def _removed(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """A true sentence whose passage was taken out of the evidence."""
        found = [
            quote
            for quote in _quotes(place)
            if max((overlap(quote, each.passage.text) for each in near), default=1) < _SAID
        ]
        return rng.choice(found) if found and near else None

    def _invented(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        quote = rng.choice(_quotes(place))
        start = " ".join(quote.rstrip(".").split()[:8])
        title = place.document.title
        return self._new([rng.choice(_INVENTED).format(title=title, start=start, lower=title[:1].lower() + title[1:])])

    def _pronoun(self, place: Place, near: Sequence[Place], rng: random.Random) -> str | None:
        """A sentence that leans on the one before it, behind another one."""
        leaning = [quote for number, quote in enumerate(_quotes(place)) if number and opener(quote)]
        before = {_quotes(place)[_quotes(place).index(quote) - 1] for quote in leaning}
        honest = [quote for quote in _quotes(place) if not opener(quote)]
        return rng.choice(leaning) if leaning and not before & set(honest) else None

    def _new(self, found: Iterator[str] | Sequence[str]) -> str | None:
        """The first that is no sentence of any document."""
        return next((text for text in found if text not in self._all and len(text) > 10), None)


def _key(words: str) -> str:
    return key(normal(words).text)


def _quotes(place: Place) -> list[str]:
    return [place.quote(number) for number in range(len(place.quotes))]


def _middle(quote: str) -> re.Match[str] | None:
    marks = [match for match in re.finditer(r" (?=(?:is|are|was|were|can|may|must|should|has|have|will)\b)", quote)]
    return next((match for match in marks if 10 < match.start() < len(quote) - 15), None)


def _cited(words: str, place: Place, start: int) -> Citation:
    """A citation as a model would make it up: of a real place, with the words that it needs there."""
    passage, document = place.passage, place.document
    at = document.text.find(words)
    at = at if at >= 0 else passage.start
    return Citation(
        passage=passage.id,
        document=document.id,
        version=document.version,
        title=document.title,
        url=document.url,
        start=at,
        end=at + len(words),
        quote=words,
        score=0.9,
        status=Status.SUPPORTED,
        answer_start=start,
        answer_end=start + len(words),
    )
