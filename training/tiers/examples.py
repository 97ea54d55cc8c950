"""Choose labelled rows as a model's examples, and write down what it says of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from classifier.examples import Examples, Labelled, adapter_of, log_odds
from classifier.model import TierClassifier
from training.datasets import TrainingError, read_all, text_key
from training.mixture import few_of_each
from training.tiers.evaluate import classify_rows


def write_examples(
    folder: Path, classifier: TierClassifier, data: Sequence[Path], *, each: int, split: str, seed: int
) -> int:
    """Write ``examples.jsonl`` and ``examples.safetensors`` into a model's folder.

    Args:
        folder: of the model.
        classifier: the model.
        data: JSONL rows.
        each: rows of a category, at most, chosen at random.
        split: of which split.
        seed: of the choice.

    Returns:
        How many there are.

    Raises:
        TrainingError: there are none.
    """
    of_split = [row for row in read_all(data, classifier.taxonomy) if row.split == split]
    rows = few_of_each(of_split, each, lambda row: row.category, seed)
    if not rows:
        raise TrainingError(f"{', '.join(map(str, data))}: no rows of split {split!r}; name another --split")
    said = [
        [verdict.categories[name] for name in classifier.taxonomy.ids] for verdict in classify_rows(classifier, rows)
    ]
    labelled = [Labelled(text_key(row.text), row.text, row.category) for row in rows]
    Examples(labelled, log_odds(said), classifier.taxonomy, adapter_of(folder)).save(folder)
    return len(rows)
