"""A small knowledge base, and a deterministic encoder that needs no weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.documents import version
from rag.types import Document

MEDICINES = """---
title: Paracetamol
publisher: Test
categories: [c_medical, c_dose]
retrieved: 2026-01-31
stance: null
---

# Paracetamol

Paracetamol eases pain and fever. It is sold without prescription.

## Dose

- An adult waits four hours between two doses of paracetamol.
- The maximum of paracetamol is eight tablets in a day,
  which is 4,000 mg.
"""

VOTING = """---
title: The voting age
stance: several positions
---

# The voting age

The voting age is 18 in most countries.

## Supporters of a lower voting age

Supporters of a lower voting age say that sixteen-year-olds pay taxes. Supporters also name turnout.

## Opponents of a lower voting age

Opponents of a lower voting age say that judgement ripens late. Opponents also fear influence.
"""

SPEED = """# Speed on the road

The stopping distance grows with the square of the speed.
"""


def write_source(folder: Path) -> Path:
    """Three documents, one of them disputed and one without front matter."""
    (folder / "health").mkdir(parents=True)
    (folder / "health" / "paracetamol.md").write_text(MEDICINES, encoding="utf-8")
    (folder / "voting.md").write_text(VOTING, encoding="utf-8")
    (folder / "speed.txt").write_text(SPEED, encoding="utf-8")
    return folder


def document(name: str, text: str, title: str = "", **metadata: str | list[str]) -> Document:
    """A document of that text; its title is its id, if none is given."""
    title = title or name
    return Document(name, version(title, metadata, text), title, text, metadata)


class HashedWords:
    """An `Encoder`: a text is the bag of its words, each hashed to a signed place. Refuses what is not Unicode."""

    def __init__(self, dimension: int = 256, fingerprint: str = "hashed-words") -> None:
        self.dimension = dimension
        self.fingerprint = fingerprint
        self.floor = 0.0

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode(texts)

    def encode_asks(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode(texts)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in re.findall(rb"\w+", text.lower().encode()) or [b""]:
                digest = int.from_bytes(hashlib.sha256(word).digest()[:4], "big")
                vector[digest % self.dimension] += 1 if digest >> 31 else -1
            if not vector.any():  # words that cancel out
                vector[0] = 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
