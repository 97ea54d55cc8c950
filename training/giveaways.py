"""What claims give away by their words alone, whatever the passage says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from training.edits import SOURCE
from training.grounding_rows import ClaimRow, Label

_FOLDS = 5
_SURE = 3.0
_WORDS = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 18, alternate_sign=False)


def guessed(rows: Sequence[ClaimRow]) -> list[float]:
    """How likely each claim is supported, by a bag of words that saw claims on other passages and no passage.

    In log-odds, beside the mean of all, so that 0 tells nothing. So it is for built pairs, whose claims give nothing
    away and are in several pairs, and where there are too few passages to learn from. Only for languages that put
    spaces between words.
    A model that is trained beside these guesses learns what they cannot tell: a product of experts (Clark et al., 2019,
    arXiv 1909.03683).
    """
    found = np.zeros(len(rows))
    written = np.array([at for at, row in enumerate(rows) if row.source != SOURCE], dtype=int)
    numbers = {passage: at for at, passage in enumerate(dict.fromkeys(rows[at].passage for at in written))}
    if len(numbers) < _FOLDS:
        return found.tolist()
    texts = np.array([rows[at].claim for at in written], dtype=object)
    supported = np.array([rows[at].label is Label.SUPPORTED for at in written])
    passages = np.array([numbers[rows[at].passage] for at in written])
    for learnt, held in GroupKFold(_FOLDS).split(texts, supported, passages):
        if len(set(supported[learnt])) == 2:
            model = make_pipeline(_WORDS, LogisticRegression()).fit(texts[learnt], supported[learnt])
            found[written[held]] = model.decision_function(texts[held]).clip(-_SURE, _SURE)
    found[written] -= found[written].mean()
    return found.tolist()
