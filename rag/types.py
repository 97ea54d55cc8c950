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


class Status(StrEnum):
    """Whether a citation's quote stands in the document at its offsets."""

    SUPPORTED = "supported"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one document.

    Attributes:
        id: stable name: path below the knowledge base's source folder, without suffix, ``/`` between parts.
        version: SHA-256 over title, metadata and text, in hex; a change of any makes a new version.
        title: from the front matter, else the first heading, else the id.
        text: the stored text; all offsets count its characters.
        metadata: the rest of the front matter, such as publisher, topic, url, categories, licence, stance.
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
