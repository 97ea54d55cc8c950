"""The labelled rows that a model is measured on: those of a split, or all of files that name no split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from classifier.taxonomy import Taxonomy
from training.datasets import Row, TrainingError, names_splits, read_all
from training.lineage import forebears, read_manifest
from training.manifest import file_sha256


def measured_rows(
    data: Sequence[Path],
    taxonomy: Taxonomy,
    split: str,
    *,
    models: Iterable[Path],
    say: Callable[[str], None],
    labels: Path | None = None,
    languages: Sequence[str] = (),
) -> list[Row]:
    """The rows of a split and, of files that name no split at all, every row.

    Args:
        data: JSONL files.
        taxonomy: of the models.
        split: its name.
        models: folders of the models that are measured.
        say: is told of files that are measured whole.
        labels: decisions that replace labels of the data.
        languages: rows in these only; empty means any.

    Raises:
        TrainingError: there are none; or a file that names no split is what a model was trained on.
    """
    where = ", ".join(map(str, data))
    if split != "train":
        whole = {file_sha256(path): path for path in data if not names_splits(path)}
        for folder in models if whole else ():
            manifest = read_manifest(folder)
            for each in (manifest, *forebears(manifest)):
                known = sorted(str(path) for digest, path in whole.items() if digest in each["data"].values())
                if known:
                    raise TrainingError(
                        f"--data {known[0]}: {each['name']} was trained on it, and it names no `split` that was kept "
                        "from training; give rows that are new to the model, or measure on these by --split train"
                    )
        for path in whole.values():
            say(
                f"{path} names no split: all its rows are taken to be new to the model; only a file that it was "
                "trained on byte for byte is told"
            )
    rows = read_all(data, taxonomy, labels, unsplit=split)
    chosen = [row for row in rows if row.split == split and (not languages or row.lang in languages)]
    if not chosen:
        asked = f" in {' or '.join(languages)}" if languages else ""
        there = ", ".join(sorted({row.split for row in rows}))
        raise TrainingError(
            f"{where}: no rows of split {split!r}{asked}; there are: {there} (a row without `split` is of `train`); "
            "name another --split"
        )
    return chosen
