"""Documents, passages, evidence, citations and the grounded answers made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class KnowledgeError(Exception):
    """A document, index or setting that the knowledge base cannot work with; the message names the way out."""


class Unreadable(KnowledgeError):
    """One file that is left out of a knowledge base; the message is the reason and does not repeat the file's name."""


class QuarantineError(KnowledgeError):
    """The build ends because of the files that were left out: nothing else is there to quote, or none may be left out.

    Attributes:
        quarantined: the files and their reasons.
    """

    def __init__(self, message: str, quarantined: Sequence[Quarantined]) -> None:
        super().__init__(message)
        self.quarantined = tuple(quarantined)


class Encoder(Protocol):
    """Turns texts into unit vectors, so that their dot product is their similarity."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Names the weights: vectors of two encoders can be compared only if this is the same."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, shape ``(texts, dimension)``."""


class SupportModel(Protocol):
    """Judges whether a passage says what a claim says."""

    def support(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Support]:
        """One judgement for each pair of passage and claim, in order."""


class Status(StrEnum):
    """Whether a citation's quote stands in the document at its offsets."""

    SUPPORTED = "supported"
    REMOVED = "removed"


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
            url
            if isinstance(url, str) and url.startswith(("https://", "http://"))
            else f"airlock:knowledge/{self.id}@{self.version[:12]}"
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
    """A passage found for a question, with its cosine similarity, -1 to 1."""

    passage: Passage
    score: float


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
        score: similarity of the quote to the question, -1 to 1.
        status: whether the quote was found at its offsets.
        answer_start: first character of the sentence in the answer that rests on this quote.
        answer_end: character after the last.
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


@dataclass(frozen=True, slots=True)
class GroundedAnswer:
    """An answer whose every sentence is cited, or an abstention, which has no text and no citations.

    Attributes:
        answer: the text; empty when abstained.
        abstained: whether the knowledge base holds nothing that answers.
        citations: in the order of the answer's sentences, one for each.
        searched: what was looked at: the best evidence found, whether used or not.
    """

    answer: str
    abstained: bool
    citations: tuple[Citation, ...]
    searched: tuple[Evidence, ...] = ()
