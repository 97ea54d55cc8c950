"""What claims give away by their words alone, whatever the passage says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from training.grounding_rows import ClaimRow, Label

_FOLDS = 5
_SURE = 0.95


def guessed(rows: Sequence[ClaimRow]) -> list[float]:
    """How likely each claim is supported, by a bag of words that saw claims on other passages and no passage.

    Between 0.05 and 0.95. A model that is trained beside these guesses learns what they cannot tell: a product of
    experts (Clark et al., 2019, arXiv 1909.03683).

    Args:
        rows: at least five passages, with supported claims and others.
    """
    texts = np.array([row.claim for row in rows], dtype=object)
    supported = np.array([row.label is Label.SUPPORTED for row in rows])
    numbers = {passage: at for at, passage in enumerate(dict.fromkeys(row.passage for row in rows))}
    passages = np.array([numbers[row.passage] for row in rows])
    found = np.full(len(rows), 0.5)
    for learnt, held in GroupKFold(_FOLDS).split(texts, supported, passages):
        if len(set(supported[learnt])) == 2:
            model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression())
            found[held] = model.fit(texts[learnt], supported[learnt]).predict_proba(texts[held])[:, 1]
    return [float(value) for value in found.clip(1 - _SURE, _SURE)]
