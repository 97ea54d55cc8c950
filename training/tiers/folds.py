"""Source-held-out folds: train without some sources, test on them. The number to steer by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from classifier.taxonomy import Taxonomy
from classifier.types import Tier
from training.datasets import LOOK_ALIKES, Row, TrainingError
from training.mixture import few_of_each
from training.tiers.evaluate import Judged, recall_at

REFUSED = 0.03
FLAGGED = 0.10
_FEWEST_SOURCES = 6
FEWEST = 30  # rows of a source that its figure needs to count
_COUNTED = {"caught": "unsafe_rows", "risk_recall": "risky_rows"}


def read_folds(path: Path) -> dict[str, list[str]]:
    """Names of folds and the sources that each keeps out of training.

    Raises:
        TrainingError: the file is missing or malformed, or a source is in two folds.
    """
    try:
        folds = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise TrainingError(f"folds {path}: {exc}; give a YAML file of `name: [source, …]`") from exc
    if not isinstance(folds, dict) or not all(isinstance(sources, list) for sources in folds.values()):
        raise TrainingError(f"folds {path}: need `name: [source, …]` for each fold")
    every = [source for sources in folds.values() for source in sources]
    twice = sorted({source for source in every if every.count(source) > 1})
    if twice:
        raise TrainingError(f"folds {path}: in two folds: {', '.join(twice)}; leave each source in one")
    return folds


def sample(rows: Sequence[Row], taxonomy: Taxonomy, each: int, seed: int) -> list[Row]:
    """At most `each` rows of a source, language and tier, chosen at random."""
    return few_of_each(rows, each, lambda row: (row.source, row.lang, taxonomy.category(row.category).tier), seed)


def summarize(judged: Judged) -> dict[str, Any]:
    """Figures of a fold's own rows, judged by a model that was trained without their sources.

    Thresholds are set on the fold's own Safe rows, by language: where 3 % of them are refused, where 10 % are flagged.
    In some folds half of these only look harmful, which no traffic does; so `…_ordinary` takes those away first.

    Returns:
        By language: what happens to Safe rows and look-alikes at the operating point; `caught` (Unsafe rows refused at
        the first threshold) and `risk_recall` (rows of any tier but Safe flagged at the second), for all and by source.
    """
    languages = np.array([row.lang if row.lang in ("en", "zh") else "other" for row in judged.rows])
    found = [language for language in ("en", "zh", "other") if language in languages]
    return {language: _of_language(judged, languages == language) for language in found}


def _of_language(judged: Judged, here: Any) -> dict[str, Any]:  # noqa: ANN401 - mask
    sources = np.array([row.source for row in judged.rows])
    look_alike = np.array([row.category == LOOK_ALIKES for row in judged.rows]) & here
    refused, risk = judged.tiers[:, Tier.UNSAFE], 1 - judged.tiers[:, Tier.SAFE]
    safe = here & (judged.truth == Tier.SAFE)

    def found(mask: Any) -> dict[str, float | None]:  # noqa: ANN401 - mask
        unsafe, risky = mask & (judged.truth == Tier.UNSAFE), mask & (judged.truth != Tier.SAFE)
        ordinary = safe & ~look_alike
        return {
            "caught": _or_none(recall_at(refused[safe], refused[unsafe], REFUSED)),
            "caught_ordinary": _or_none(recall_at(refused[ordinary], refused[unsafe], REFUSED)),
            "risk_recall": _or_none(recall_at(risk[safe], risk[risky], FLAGGED)),
            "risk_recall_ordinary": _or_none(recall_at(risk[ordinary], risk[risky], FLAGGED)),
        }

    def share(mask: Any, wrong: Any) -> float | None:  # noqa: ANN401 - masks
        return round(float(np.mean(wrong[mask])), 4) if mask.any() else None

    return {
        "safe_rows": int(safe.sum()),
        "safe_refused_at_operating_point": share(safe, judged.predicted == Tier.UNSAFE),
        "safe_flagged_at_operating_point": share(safe, judged.predicted != Tier.SAFE),
        "look_alikes_refused": share(look_alike, judged.predicted == Tier.UNSAFE),
        **found(here),
        "by_source": {
            source: {
                "unsafe_rows": int((here & (sources == source) & (judged.truth == Tier.UNSAFE)).sum()),
                "risky_rows": int((here & (sources == source) & (judged.truth != Tier.SAFE)).sum()),
                **found(here & (sources == source)),
            }
            for source in sorted(set(sources[here].tolist()))
        },
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def pooled(folds: Mapping[str, Mapping[str, Any]], language: str) -> dict[str, Any]:
    """Figures over the sources of all folds, for one language; sources of few rows do not count.

    Returns:
        For each figure the number of `sources`, the `mean` over them, its 95 % bootstrap `interval` over the choice of
        sources (None for fewer than 6, which say too little of others), and the `worst` source.
    """
    counting = {f"{name}{of}": rows for name, rows in _COUNTED.items() for of in ("", "_ordinary")}
    found: dict[str, list[float]] = {name: [] for name in counting}
    for fold in folds.values():
        for figures in fold.get(language, {}).get("by_source", {}).values():
            for name, rows in counting.items():
                if figures[rows] >= FEWEST and figures[name] is not None:
                    found[name].append(figures[name])
    result: dict[str, Any] = {}
    for name, values in found.items():
        if values:
            means = np.random.default_rng(0).choice(values, (1000, len(values))).mean(1)
            interval = np.percentile(means, [2.5, 97.5]).round(4).tolist()
            result[f"{name}_sources"] = len(values)
            result[f"{name}_mean"] = round(float(np.mean(values)), 4)
            result[f"{name}_interval"] = interval if len(values) >= _FEWEST_SOURCES else None
            result[f"{name}_worst"] = min(values)
    return result
