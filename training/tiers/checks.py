"""What is wrong with a taxonomy and labelled rows, all of it at once, before anything is trained."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from classifier.taxonomy import Taxonomy
from classifier.types import Tier
from training.datasets import NO_JSONL, Row, TrainingError, read_decisions, read_lines, read_usable, text_key
from training.near import bare, near

FEWEST = 4
"""Rows that a category needs for a cross-validation, which each of its parts must know."""
_FEW = 10
_SHOWN = 3
_SPLITS = ("train", "dev", "test")
_GRAVE = {"conflicting labels", "leakage", "too small"}

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault.

    Attributes:
        kind: what it is, in one word or two.
        severity: an error stops the training, a warning does not.
        count: how often it was found.
        message: what was found, where, and the way out.
    """

    kind: str
    severity: Severity
    count: int
    message: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The sound rows, without repeated texts, and everything that is wrong.

    Attributes:
        rows: as `training.datasets.read_all` gives them.
        findings: errors first.
    """

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops the training."""
        return tuple(each for each in self.findings if each.severity == "error")

    def strict(self) -> Checked:
        """The same where every row counts: conflicting labels, leakage and categories that are too small are errors."""
        graver = (replace(each, severity="error") if each.kind in _GRAVE else each for each in self.findings)
        return Checked(self.rows, _errors_first(graver))

    @property
    def train(self) -> int:
        """Rows to train on."""
        return sum(row.split == "train" for row in self.rows)

    def as_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """The counts and the findings, for JSON."""
        counts = Counter(row.category for row in self.rows if row.split == "train")
        tiers = Counter(taxonomy.category(category).tier for category in counts.elements())
        return {
            "rows": len(self.rows),
            "splits": dict(Counter(row.split for row in self.rows)),
            "tiers": {tier.label: tiers[tier] for tier in Tier},
            "categories": {category: counts[category] for category in taxonomy.ids},
            "errors": len(self.errors),
            "findings": [
                {"kind": f.kind, "severity": f.severity, "count": f.count, "message": f.message} for f in self.findings
            ],
        }

    def refuse(self) -> None:
        """Raise TrainingError where there are errors; the message holds every one."""
        if self.errors:
            said = "; ".join(finding.message for finding in self.errors)
            raise TrainingError(f"{len(self.errors)} kinds of errors in taxonomy and data: {said}")


def check(paths: Sequence[Path], taxonomy: Taxonomy, labels: Path | None = None) -> Checked:
    """Read the files and look for every fault that can be told before training.

    Args:
        paths: JSONL files of rows.
        taxonomy: holds the categories that are allowed.
        labels: decisions that replace labels; see `training.datasets.read_decisions`.

    Raises:
        TrainingError: a file is missing or not UTF-8.
    """
    decisions = read_decisions(labels, taxonomy) if labels else {}
    findings, found = [*_of_taxonomy(taxonomy)], []
    for path in paths:
        rows, faults = read_usable(path, taxonomy, decisions)
        findings += _of_lines(path, faults)
        if not rows and not faults:
            said = f"{path} holds no rows that can be used; need JSON lines with `text` and `category`"
            findings.append(Finding("no rows", "error", 1, said))
        found += [_Line(f"{path.name}:{number}", row) for number, row in rows]
    first: dict[str, Row] = {}
    for line in found:
        first.setdefault(line.row.text, line.row)
    if labels and decisions and not _decided(decisions, found, paths):
        said = (
            f"labels {labels}: none of its {len(decisions)} keys names a text of the data; a key is the first 16 hex "
            "digits, in lower case, of the SHA-256 of the text"
        )
        findings.append(Finding("labels", "warning", len(decisions), said))
    findings += [*_of_splits(found), *_of_texts(found)]
    if found:
        findings += _of_sizes([*first.values()], taxonomy)
    return Checked(tuple(first.values()), _errors_first(findings))


def _errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda each: each.severity))


class _Line(NamedTuple):
    place: str
    row: Row


def _decided(decisions: Mapping[str, str], found: Sequence[_Line], paths: Sequence[Path]) -> bool:
    """Whether any decision is about a text of the data, kept or left out."""
    return any(text_key(line.row.text) in decisions for line in found) or any(
        isinstance(entry, dict) and isinstance(entry.get("text"), str) and text_key(entry["text"]) in decisions
        for path in paths
        for _, entry in read_lines(path)
    )


def _of_taxonomy(taxonomy: Taxonomy) -> Iterator[Finding]:
    """Names or definitions that mean one category twice, and definitions that are empty."""
    ids, definitions = defaultdict(list), defaultdict(list)
    for category in taxonomy.categories:
        ids[bare(category.id.replace("_", " "))].append(category.id)
        definitions[bare(category.definition)].append(category.id)
    empty = definitions.pop("", [])
    if empty:
        yield Finding(
            "definition", "error", len(empty), f"{_some(empty)}: the definition is empty; say what belongs there"
        )
    twice = [names for table in (ids, definitions) for names in table.values() if len(names) > 1]
    for names in dict.fromkeys(map(tuple, twice)):
        yield Finding(
            "two names",
            "error",
            len(names),
            f"{' and '.join(names)} are two names for one category (the same but for case and signs, or the same "
            "definition); keep one, and relabel its rows",
        )


