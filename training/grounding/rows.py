"""Labelled rows for the models of the output door: sentences that answer a question, claims that a passage supports."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from training.datasets import NO_OBJECT, TrainingError, read_lines, refuse_unusable, text_key

_TEXTS = ("split", "source", "licence", "lang", "title")
_FORBIDDEN = re.compile(r"(?i)non[ -]?commercial|\bnc\b|research|none stated|^\W*$")
_SHORT = 40  # characters; a shorter passage is shared only if it is the same


class Label(StrEnum):
    """What a passage says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_STATED = "not_stated"
    NOT_SUPPORTED = "not_supported"  # either of the last two: the source does not tell them apart


class Sourced(Protocol):
    """A row that says where it is from."""

    @property
    def source(self) -> str:
        """The data set."""

    @property
    def licence(self) -> str:
        """Of the data set."""

    @property
    def split(self) -> str:
        """Such as `train`."""

    @property
    def passage(self) -> str:
        """What is read with the question or claim."""

    @property
    def lang(self) -> str:
        """ISO 639-1 code."""


Row = TypeVar("Row", bound=Sourced)


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A question and a passage in sentences.

    Attributes:
        question: as written.
        sentences: of the passage, in order.
        answers: which of them answer; empty when none does.
        topic: the passage's title, or empty.
        source: the data set it came from.
        licence: of that data set.
        lang: ISO 639-1 code.
        split: `train`, `dev` or `test`.
    """

    question: str
    sentences: tuple[str, ...]
    answers: frozenset[int]
    topic: str = ""
    source: str = ""
    licence: str = ""
    lang: str = "en"
    split: str = "train"

    @property
    def passage(self) -> str:
        """The sentences, joined."""
        return " ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A claim and the passage that it is compared with.

    Attributes:
        passage: as written.
        claim: as written.
        label: what the passage says of it.
        kind: for a built pair, what was done to it; see `training.grounding.edits`.
        source: the data set it came from.
        licence: of that data set.
        lang: ISO 639-1 code.
        split: `train`, `dev` or `test`.
        origin: for a built pair, the source of the paragraph that it was built of; for a claim on a passage that is
            named, the source of that passage.
        paragraph: that paragraph; empty for others.
    """

    passage: str
    claim: str
    label: Label
    kind: str = ""
    source: str = ""
    licence: str = ""
    lang: str = "en"
    split: str = "train"
    origin: str = ""
    paragraph: str = ""


def read_evidence(paths: Sequence[Path]) -> list[EvidenceRow]:
    """Rows with `question`, `passage`, `sentence_starts`, `answer_sentences` and `answerable`.

    Raises:
        TrainingError: a file is missing or a line is malformed; every kind of fault is counted in one message.
    """
    return [row for path in paths for row in _read(path, lambda entry: [_evidence(entry)])]


def read_claims(paths: Sequence[Path], known: Iterable[Sourced] = ()) -> list[ClaimRow]:
    """Rows with `passage`, `claim` and `label`: supported, contradicted or not_supported.

    A line may hold several of a passage: `claims`, a list of pairs of claim and label; or several of a claim:
    `passages`, a list of pairs of passage and label. In place of `passage` it may name one of `known` or of an earlier
    line, by `passage_key`; see `key_of`. Split and language are then that passage's.

    A source of which some row is contradicted tells three cases apart: its other unsupported rows are not stated.

    Args:
        paths: JSONL files.
        known: further rows whose passages may be named.

    Raises:
        TrainingError: as for `read_evidence`; or a passage that is named is not known.
    """
    named: dict[str, Sourced] = {}
    for row in known:
        named.setdefault(key_of(row.passage), row)
    rows = [row for path in paths for row in _read(path, lambda entry: _claims(entry, named))]
    three = {row.source for row in rows if row.label is Label.CONTRADICTED}
    return [
        replace(row, label=Label.NOT_STATED) if row.label is Label.NOT_SUPPORTED and row.source in three else row
        for row in rows
    ]


