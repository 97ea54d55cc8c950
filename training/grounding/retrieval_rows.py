"""Questions with the passages that answer them, out of JSONL files of several forms, as documents of a base."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.documents import version
from rag.facts.language import language_of
from rag.types import Document
from training.datasets import TrainingError

_FORMS = "`query` and `positive_passages` (ids of NAME.corpus.jsonl beside it), or `text` and `passage` or `answer`"


@dataclass(frozen=True, slots=True)
class Query:
    """A question.

    Attributes:
        text: as it was asked.
        relevant: ids of the documents that answer it.
        language: ISO 639-1 code.
        source: name of its set.
        chosen_on: whether it is of the half that settings are chosen on, and not of the one that is reported; questions
            about one document are in one half.
    """

    text: str
    relevant: frozenset[str]
    language: str
    source: str
    chosen_on: bool


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """A corpus with questions.

    Attributes:
        name: of the set.
        documents: one for each passage; a title and text that occur twice are one document.
        queries: each text once, with all documents that answer it.
    """

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]

    @property
    def in_english(self) -> bool:
        """Whether all questions are in English."""
        return all(query.language == "en" for query in self.queries)

    def limited(self, count: int | None) -> RetrievalSet:
        """With so many questions of each half at most, spread evenly; the corpus stays whole."""
        if count is None:
            return self
        halves = [[query for query in self.queries if query.chosen_on is half] for half in (True, False)]
        return replace(self, queries=tuple(query for half in halves for query in _spread(half, count)))


def read_retrieval(path: Path) -> RetrievalSet:
    """Read one set.

    A title is taken from `title` or, without one, from `focus`: a document's title is known to those who index it.

    Raises:
        TrainingError: a file is missing, a line malformed, a passage not in the corpus, or there is none.
    """
    rows = list(_rows(path))
    try:
        if rows and "query" in rows[0]:
            corpus = list(_rows(path.with_name(f"{path.stem}.corpus.jsonl")))
            documents = {row["id"]: _document(row["id"], row.get("title") or "", row["text"]) for row in corpus}
            asked = [(row["query"], list(row["positive_passages"]), row.get("lang", "en")) for row in rows]
        else:
            documents, asked = {}, []
            for number, row in enumerate(rows, 1):
                name = f"{path.stem}/{number}"
                title = row.get("title") or row.get("focus") or ""
                documents[name] = _document(name, title, row["passage"] if "passage" in row else row["answer"])
                asked.append((row["text"], [name], row.get("lang", "en")))
    except (KeyError, TypeError) as exc:
        raise TrainingError(f"{path}: each line must have {_FORMS} ({exc!r})") from exc
    if not asked:
        raise TrainingError(f"{path} holds no questions; give JSON lines with {_FORMS}")
    unknown = {name for _, relevant, _ in asked for name in relevant} - documents.keys()
    if unknown or not all(relevant for _, relevant, _ in asked):
        raise TrainingError(f"{path}: the corpus lacks passages that questions name, such as {sorted(unknown)[:1]}")
    return _joined(path.stem, documents, [(*each, path.stem) for each in asked])


def pooled(sets: Sequence[RetrievalSet]) -> RetrievalSet:
    """One corpus of all documents in English, as far as a look at each tells, and the questions in English."""
    documents = {
        document.id: document for part in sets for document in part.documents if language_of(document.text) == "en"
    }
    asked = [
        (query.text, sorted(query.relevant), query.language, query.source)
        for part in sets
        for query in part.queries
        if query.language == "en" and query.relevant <= documents.keys()
    ]
    return _joined("pooled", documents, asked)


def _joined(
    name: str, documents: Mapping[str, Document], asked: Iterable[tuple[str, Sequence[str], str, str]]
) -> RetrievalSet:
    """Each document and each question once."""
    first: dict[str, Document] = {}
    for document in documents.values():
        first.setdefault(document.version, document)
    queries: dict[str, Query] = {}
    for text, relevant, language, source in asked:
        kept = [first[documents[one].version] for one in relevant]
        if text in queries:
            known = queries[text]
            queries[text] = replace(known, relevant=known.relevant | {document.id for document in kept})
        else:
            half = int(min(document.version for document in kept)[-1], 16) % 2 == 0
            queries[text] = Query(text, frozenset(document.id for document in kept), language, source, half)
    return RetrievalSet(name, tuple(first.values()), tuple(queries.values()))


def _document(name: str, title: str, text: str) -> Document:
    title = " ".join(title.replace("_", " ").split())
    return Document(name, version(title, {}, text), title, text, {})


def _spread(queries: Sequence[Query], count: int) -> list[Query]:
    if len(queries) <= count:
        return list(queries)
    return [queries[number * len(queries) // count] for number in range(count)]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                yield row
    except FileNotFoundError as exc:
        raise TrainingError(f"{path} does not exist; give JSON lines with {_FORMS}") from exc
    except ValueError as exc:
        raise TrainingError(f"{path}: each line must be a JSON object ({exc})") from exc
