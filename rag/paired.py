"""Two sentence encoders as one: what is asked in a language that the second reads is compared by both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from rag.types import Encoder, KnowledgeError

_BOTH = "+"  # between the fingerprints of the two
_WEIGHT = 0.5  # of the second encoder's similarity
_CONSTANT = 0.1  # square of the component that is the same in every stored vector


class PairedEncoder:
    """An `rag.types.Encoder` whose similarity is the mean of those of two others, or the first one's alone.

    What is stored is embedded by both, and the two vectors stand side by side in one. A question that the second
    encoder reads is compared with both parts. Any other is compared with the first part, and then the similarity is
    what the first encoder alone gives. Since their floors differ, that takes a constant: the last component.

    Args:
        first: for all languages.
        second: for those that it reads; its floor is 0.
        reads: whether the second encoder reads a question.

    Raises:
        KnowledgeError: the second encoder's floor is another.
    """

    def __init__(self, first: Encoder, second: Encoder, reads: Callable[[str], bool]) -> None:
        if second.floor != 0.0:
            raise KnowledgeError(
                f"an encoder with the floor {second.floor} cannot be the second one; take a sentence-transformers model"
            )
        self._first = first
        self._second = second
        self._reads = reads
        of_both = (1 - _CONSTANT) / ((1 - _WEIGHT) / (1 - first.floor) + _WEIGHT)
        self.dimension = first.dimension + second.dimension + 1
        self.fingerprint = f"{first.fingerprint}{_BOTH}{second.fingerprint}"
        self.floor = 1 - of_both  # cosine of two stored texts that have nothing in common for either encoder
        self._alone = of_both / (1 - first.floor)  # what a cosine of the first counts where it is asked alone
        self._parts = sqrt((1 - _WEIGHT) * self._alone), sqrt(_WEIGHT * of_both), sqrt(_CONSTANT)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors of what may answer, shape ``(texts, dimension)``."""
        return self._joined(self._first.encode(texts, progress=progress), self._second.encode(texts, progress=progress))

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of questions that are stored, shape ``(texts, dimension)``."""
        return self._joined(self._first.encode_asks(texts), self._second.encode_asks(texts))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of what is asked, shape ``(texts, dimension)``; those of the first alone are no unit vectors."""
        first = self._first.encode_queries(texts)
        read = [place for place, text in enumerate(texts) if self._reads(text)]
        of_first, _, of_constant = self._parts
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        vectors[:, : self._first.dimension] = first * (self._alone / of_first)
        vectors[:, -1] = (self.floor - self._alone * self._first.floor) / of_constant
        if read:
            vectors[read] = self._joined(first[read], self._second.encode_queries([texts[place] for place in read]))
        return vectors

    def _joined(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
        of_first, of_second, constant = self._parts
        last = np.full((len(first), 1), constant)
        return np.hstack([first * of_first, second * of_second, last]).astype(np.float32)


class AbsentEncoder:
    """Stands for an encoder of a base by its name alone.

    For the second one, where it is not at hand: the base is searched with the first alone. Or for that of the whole
    base, where nothing is embedded.

    Args:
        fingerprint: of its weights.
        dimension: of its vectors.
    """

    def __init__(self, fingerprint: str, dimension: int) -> None:
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.floor = 0.0

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """No vectors, for no texts.

        Raises:
            KnowledgeError: there are texts.
        """
        if texts:
            raise KnowledgeError(
                f"the knowledge base was made with a second encoder, {self.fingerprint[:12]}…, without which nothing "
                "can be added; run `airlock model fetch`, or name it in knowledge.english_encoder"
            )
        return np.zeros((0, self.dimension), dtype=np.float32)

    encode_queries = encode_asks = encode


def parts_of(fingerprint: str) -> tuple[str, str | None]:
    """The fingerprints of the encoders that a base was made with: one, or both of a `PairedEncoder`."""
    first, _, second = fingerprint.partition(_BOTH)
    return first, second or None