def key_of(passage: str) -> str:
    """The key (`training.datasets.text_key`) of a passage without its white space."""
    return text_key(_bare(passage))


def trainable(rows: Sequence[Row], without: Sequence[str], others: Sequence[Sourced] = ()) -> list[Row]:
    """The rows that may be trained on: not of the sources that are kept out, nor with a passage of theirs.

    Args:
        rows: to choose from.
        without: sources that are kept out.
        others: further rows, which may be of these sources too.

    Raises:
        TrainingError: a source to keep out is in no row, or a licence forbids a model that anyone may use.
    """
    every: list[Sourced] = [*rows, *others]
    unknown = set(without) - {row.source for row in every}
    if unknown:
        raise TrainingError(
            f"--without {', '.join(sorted(unknown))}: no row is of that source, or none in the language asked for; see "
            "`source` and `lang` in the data"
        )
    kept = [row for row in rows if not is_of(row, without)]
    kept = unshared(kept, [row.passage for row in every if row.source in without])
    forbidden = {row.source: row.licence or "none stated" for row in kept if _FORBIDDEN.search(row.licence)}
    if forbidden:
        listed = ", ".join(
            f"{source or 'rows without a `source`'} ({licence})" for source, licence in sorted(forbidden.items())
        )
        raise TrainingError(
            f"{listed}: such a licence forbids shipping what was trained on it; write the licence of your own rows "
            "into their `licence`, leave the file out, or keep the source out with --without"
        )
    return kept


def unshared(rows: Sequence[Row], passages: Iterable[str]) -> list[Row]:
    """The rows whose passage is in none of these, and holds none of them, whatever the white space."""
    bare = {passage: _bare(passage) for passage in {row.passage for row in rows}}
    apart = {_bare(passage) for passage in passages}
    shared = {part for part, _ in _contained(bare.values(), apart)}
    shared |= {whole for _, whole in _contained(apart, bare.values())}
    return [row for row in rows if bare[row.passage] not in shared]


def _bare(passage: str) -> str:
    return "".join(passage.split())


