"""What rows of claims give away of their labels by how they were written, whatever the passage says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from training.grounding.edits import SOURCE, overlap
from training.grounding.rows import ClaimRow, Label

_FOLDS = 5
_SURE = 3.0
_CLEAR = 4.0  # correlation times the root of the number of rows
_WORDS = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 18, alternate_sign=False)

Values = NDArray[np.float64]


def guessed(rows: Sequence[ClaimRow]) -> list[float]:
    """How likely each claim is supported, by what gives labels away and is no reading of the passage.

    Two things do: the words of claims (a bag of words that saw claims on other passages), and in a source whose writers
    were told to support in other words, how few of a claim's words the passage holds. That much is shared speaks for
    support wherever language models write; a source in which it speaks against it is one that was written so.

    In log-odds, at most 3 from either, beside the mean of all, so that 0 tells nothing. So it is for built pairs, whose
    claims give nothing away and are in several pairs, and where there are too few passages to learn from. Only for
    languages that put spaces between words.
    A model that is trained beside these guesses learns what they cannot tell: a product of experts (Clark et al., 2019,
    arXiv 1909.03683).
    """
    found = np.zeros(len(rows))
    written = [at for at, row in enumerate(rows) if row.source != SOURCE]
    if not written:
        return found.tolist()
    by_source: dict[str, list[int]] = defaultdict(list)
    for at in written:
        by_source[rows[at].source].append(at)
    found[written] = _by_words([rows[at] for at in written])
    for places in by_source.values():
        found[places] += _by_few_shared([rows[at] for at in places])
    found[written] -= found[written].mean()
    return found.tolist()


def _by_words(rows: Sequence[ClaimRow]) -> Values:
    found = np.zeros(len(rows))
    words = _WORDS.transform([row.claim for row in rows])
    for learnt, held, supported in _folds(rows):
        model = LogisticRegression().fit(words[learnt], supported)
        found[held] = model.decision_function(words[held]).clip(-_SURE, _SURE)
    return found


def _by_few_shared(rows: Sequence[ClaimRow]) -> Values:
    """The same by the share of words that the passage holds, where few of them clearly speak for support."""
    found: Values = np.zeros(len(rows))
    shares = np.array([overlap(row.claim, row.passage) for row in rows])
    supported = np.array([row.label is Label.SUPPORTED for row in rows])
    constant = min(shares.std(), supported.std()) == 0
    if constant or np.corrcoef(shares, supported)[0, 1] * len(rows) ** 0.5 > -_CLEAR:
        return found
    for learnt, held, labels in _folds(rows):
        model = LogisticRegression(C=100.0).fit(shares[learnt, None], labels)
        found[held] = model.decision_function(shares[held, None]).clip(-_SURE, _SURE)
    found -= found.mean()
    return found


def _folds(rows: Sequence[ClaimRow]) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Places of the rows to learn from, of those to guess, and which of the first are supported; by passage."""
    numbers = {passage: at for at, passage in enumerate(dict.fromkeys(row.passage for row in rows))}
    if len(numbers) < _FOLDS:
        return []
    supported = np.array([row.label is Label.SUPPORTED for row in rows])
    passages = np.array([numbers[row.passage] for row in rows])
    split = GroupKFold(_FOLDS).split(passages, supported, passages)
    return [(learnt, held, supported[learnt]) for learnt, held in split if len(set(supported[learnt])) == 2]
