"""Calibrate a trained classifier: its temperature, and thresholds that keep to budgets on rows nobody has seen."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from classifier.calibration import AS_TRAINED, Calibration
from classifier.settings import ClassifierSettings, Doubt, OperatingPoint
from classifier.taxonomy import TAXONOMY, Taxonomy
from classifier.types import Tier
from training.datasets import Row, TrainingError, read_all, text_key
from training.intervals import interval, mean
from training.lineage import forebears, read_manifest
from training.manifest import adapter_sha256, file_sha256, provenance, put_in_place, write_json
from training.tiers.calibration_card import told_in_card
from training.tiers.conformal import Budget, Threshold, above, below, carried
from training.tiers.operating_point import LOWEST
from training.tiers.readings import Calibrated, Mask, NothingToFitError, Readings
from training.tiers.reliability import calibration_figures
from training.tiers.scores import Scores
from training.tiers.settings import settings_of
from training.tiers.train_classifier import Split, refuse_other_data

FITTING = 5  # one row in so many, by the hash of its text, fits the temperature; the others choose the thresholds
FEWEST = 250
_FEWEST_OF_SOURCE = 50
GROUPINGS = ("tier", "language")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What thresholds are to keep to; None leaves one where as many rows reach it as before.

    Attributes:
        miss: of the texts of any tier but Safe, those that may be surely Safe.
        false_flag: of the ordinary Safe texts, those that may surely be of another tier; look-alikes do not count (see
            `training.tiers.operating_point.Budgets`).
        false_refusal: of the same, those that may be Unsafe.
        by: ``tier``, ``language``: each budget holds in each of these too.
    """

    miss: Budget | None = None
    false_flag: Budget | None = None
    false_refusal: Budget | None = None
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = set(self.by) - set(GROUPINGS)
        if wrong:
            raise TrainingError(f"--by {sorted(wrong)[0]}: give {' or '.join(GROUPINGS)}")

    def thresholds(
        self,
        readings: Readings,
        found: Calibrated,
        mask: Mask | None = None,
        *,
        kept: OperatingPoint | None = None,
    ) -> dict[str, Threshold]:
        """The thresholds that the budgets ask for on some rows, by budget.

        A budget says how far a threshold may go, and rows that the model tells apart with ease let it go anywhere. So
        one that has nothing beside it to hold it back goes no further than the point that is kept: of misses, no
        higher; of false flags and refusals, which are only ever spent on catching more, no lower than `LOWEST`, as in
        training, or than that point where it is lower still.

        Args:
            readings: rows.
            found: their probabilities.
            mask: which of them choose; None is all.
            kept: the point that holds back; None holds nothing back.

        Raises:
            TrainingError: the rows are too few for a budget, or no threshold meets it.
        """
        some = np.ones(len(readings.rows), bool) if mask is None else mask
        risky, safe = some & readings.risky, some & readings.ordinary
        highest, lowest, lowest_unsafe = 1.0, 0.0, 0.0
        if kept:
            lowest_unsafe = min(kept.unsafe, LOWEST)
            if not (self.miss and self.false_flag):
                highest = min(kept.risk, kept.several.risk if kept.several else 1.0)
                lowest = min(kept.risk, LOWEST)
        asked = (
            ("miss", self.miss, partial(below, most=highest), found.risk, risky),
            ("false_flag", self.false_flag, partial(above, least=lowest), found.risk, safe),
            ("false_refusal", self.false_refusal, partial(above, least=lowest_unsafe), found.unsafe, safe),
        )
        return {
            name: choose(budget, scores[rows], self._groups(readings, rows))
            for name, budget, choose, scores, rows in asked
            if budget
        }

    def _groups(self, readings: Readings, mask: Mask) -> list[dict[str, Mask]]:
        at = np.flatnonzero(mask)
        labels = {
            "tier": np.array([Tier(tier).label for tier in readings.truth[at]]),
            "language": np.array([readings.rows[place].lang for place in at]),
        }
        found = [{str(name): labels[key] == name for name in np.unique(labels[key])} for key in self.by]
        return [groups for groups in found if len(groups) > 1]  # Safe rows are of one tier


