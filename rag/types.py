"""Documents, passages, evidence, citations and the grounded answers made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADDRESS = "airlock:knowledge/"  # before a document's id and version


def address(document: str, version: str) -> str:
    """What names one version of a document; `airlock kb show` takes it."""
    return f"{ADDRESS}{document}@{version[:12]}"


class KnowledgeError(Exception):
    """A document, index or setting that the knowledge base cannot work with; the message names the way out."""


class Unusable(KnowledgeError):
    """A knowledge base that is missing, damaged or of an old format: only a new one can stand in its place."""


class Unreadable(KnowledgeError):
    """One file that is left out of a knowledge base; the message is the reason and does not repeat the file's name."""


class Unfinished(Unreadable):
    """Reading the file took too long, failed or ended the reader: another time it may be read."""


class InputError(KnowledgeError):
    """What a caller asked to have checked is empty or beyond a limit.

    Attributes:
        param: the argument at fault: ``answer`` or ``passages``.
    """

    def __init__(self, message: str, param: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


class QuarantineError(KnowledgeError):
    """The build ends because of the files that were left out: nothing else is there to quote, or none may be left out.

    Attributes:
        quarantined: the files and their reasons.
    """

    def __init__(self, message: str, quarantined: Sequence[Quarantined]) -> None:
        super().__init__(message)
        self.quarantined = tuple(quarantined)


class Encoder(Protocol):
    """Turns texts into unit vectors, whose dot product says how alike the texts are; see `similarity`."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Names the weights: vectors of two encoders can be compared only if this is the same."""

    @property
    def floor(self) -> float:
        """Cosine of two texts that have nothing in common, -1 to 1; similarities are counted from there."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors of what may answer, shape ``(texts, dimension)``."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of what is asked, shape ``(texts, dimension)``: their products with the others are cosines."""

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of questions that are kept and found by others, shape ``(texts, dimension)``."""


def similarity(cosine: float, floor: float) -> float:
    """A cosine on the scale that all encoders share: 0 for texts that have nothing in common, 1 for the same text.

    Args:
        cosine: of two vectors; a sum of rounding errors may take it out of its bounds.
        floor: of the encoder that made them.
    """
    return (min(max(cosine, -1.0), 1.0) - floor) / (1.0 - floor)


class Reranker(Protocol):
    """Judges how well texts answer a query, more slowly and better than a comparison of vectors."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One figure for each text, the higher the better; only their order counts."""


PROTECTIVE_FROM = 0.35  # similarity from which a protective document is quoted, measured on ``data/questions``


class SupportModel(Protocol):
    """Judges whether a passage says what a claim says."""

    def support(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Support]:
        """One judgement for each pair of passage and claim, in order."""


class Status(StrEnum):
    """What the evidence says of a sentence; only a supported one stays in an answer."""

    SUPPORTED = "supported"  # the evidence says it
    UNSUPPORTED = "unsupported"  # the evidence does not say it
    CONTRADICTED = "contradicted"  # the evidence says something else
    UNVERIFIABLE = "unverifiable"  # nothing here can tell


@dataclass(frozen=True, slots=True)
class Support:
    """A support model's judgement of one claim; the probabilities sum to 1."""

    supported: float
    contradicted: float
    not_stated: float


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one document.

    Attributes:
        id: stable name: path below the knowledge base's source folder, without suffix, ``/`` between parts; for a row
            of a list, the list's path, ``/`` and the row's id.
        version: SHA-256 over title, metadata and text, in hex; a change of any makes a new version.
        title: from the metadata, else the first heading, else the id.
        text: the stored text, as it was extracted from the file; all offsets count its characters.
        metadata: what else the file or its sidecar says, such as publisher, url, licence, stance, trust, and the dates
            published, retrieved and expires in ISO 8601.
    """

    id: str
    version: str
    title: str
    text: str
    metadata: Mapping[str, str | list[str]]

    @property
    def disputed(self) -> bool:
        """Whether the document sets out several positions (it has a `stance`), and so is quoted from all sides."""
        return bool(self.metadata.get("stance"))

    @property
    def url(self) -> str:
        """Where a reader finds the document: its `url` on the web, else an ``airlock:`` name with its version."""
        url = self.metadata.get("url")
        return (
            url if isinstance(url, str) and url.startswith(("https://", "http://")) else address(self.id, self.version)
        )


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that is left out of a knowledge base.

    Attributes:
        path: below the source folder, ``/`` between parts.
        reason: what is wrong with it, and the way out.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a folder of documents gave.

    Attributes:
        documents: those that can be used, in the order of their ids.
        quarantined: the files left out, in the order of their paths.
    """

    documents: tuple[Document, ...]
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one file may ask for; beyond, it is quarantined.

    Attributes:
        bytes: of the file, on disk.
        unpacked: bytes of a compressed file's content.
        characters: of one document's text.
        seconds: to read it.
        memory: bytes of address space of the process that reads it, where the system keeps such a limit.
    """

    bytes: int = 20 * 1024 * 1024
    unpacked: int = 100 * 1024 * 1024
    characters: int = 2_000_000
    seconds: float = 60.0
    memory: int = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole sentences of one document; ``text == document.text[start:end]``."""

    id: str
    document: str
    version: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage found for a question.

    Attributes:
        passage: the passage.
        score: its similarity to the question, -1 to 1.
        asked: similarity to the question of the nearest of its document's `asks`, -1 to 1; None if it has none, or if
            only words were searched for.
    """

    passage: Passage
    score: float
    asked: float | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """A quoted span of a document, and where the answer uses it.

    Attributes:
        passage: id of the passage the quote was taken from.
        document: id of the document.
        version: the document's version.
        title: the document's title.
        url: where a reader finds it.
        start: first character of the quote in the document's text.
        end: character after the last.
        quote: ``document.text[start:end]``.
        score: similarity of the quote to the question, -1 to 1; in a report, see `rag.answer.Answerer.check`.
        status: what the quote says of the sentence of the answer.
        answer_start: first character of the sentence in the answer that rests on this quote.
        answer_end: character after the last.
        verbatim: whether that sentence is the quote; else it is a paraphrase that a support model confirmed.
    """

    passage: str
    document: str
    version: str
    title: str
    url: str
    start: int
    end: int
    quote: str
    score: float
    status: Status
    answer_start: int
    answer_end: int
    verbatim: bool = True

    @property
    def place(self) -> dict[str, int]:
        """Where the sentence stands that rests on it, as it is written beside `as_dict` where that is not plain."""
        return {"answer_start": self.answer_start, "answer_end": self.answer_end}

    def as_dict(self) -> dict[str, Any]:
        """The form of the wires and of the command line."""
        values = asdict(self) | {"status": self.status.value}
        return {name: value for name, value in values.items() if name not in self.place}

    @classmethod
    def of(cls, document: Document, start: int, end: int, *, passage: str, score: float) -> Citation:
        """A quote of a document, without a place in an answer."""
        return cls(
            passage=passage,
            document=document.id,
            version=document.version,
            title=document.title,
            url=document.url,
            start=start,
            end=end,
            quote=document.text[start:end],
            score=score,
            status=Status.SUPPORTED,
            answer_start=0,
            answer_end=0,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """A place in the evidence: ``passages[passage].text[start:end]``."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Checked:
    """One sentence of an answer, and what the evidence says of it.

    Attributes:
        start: first character of the sentence in the answer.
        end: character after the last.
        text: ``answer[start:end]``.
        status: a sentence stays in the answer only if it is supported.
        rule: what decided: ``quote``, ``support-model``, or the rule that failed, such as ``number`` or ``negation``.
        reason: the same in words.
        evidence: the quote, or the sentences that it was compared with; empty where nothing is like it.
        score: 1 for a quote, the support model's probability of its verdict, else the share of the sentence's words,
            weighted by their rarity, that the evidence has.
    """

    start: int
    end: int
    text: str
    status: Status
    rule: str
    reason: str
    evidence: tuple[Source, ...]
    score: float


@dataclass(frozen=True, slots=True)
class GroundingReport:
    """An answer held against evidence.

    Attributes:
        answer: as it was given.
        passages: the evidence.
        sentences: every sentence of the answer, in order.
        kept: what remains of the answer; empty when abstained.
        abstained: whether what remains is too little to be an answer.
        citations: one for each supported sentence, by its place in `answer`, where the evidence is a knowledge base's.
        positions: headings of the positions on a disputed topic that are cited; None where nothing disputed is.
    """

    answer: str
    passages: tuple[Passage, ...]
    sentences: tuple[Checked, ...]
    kept: str
    abstained: bool
    citations: tuple[Citation, ...] = ()
    positions: tuple[str, ...] | None = None

    @property
    def supported(self) -> bool:
        """Whether every sentence is, and there is one."""
        return bool(self.sentences) and all(checked.status is Status.SUPPORTED for checked in self.sentences)

    def as_dict(self) -> dict[str, Any]:
        """The form of the command line and the API; of the passages, their places and not their texts."""
        return {
            "supported": self.supported,
            "abstained": self.abstained,
            "kept": self.kept,
            "sentences": [
                asdict(checked) | {"status": checked.status.value, "score": round(checked.score, 4)}
                for checked in self.sentences
            ],
            "passages": [
                {name: getattr(passage, name) for name in ("id", "document", "version", "start", "end")}
                for passage in self.passages
            ],
            "citations": [{**citation.place, **citation.as_dict()} for citation in self.citations],
            "positions": None if self.positions is None else list(self.positions),
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """How strict the citation gate is, and how much it reads.

    Attributes:
        supported: probability of a support model from which a paraphrase is supported.
        contradicted: probability of a support model from which a paraphrase is contradicted.
        overlap: share of a sentence's words, 0 to 1, below which no evidence is like it; a support model reads it all
            the same.
        kept: share of the answer's characters below which what remains does not answer.
        answer_characters: of an answer, at most.
        passage_characters: of all passages together, at most.
        passage_sentences: of all passages together, at most.
    """

    supported: float = 0.8
    contradicted: float = 0.5
    overlap: float = 0.25
    kept: float = 0.5
    answer_characters: int = 20_000
    passage_characters: int = 1_000_000
    passage_sentences: int = 20_000

    def __post_init__(self) -> None:
        for name in ("supported", "contradicted", "overlap", "kept"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise KnowledgeError(f"gate {name} = {getattr(self, name)}: need a share between 0 and 1")


DEFAULT_GATE = Gate()


@dataclass(frozen=True, slots=True)
class Premise:
    """A statement that a question takes for granted and a trusted document contradicts.

    Attributes:
        claim: the statement, in the question's own words.
        rule: what found it: a hard rule, such as ``number`` or ``negation``, or ``support-model``.
        citation: the sentence that says otherwise; one of the answer's.
    """

    claim: str
    rule: str
    citation: Citation


@dataclass(frozen=True, slots=True)
class GroundedAnswer:
    """An answer whose every sentence is cited, or an abstention, which has no text and no citations.

    Attributes:
        answer: the text; empty when abstained.
        abstained: whether the knowledge base holds nothing that answers.
        citations: in the order of the answer's sentences, one for each.
        searched: what was looked at: the best evidence found, whether used or not.
        positions: headings of the positions on a disputed topic that are quoted; None where nothing disputed is.
        premises: what the question takes for granted wrongly; the answer begins with the sentences that say so. Naming
            a premise is not part of the text, whose every word is cited.
        related: whether it is no sure answer, but what the nearest document says on the topic; see `rag.related`.
    """

    answer: str
    abstained: bool
    citations: tuple[Citation, ...]
    searched: tuple[Evidence, ...] = ()
    positions: tuple[str, ...] | None = None
    premises: tuple[Premise, ...] = ()
    related: bool = False

    @property
    def cited(self) -> tuple[str, ...]:
        """The addresses of the documents' versions that are quoted, each once."""
        return tuple(dict.fromkeys(address(each.document, each.version) for each in self.citations))

    @property
    def outcome(self) -> str:
        """``answered``, ``related`` or ``abstained``."""
        return "abstained" if self.abstained else "related" if self.related else "answered"