def _of_lines(path: Path, faults: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    for fault, lines in sorted(faults.items(), key=lambda item: -len(item[1])):
        label = fault.startswith("category ")
        way = "correct the label, or add the category to the taxonomy" if label else "correct or remove them"
        kind = "unknown label" if label else "unusable line"
        where = f"{len(lines)} lines of {path}, first: {lines[0]}"
        said = f"{path}: {fault}" if fault == NO_JSONL else f"{fault} ({where}); {way}"
        yield Finding(kind, "error", len(lines), said)


def _of_splits(lines: Sequence[_Line]) -> Iterator[Finding]:
    """Splits that are empty, or another spelling of one that is known: their rows take no part in anything."""
    places: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        places[line.row.split].append(line.place)
    for split, there in places.items():
        bared = split.strip().casefold()
        near = difflib.get_close_matches(bared, _SPLITS, n=1, cutoff=0.75) if bared.isalpha() else []
        if bared and (split in _SPLITS or not near):
            continue
        meant = f"did you mean {near[0]!r}?" if near else "leave it out where `train` is meant"
        said = (
            f"{len(there)} rows are of split {split!r} ({_some(there)}), which nothing trains on or measures; {meant}"
        )
        yield Finding("split", "warning", len(there), said)


def _of_texts(lines: Sequence[_Line]) -> Iterator[Finding]:
    """Repeated texts, those with several labels or in several splits, and near-duplicates over splits.

    Texts themselves are not shown: what users wrote has no place in a log.
    """
    same: dict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        same[bare(line.row.text) or line.row.text].append(line)
    several = [each for each in same.values() if len({line.row.category for line in each}) > 1]
    if several:
        found = [" and ".join(f"{line.place} {line.row.category}" for line in _differing(each)) for each in several]
        said = f"{len(several)} texts have several labels ({_some(found)}); decide for one each, else the first counts"
        yield Finding("conflicting labels", "warning", len(several), said)
    repeated = sum(len(each) - 1 for each in same.values())
    if repeated:
        again = [each[1].place for each in same.values() if len(each) > 1]
        said = f"{repeated} rows repeat a text, but for case and signs ({_some(again)}); remove them"
        yield Finding("duplicates", "warning", repeated, said)
    leaked = [each for each in same.values() if len({line.row.split for line in each}) > 1]
    if leaked:
        said = (
            f"{len(leaked)} texts are in several splits ({_some([each[-1].place for each in leaked])}): figures "
            "measured on what was trained on are worth nothing; keep each in one split"
        )
        yield Finding("leakage", "warning", len(leaked), said)
    yield from _near_leaks([each[0] for each in same.values()])


def _near_leaks(lines: Sequence[_Line]) -> Iterator[Finding]:
    train = [line.row.text for line in lines if line.row.split == "train"]
    others = [line for line in lines if line.row.split != "train"]
    like = [others[at].place for at in sorted(near([line.row.text for line in others], train))]
    if like:
        said = (
            f"{len(like)} of {len(others)} texts outside split `train` nearly equal one inside ({_some(like)}): "
            "figures come out too good; move or remove them"
        )
        yield Finding("near-duplicates", "warning", len(like), said)


def _differing(lines: Sequence[_Line]) -> list[_Line]:
    """The first line of each label."""
    return [*{line.row.category: line for line in reversed(lines)}.values()][::-1]


def _of_sizes(rows: Sequence[Row], taxonomy: Taxonomy) -> Iterator[Finding]:
    """Categories that are too small to be learnt or to be measured."""
    counts = Counter(row.category for row in rows if row.split == "train")
    tiny = [f"{category} ({counts[category]})" for category in taxonomy.ids if counts[category] < FEWEST]
    small = [f"{category} ({counts[category]})" for category in taxonomy.ids if FEWEST <= counts[category] < _FEW]
    if tiny:
        yield Finding(
            "too small",
            "warning",
            len(tiny),
            f"{len(tiny)} categories have fewer than {FEWEST} rows of split `train`: {_some(tiny, len(tiny))}; add "
            "rows, or join them with other categories",
        )
    if small:
        yield Finding(
            "small",
            "warning",
            len(small),
            f"{len(small)} categories have fewer than {_FEW} rows of split `train`: {_some(small, len(small))}; they "
            "are missed most, add rows first there",
        )
    missing = [tier.label for tier in Tier if tier in taxonomy.tier_indices and not _has(rows, taxonomy, tier)]
    if missing or Tier.SAFE not in taxonomy.tier_indices:
        what = f"no row of tier {', '.join(missing)}" if missing else "the taxonomy has no category of tier safe"
        yield Finding("tiers", "warning", 1, f"{what}: thresholds and false alarms cannot be measured there; add some")


def _has(rows: Sequence[Row], taxonomy: Taxonomy, tier: Tier) -> bool:
    return any(row.split == "train" and taxonomy.category(row.category).tier is tier for row in rows)


def _some(items: Sequence[str], shown: int = _SHOWN) -> str:
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + rest
