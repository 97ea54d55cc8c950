"""What every exported runtime reads: the tokenizer, and the embedding table, of which only the rows used come in."""

from __future__ import annotations

import gc
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as TokenizerFile

from classifier.exported import EMBEDDINGS, EXPORT_AGAIN
from classifier.types import ClassifierError
from classifier.unigram import Unigram, UnigramTokenizer

TOKENIZER, PIECES, SCORES = "tokenizer.json", "pieces.txt", "scores.npy"
CHECKSUMS, SPECIAL = "checksums.npy", "special.json"


@dataclass(frozen=True, slots=True)
class ExportedTokenizer:
    """The tokenizer of an export (`classifier.runtime.Tokenizer`).

    Attributes:
        name: the encoder's setting.
        before: ids of the special tokens before a text.
        after: those after it.
        unknown: id of what the vocabulary does not know.
        pad: id that fills rows up.
        longest: tokens that the encoder reads; None for any number.
        words: does the work.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    unknown: int | None
    pad: int
    longest: int | None
    words: TokenizerFile | UnigramTokenizer

    @classmethod
    def load(cls, folder: Path, name: str) -> ExportedTokenizer:
        """Read the tokenizer of a checked folder.

        Raises:
            ClassifierError: it cannot be read.
        """
        try:
            special: dict[str, Any] = json.loads((folder / SPECIAL).read_text(encoding="utf-8"))
            frame = TokenizerFile.from_file(str(folder / TOKENIZER))
            words: TokenizerFile | UnigramTokenizer = frame
            if (folder / PIECES).exists():
                with _without_collector():
                    pieces = (folder / PIECES).read_text(encoding="utf-8").split("\n")
                    scores = np.load(folder / SCORES).tolist()
                    words = UnigramTokenizer(frame, Unigram(pieces, scores, special["unknown"]))
            else:
                frame.encode_special_tokens = True  # what is written like one is text
            return cls(
                name,
                tuple(special["before"]),
                tuple(special["after"]),
                special["unknown"],
                special["pad"],
                special["longest"],
                words,
            )
        except Exception as exc:
            raise ClassifierError(f"tokenizer in {folder} cannot be read: {exc}; {EXPORT_AGAIN}") from exc

    def split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a whole text and the characters of each, no special tokens among them."""
        if isinstance(self.words, UnigramTokenizer):
            return self.words.split(text)
        encoding = self.words.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets


class Embeddings:
    """Rows of ids → what the first layer reads; the table stays on disk but for the rows that were used.

    Args:
        folder: with table and checksums.
        tokenizer: whose special tokens rows get.

    Raises:
        ClassifierError: the table cannot be read.
    """

    def __init__(self, folder: Path, tokenizer: ExportedTokenizer) -> None:
        try:
            self._table = np.load(folder / EMBEDDINGS, mmap_mode="r")
            self._checksums = np.load(folder / CHECKSUMS)
        except (OSError, ValueError) as exc:
            raise ClassifierError(f"embeddings in {folder} cannot be read: {exc}; {EXPORT_AGAIN}") from exc
        self._path = folder / EMBEDDINGS
        self._tokenizer = tokenizer

    @staticmethod
    def write(table: NDArray[np.float16], folder: Path) -> None:
        """Write a table, ``(vocabulary, hidden)``, with a checksum of each row."""
        np.save(folder / EMBEDDINGS, table)
        np.save(folder / CHECKSUMS, np.array([zlib.crc32(row.tobytes()) for row in table], dtype=np.uint32))

    def collate(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Embeddings, shape ``(rows, longest, hidden)``, and mask, ``(rows, longest)``, special tokens included.

        Raises:
            ClassifierError: one that is read is not as it was written.
        """
        before, after, pad = self._tokenizer.before, self._tokenizer.after, self._tokenizer.pad
        built = [[*before, *row, *after] or [pad] for row in rows]
        width = max(map(len, built))
        ids = np.array([row + [pad] * (width - len(row)) for row in built])
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in built], dtype=np.int64)
        for number in {*(token for row in built for token in row), pad}:
            if zlib.crc32(self._table[number].tobytes()) != self._checksums[number]:
                raise ClassifierError(f"row {number} of {self._path} is damaged; {EXPORT_AGAIN}")
        return self._table[ids].astype(np.float32), mask


@contextmanager
def _without_collector() -> Iterator[None]:
    """Half a million new objects, none of them garbage: a third of the time to load them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