def point_of(thresholds: Mapping[str, Threshold], kept: OperatingPoint) -> OperatingPoint:
    """The operating point that thresholds give.

    Where both budgets on risk are asked for and no one threshold meets them, what lies between the two is in doubt.

    Args:
        thresholds: by budget.
        kept: what is taken where no budget speaks; its risk also divides what is in doubt. A point of its own for texts
            of several windows stays only without budgets: these hold of texts of any length.
    """
    if not thresholds:
        return kept
    miss, flag, refusal = (thresholds.get(name) for name in ("miss", "false_flag", "false_refusal"))
    risk, unsafe, doubt = kept.risk, kept.unsafe, None
    if miss and flag:
        low, high = sorted((miss.value, flag.value))
        risk = min(max(risk, low), high)
        doubt = Doubt(miss.value, flag.value) if miss.value < flag.value else None
    elif miss or flag:
        risk = (miss or flag).value  # type: ignore[union-attr]
    if refusal:
        unsafe = refusal.value
    if flag and not doubt:
        unsafe = max(unsafe, risk)  # what is below `risk` must not be flagged by being Unsafe
    return OperatingPoint(risk, unsafe, doubt)


def calibrate(
    folder: Path,
    *,
    data: Sequence[Path],
    wanted: Wanted,
    scores: Path,
    labels: Path | None = None,
    split: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit the temperature of a finished model, choose its thresholds, and write both into its folder.

    The weights stay, byte for byte. What no budget sets is carried over from the point and the temperature of the
    training, not from those of an earlier calibration, so that the same command gives the same point.

    Of the files that the model was trained on, the rows held out of training count; of other files all rows, or those
    of `split`. A fifth of the rows fits the temperature, so that the others, which choose the thresholds, are as new to
    it as those that will come. Where these cannot tell it, it stays as trained.

    Args:
        folder: a model that `airlock train classifier` or `average` finished.
        data: JSONL rows.
        wanted: the budgets.
        scores: where logits are kept, see `training.tiers.scores.Scores`.
        labels: decisions that replace labels of the data.
        split: only rows of this split.
        seed: of the bootstrap.

    Returns:
        The calibration, which is also `calibration` in ``folder/manifest.json``.

    Raises:
        TrainingError: it is no finished model, the rows are too few, or a budget cannot be met.
        ClassifierError: the model is broken.
    """
    manifest, described = read_manifest(folder), ClassifierSettings.load(folder)
    taxonomy = Taxonomy.load(folder / TAXONOMY)
    rows, chosen = _rows(folder, manifest, taxonomy, data, labels, split)
    if len(rows) < FEWEST:
        raise TrainingError(f"{', '.join(map(str, data))}: {len(rows)} rows to calibrate on; give at least {FEWEST}")
    known = Scores(folder, scores)
    readings = Readings(rows, known.logits([row.text for row in rows]), taxonomy)
    known.close()
    fitting = np.array([int(text_key(row.text), 16) % FITTING == 0 for row in rows])
    old, (trained, trained_at) = described.operating_point, _as_trained(manifest, described)
    calibration, unfit = trained_at, None
    try:
        calibration = Calibration(readings.part(fitting).temperature())
    except NothingToFitError as exc:
        unfit = str(exc)
    rest = readings.part(~fitting)
    before, after = rest.at(described.calibration), rest.at(calibration)
    kept = _kept(trained, rest.at(trained_at), after)
    thresholds = wanted.thresholds(rest, after, kept=kept)
    point = point_of(thresholds, kept)
    settings = replace(described, calibration=calibration, operating_point=point)
    result = {
        "model": f"{described.name}@{described.taxonomy_version}",
        "adapter_sha256": adapter_sha256(folder),
        "rows": {"temperature": int(fitting.sum()), "thresholds": len(rest.rows), "chosen": chosen},
        "temperature": calibration.temperature,
        "temperature_unfit": unfit,
        "operating_point": point.as_dict(),
        "earlier_point": old.as_dict(),
        "by": list(wanted.by),
        "guarantees": {name: threshold.as_dict() for name, threshold in thresholds.items()},
        "figures": {"before": _figures(rest, before, old, seed), "after": _figures(rest, after, point, seed)},
        "held_out_sources": held_out_sources(rest, after, wanted, kept=kept),
        **provenance(seed=seed, data=[*data, labels]),
    }
    first = {"operating_point": trained.as_dict(), "temperature": trained_at.temperature}
    _write(folder, {**manifest, "as_trained": first}, settings, result)
    return result


def held_out_sources(
    readings: Readings, found: Calibrated, wanted: Wanted, *, kept: OperatingPoint | None = None
) -> dict[str, Any]:
    """Of each source with rows enough, what thresholds that the other sources chose do to it; no guarantee covers it.

    Returns:
        By budget and source: `rows` that could go wrong, how many did (`errors`), their `rate`, and whether the budget
        `held`.
    """
    names = np.array([row.source for row in readings.rows])
    result: dict[str, Any] = {}
    for name in sorted(set(names.tolist())):
        inside = names == name
        try:
            thresholds = wanted.thresholds(readings, found, ~inside, kept=kept)
        except TrainingError:  # without this source, the rows are too few to choose by
            continue
        for kind, threshold in thresholds.items():
            wrong, could = goes_wrong(kind, readings, found, threshold.value)
            rows = int((could & inside).sum())
            if rows >= _FEWEST_OF_SOURCE:
                errors = int((wrong & inside).sum())
                held = errors <= threshold.budget.rate * rows
                told = {"rows": rows, "errors": errors, "rate": round(errors / rows, 4), "held": held}
                result.setdefault(kind, {})[name] = told
    return result


def goes_wrong(kind: str, readings: Readings, found: Calibrated, threshold: float) -> tuple[Mask, Mask]:
    """The rows that a threshold judges wrong in the way that a budget counts, and all rows that it could."""
    match kind:
        case "miss":
            return readings.risky & (found.risk < threshold), readings.risky
        case "false_flag":
            return readings.ordinary & (found.risk >= threshold), readings.ordinary
        case _:
            return readings.ordinary & (found.unsafe >= threshold), readings.ordinary


def _as_trained(manifest: Mapping[str, Any], described: ClassifierSettings) -> tuple[OperatingPoint, Calibration]:
    """The point and the temperature that a model had before it was first calibrated."""
    if "as_trained" in manifest:
        known = manifest["as_trained"]
        return OperatingPoint.of(known["operating_point"]), Calibration(known["temperature"])
    if "calibration" in manifest:  # by a version that did not write it down
        return OperatingPoint.of(manifest.get("figures_at", manifest["operating_point"])), AS_TRAINED
    return described.operating_point, described.calibration


def _kept(old: OperatingPoint, before: Calibrated, after: Calibrated) -> OperatingPoint:
    """The point that as many rows reach as reached another one before the calibration, without its doubt.

    Each of its points is carried over the rows that it judges; where there are none, over all.
    """
    several = np.diff(before.starts) > 1

    def over(point: OperatingPoint, judged: Mask) -> OperatingPoint:
        some = judged if judged.any() else np.ones(len(judged), bool)
        return OperatingPoint(
            carried(before.risk[some], point.risk, after.risk[some]),
            carried(before.unsafe[some], point.unsafe, after.unsafe[some]),
        )

    if not old.several:
        return over(old, np.ones(len(several), bool))
    return replace(over(old, ~several), several=over(old.several, several))


def _rows(
    folder: Path,
    manifest: Mapping[str, Any],
    taxonomy: Taxonomy,
    data: Sequence[Path],
    labels: Path | None,
    split: str | None,
) -> tuple[list[Row], str]:
    """The rows that calibrate, and in words which they are."""
    rows = read_all(data, taxonomy, labels)
    where = ", ".join(map(str, data))
    hashes = {file_sha256(path): path for path in data}
    own = not hashes.keys().isdisjoint(manifest["data"].values())
    _refuse_known(folder, manifest, hashes, own=own)
    if not own:
        some = [row for row in rows if split in (None, row.split)]
        if not some:
            raise TrainingError(f"{where}: no rows of split {split!r}; there are: {', '.join({r.split for r in rows})}")
        return some, f"split {split}" if split else "all"
    if split:
        raise TrainingError(
            f"--split {split}: the model was trained on {where}, so its held-out rows calibrate; leave --split out"
        )
    files = [*data, *([labels] if labels else [])]
    refuse_other_data(folder, manifest, {str(path): file_sha256(path) for path in files}, files)
    settings = settings_of(folder, manifest)
    if settings.folds:
        raise TrainingError(
            f"{folder} was trained on all rows of {where}, its thresholds come from a cross-validation; give other rows"
        )
    found = Split.of(rows, settings, manifest["without"], manifest["limit"], where=where)
    return found.validation, "held out of training"


def _refuse_known(folder: Path, manifest: Mapping[str, Any], hashes: Mapping[str, Path], *, own: bool) -> None:
    """Raise TrainingError where a model that this one went on from, or was taught by, learnt the rows of a file.

    Of its own files, what it held out they held out too, by the hash of a text, unless they held out less.
    """
    share = manifest["settings"].get("validation", 0.0)
    for each in forebears(manifest):
        known = [path for sha256, path in hashes.items() if sha256 in each["data"].values()]
        if known and not (own and each["settings"].get("validation", 0.0) >= share):
            raise TrainingError(
                f"{known[0]}: {folder} goes back to {each['name']!r} (--from or --teacher), which was trained on it, "
                "so what is chosen on it does not hold for texts to come; give rows that neither has seen"
            )


def _figures(readings: Readings, found: Calibrated, point: OperatingPoint, seed: int) -> dict[str, Any]:
    """What a calibration and an operating point do to the rows that chose the thresholds."""
    tiers, sure, deciding = found.decided(point)
    flagged, refused = (tiers != Tier.SAFE) & sure, tiers == Tier.UNSAFE
    shares = {
        "missed": (readings.risky, (tiers == Tier.SAFE) & sure),
        "flagged": (readings.ordinary, flagged),
        "refused": (readings.ordinary, refused),
        "look_alikes_flagged": (readings.look_alikes, flagged),
        "look_alikes_refused": (readings.look_alikes, refused),
        "unsure_of_risky": (readings.risky, ~sure),
        "unsure_of_ordinary": (readings.ordinary, ~sure),
        "unsure_of_look_alikes": (readings.look_alikes, ~sure),
    }
    languages = [row.lang for row in readings.rows]
    return {
        **{
            name: interval(mean(wrong[among].astype(float)), int(among.sum()), seed=seed)
            for name, (among, wrong) in shares.items()
        },
        "unsure_by_tier": {
            tier.label: float((~sure)[readings.truth == tier].mean()) for tier in Tier if (readings.truth == tier).any()
        },
        "calibration": calibration_figures(deciding, readings.truth, languages, seed=seed),
    }


def _write(folder: Path, manifest: Mapping[str, Any], settings: ClassifierSettings, result: Mapping[str, Any]) -> None:
    """Put settings, manifest and card into the folder, all or nothing of each."""
    told = {key: value for key, value in manifest.items() if key != "adapter_sha256"}
    told.setdefault("figures_at", manifest["operating_point"])
    told |= {"operating_point": result["operating_point"], "calibration": dict(result)}
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        finished = Path(copy)
        settings.save(finished)
        write_json(finished / "manifest.json", told)
        if (folder / "README.md").exists():
            shutil.copy2(folder / "README.md", finished)
            told_in_card(finished / "README.md", result)
        put_in_place(finished, folder)
