"""Questions with a passage that does not answer them: another one of the same source, like the one taken out."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from training.grounding.rows import EvidenceRow

_NEAREST = 5


def swapped(rows: Sequence[EvidenceRow], *, seed: int, near: float = 0.5) -> list[EvidenceRow]:
    """Each answerable row with another passage of its source and split, and so without an answer.

    A passage that happens to answer as well is not noticed.

    Args:
        rows: those without an answer, and those of a source with a single passage, give none.
        seed: of the choice.
        near: share of the rows that get one of the five passages most like the question, in runs of characters; with 1
            each gets the most similar one, as a search would find it after the right one was taken out.
    """
    groups: dict[tuple[str, str], list[EvidenceRow]] = defaultdict(list)
    for row in rows:
        groups[row.source, row.split].append(row)
    return [found for group in groups.values() for found in _of_group(group, seed, near)]


def by_likeness(questions: Sequence[str], passages: Sequence[str]) -> Iterator[list[int]]:
    """For each question the places of all passages, those most like it in runs of characters first."""
    read = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    of_passages = read.fit_transform(passages)
    for question in read.transform(questions):
        alike = (question @ of_passages.T).toarray()[0]
        yield [int(at) for at in np.argsort(-alike, kind="stable")]


def _of_group(rows: Sequence[EvidenceRow], seed: int, near: float) -> list[EvidenceRow]:
    passages = list({row.sentences: row for row in rows}.values())
    asked = [row for row in rows if row.answers]
    if len(passages) < 2 or not asked:
        return []
    found = []
    orders = by_likeness([row.question for row in asked], [row.passage for row in passages])
    for row, order in zip(asked, orders, strict=True):
        rng = random.Random(f"{seed}/{row.question}/{row.passage}")
        others = [at for at in order if passages[at].sentences != row.sentences]
        chosen = others[:1] if near >= 1 else others[:_NEAREST] if rng.random() < near else others
        other = passages[rng.choice(chosen)]
        found.append(replace(row, sentences=other.sentences, topic=other.topic, answers=frozenset()))
    return found