def _contained(parts: Iterable[str], wholes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each part with each whole that it is in; found by the characters that it begins with."""
    by_start: dict[str, list[str]] = {}
    for part in parts:
        by_start.setdefault(part[:_SHORT], []).append(part)
    for whole in wholes if by_start else ():
        for at in range(max(1, len(whole) - _SHORT + 1)):
            for part in by_start.get(whole[at : at + _SHORT], ()):
                if whole.startswith(part, at):
                    yield part, whole


def origin_of(row: Sourced) -> str:
    """The source of the passage, where that is another one than the row's; else empty."""
    return row.origin if isinstance(row, ClaimRow) else ""


def is_of(row: Sourced, sources: Collection[str]) -> bool:
    """Whether a row or its passage is of one of these sources."""
    return row.source in sources or origin_of(row) in sources


def of_split(rows: Sequence[Row], split: str, *, may_lack: bool = False) -> list[Row]:
    """The rows of a split.

    Raises:
        TrainingError: there are none, and there must be some.
    """
    found = [row for row in rows if row.split == split]
    if not found and not may_lack:
        splits = ", ".join(sorted({row.split for row in rows})) or "none"
        raise TrainingError(f"no rows of split {split!r}; there are: {splits} (a row without `split` is of `train`)")
    return found


def in_language(rows: Sequence[Row], language: str | None) -> list[Row]:
    """The rows of a language; all for None.

    Raises:
        TrainingError: there are none.
    """
    found = [row for row in rows if language in (None, row.lang)]
    if rows and not found:
        there = ", ".join(sorted({row.lang for row in rows}))
        raise TrainingError(f"no rows of language {language!r}; there are: {there}")
    return found


def lines(path: Path) -> list[Any]:
    """The parsed lines of a JSONL file; None for one that is not JSON.

    Raises:
        TrainingError: the file cannot be read.
    """
    return [entry for _, entry in read_lines(path)]


def cut(passage: str, starts: Sequence[int]) -> tuple[str, ...]:
    """The sentences that begin at these characters, without surrounding white space; some may be empty.

    Raises:
        ValueError: the places are not in order, or not inside the passage.
    """
    if list(starts) != sorted(starts) or not starts or starts[0] != 0 or starts[-1] >= len(passage):
        raise ValueError("`sentence_starts` are not places in `passage`, in order and from 0 on")
    return tuple(" ".join(passage[a:b].split()) for a, b in itertools.pairwise([*starts, len(passage)]))


def _read(path: Path, parse: Callable[[Mapping[str, Any]], list[Row]]) -> list[Row]:
    rows: list[Row] = []
    faults: dict[str, list[int]] = defaultdict(list)
    for number, entry in read_lines(path):
        try:
            if not isinstance(entry, dict):
                raise ValueError(NO_OBJECT)
            rows += parse(entry)
        except KeyError as exc:
            fault = f"`{exc.args[0]}` is missing"
        except (ValueError, TypeError) as exc:
            fault = str(exc)
        else:
            continue
        faults[fault].append(number)
    refuse_unusable(path, faults)
    if not rows:
        raise TrainingError(f"{path} holds no rows")
    return rows


def _evidence(entry: Mapping[str, Any]) -> EvidenceRow:
    question, passage = _text(entry, "question"), _text(entry, "passage")
    sentences = cut(passage, entry["sentence_starts"])
    answers = frozenset(entry["answer_sentences"] if entry["answerable"] else ())
    if not answers <= set(range(len(sentences))) or bool(entry["answerable"]) != bool(answers):
        raise ValueError("`answer_sentences` do not name sentences of the passage, or none where it is answerable")
    return EvidenceRow(question, sentences, answers, entry.get("title") or "", **_origin(entry))


def _claims(entry: Mapping[str, Any], named: dict[str, Sourced]) -> list[ClaimRow]:
    if "passage_key" in entry:
        entry = {**entry, **_named(entry, named)}
    several = next((name for name in ("claims", "passages") if name in entry), None)
    if several is None:
        rows = [_claim(entry)]
    else:
        pairs, one = entry[several], several.removesuffix("s")
        if one in entry:
            raise ValueError(f"both `{one}` and `{several}`; one of them says it")
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"`{several}` is not a list of pairs of {one} and label")
        rows = [_claim({**entry, one: text, "label": label}) for text, label in pairs]
    for row in rows:
        named.setdefault(key_of(row.passage), row)
    return rows


def _named(entry: Mapping[str, Any], named: Mapping[str, Sourced]) -> dict[str, str]:
    """Text, split, language and source of the passage that a line names."""
    if "passage" in entry:
        raise ValueError("both `passage` and `passage_key`; one of them says which passage it is")
    known = named.get(_text(entry, "passage_key"))
    if known is None:
        raise ValueError("the passage of `passage_key` is in no earlier line, nor among those of `--passages`")
    for key in ("split", "lang"):
        if entry.get(key, getattr(known, key)) != getattr(known, key):
            raise ValueError(f"`{key}` is not that of the passage of `passage_key`")
    origin = known.source if known.source != entry.get("source") else ""
    return {"passage": known.passage, "split": known.split, "lang": known.lang, "origin": origin}


def _claim(entry: Mapping[str, Any]) -> ClaimRow:
    if entry["label"] not in set(Label):
        raise ValueError(f"label {entry['label']!r}: need one of {', '.join(Label)}")
    origin = {"origin": entry["origin"]} if "passage_key" in entry else {}
    return ClaimRow(_text(entry, "passage"), _text(entry, "claim"), Label(entry["label"]), **_origin(entry), **origin)


def _origin(entry: Mapping[str, Any]) -> dict[str, str]:
    wrong = next((key for key in _TEXTS if not isinstance(entry.get(key) or "", str)), None)
    if wrong:
        raise ValueError(f"`{wrong}` is not a string")
    return {key: entry[key] for key in ("source", "licence", "lang", "split") if entry.get(key) is not None}


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{key}` is empty or not a string")
    return value.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half a character
