"""The knowledge base on disk: documents, passages and index, each under a hash, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rag.chunking import DEFAULT_WORDS, embedding_text, passages
from rag.documents import read_documents, version
from rag.index import VectorIndex
from rag.types import (
    Citation,
    Corpus,
    Document,
    Encoder,
    Evidence,
    KnowledgeError,
    Limits,
    Passage,
    Quarantined,
    QuarantineError,
)

FORMAT = 1
SAMPLE = Path(__file__).parent / "assets" / "sample"
_MANIFEST = "manifest.json"
_DOCUMENTS = "documents.jsonl"
_PASSAGES = "passages.jsonl"
_INDEX = "index.faiss"
_FILES = (_DOCUMENTS, _PASSAGES, _INDEX)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a knowledge base says of itself.

    Attributes:
        format: of the files; a reader refuses one it does not know.
        encoder: fingerprint of the encoder that made the vectors.
        dimension: of the vectors.
        corpus: SHA-256 over the ids and versions of all documents, in hex.
        documents: how many there are.
        passages: how many there are.
        files: SHA-256 of each other file.
    """

    format: int
    encoder: str
    dimension: int
    corpus: str
    documents: int
    passages: int
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` did: the manifest that it wrote, and the files that it left out."""

    manifest: Manifest
    quarantined: tuple[Quarantined, ...]


def build(
    source: Path,
    out: Path,
    encoder: Encoder,
    *,
    words: int = DEFAULT_WORDS,
    limits: Limits | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Built:
    """Read the documents below `source` and put a knowledge base in the place of `out`.

    The same documents and encoder give the same bytes. `out` holds either what it held or the new one whole, whatever
    fails in between. Files that cannot be used are left out and named.

    Args:
        source: folder of documents; see `read_documents`.
        out: a knowledge base to replace, or a path where nothing is.
        encoder: the one that questions will be encoded with.
        words: in a passage, at most.
        limits: of one file; the usual ones by default.
        strict: build nothing if any file must be left out.
        progress: show a bar while encoding.

    Raises:
        QuarantineError: every file must be left out, or one in strict mode.
        KnowledgeError: the documents cannot be used, or `out` is something else than a knowledge base.
    """
    _check_replaceable(out)
    corpus = _read_source(source, limits, strict)
    cut = [(document, passage) for document in corpus.documents for passage in passages(document, words)]
    if not cut:
        message = f"no document below {source} has a sentence to quote; add paragraphs or lists"
        raise QuarantineError(message, corpus.quarantined)
    vectors = encoder.encode([embedding_text(document, passage) for document, passage in cut], progress=progress)
    files = {
        _DOCUMENTS: _jsonl(corpus.documents),
        _PASSAGES: _jsonl(passage for _, passage in cut),
        _INDEX: VectorIndex.build(vectors).to_bytes(),
    }
    manifest = Manifest(
        format=FORMAT,
        encoder=encoder.fingerprint,
        dimension=encoder.dimension,
        corpus=corpus_hash(corpus.documents),
        documents=len(corpus.documents),
        passages=len(cut),
        files={name: _sha256(data) for name, data in files.items()},
    )
    _replace(out, {**files, _MANIFEST: (json.dumps(asdict(manifest), indent=2) + "\n").encode()})
    return Built(manifest, corpus.quarantined)


def _read_source(source: Path, limits: Limits | None, strict: bool) -> Corpus:
    corpus = read_documents(source, limits=limits)
    if corpus.documents and not (strict and corpus.quarantined):
        return corpus
    kept = "in strict mode none may be" if corpus.documents else "no other is there"
    message = f"{len(corpus.quarantined)} files below {source} are quarantined and {kept}; correct or remove them"
    raise QuarantineError(message, corpus.quarantined)


def corpus_hash(documents: Iterable[Document]) -> str:
    """SHA-256 over the ids and versions of documents, in any order; the knowledge base's own version."""
    return _sha256(json.dumps(sorted([document.id, document.version] for document in documents)).encode())


class KnowledgeBase:
    """An open knowledge base; read it with `open`."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        documents: Mapping[str, Document],
        passages: list[Passage],
        index: VectorIndex,
        encoder: Encoder,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.documents = documents
        self.passages = passages
        self._index = index
        self.encoder = encoder

    @classmethod
    def open(cls, folder: Path, encoder: Encoder) -> KnowledgeBase:
        """Read a folder that `build` wrote, once every hash has been checked.

        Raises:
            KnowledgeError: a file is missing or changed, the format is unknown, or the vectors are another encoder's.
        """
        manifest = _read_manifest(folder)
        if (manifest.encoder, manifest.dimension) != (encoder.fingerprint, encoder.dimension):
            raise KnowledgeError(
                f"knowledge base {folder} was built with encoder {manifest.encoder[:12]}… ({manifest.dimension} "
                f"dimensions), not with {encoder.fingerprint[:12]}… ({encoder.dimension}); build it again with this one"
            )
        data = {name: _read(folder, name) for name in _FILES}
        for name, content in data.items():
            if _sha256(content) != manifest.files.get(name):
                raise KnowledgeError(
                    f"knowledge base {folder}: {name} is not the file that the manifest names (its SHA-256 differs); "
                    "restore it or build again"
                )
        try:
            documents = [Document(**row) for row in map(json.loads, data[_DOCUMENTS].splitlines())]
            found = [Passage(**row) for row in map(json.loads, data[_PASSAGES].splitlines())]
        except (ValueError, TypeError) as exc:
            raise KnowledgeError(f"knowledge base {folder} is malformed: {exc}; build it again") from exc
        index = VectorIndex.from_bytes(data[_INDEX])
        return cls(folder, manifest, {document.id: document for document in documents}, found, index, encoder)

    def search(self, query: str, k: int, *, document: str | None = None) -> list[Evidence]:
        """The `k` passages most like a query, best first; of one document only, if it is named.

        Raises:
            KnowledgeError: `k` is below 1, or the document is unknown.
        """
        if k < 1:
            raise KnowledgeError(f"search for k = {k} passages: need at least 1")
        rows = None
        if document is not None:
            wanted = self.document(document).id
            rows = [row for row, passage in enumerate(self.passages) if passage.document == wanted]
        nearest = self._index.search(self.encoder.encode([query])[0], k, rows=rows)
        return [Evidence(self.passages[row], score) for row, score in nearest]

    def document(self, document_id: str) -> Document:
        """The document of that id.

        Raises:
            KnowledgeError: there is none.
        """
        try:
            return self.documents[document_id]
        except KeyError as exc:
            raise KnowledgeError(f"knowledge base {self.folder} has no document {document_id!r}") from exc

    def check(self, citation: Citation) -> bool:
        """Whether the quote stands in this version of the document, at its offsets, and is not empty."""
        document = self.documents.get(citation.document)
        return (
            document is not None
            and document.version == citation.version
            and 0 <= citation.start < citation.end <= len(document.text)
            and document.text[citation.start : citation.end] == citation.quote
        )

    def verify(self) -> list[str]:
        """What is wrong with the folder and with what was read from it; empty if all is sound."""
        return [*self._file_faults(), *self._document_faults(), *self._passage_faults(), *self._count_faults()]

    def _file_faults(self) -> Iterator[str]:
        for name, expected in self.manifest.files.items():
            path = self.folder / name
            if not path.is_file():
                yield f"{name} is missing"
            elif _sha256(path.read_bytes()) != expected:
                yield f"{name} has changed: its SHA-256 is not the manifest's"

    def _document_faults(self) -> Iterator[str]:
        for document in self.documents.values():
            if version(document.title, document.metadata, document.text) != document.version:
                yield f"document {document.id} is not the version it says"
        if corpus_hash(self.documents.values()) != self.manifest.corpus:
            yield "the documents are not the corpus that the manifest names"

    def _passage_faults(self) -> Iterator[str]:
        for passage in self.passages:
            document = self.documents.get(passage.document)
            if document is None or document.version != passage.version:
                yield f"passage {passage.id} is of a document or version that is not here"
            elif not passage.text or document.text[passage.start : passage.end] != passage.text:
                yield f"passage {passage.id} does not stand at its offsets"

    def _count_faults(self) -> Iterator[str]:
        counts = (
            ("documents", len(self.documents), self.manifest.documents),
            ("passages", len(self.passages), self.manifest.passages),
            ("vectors", self._index.size, self.manifest.passages),
            ("dimensions", self._index.dimension, self.manifest.dimension),
        )
        for name, found, said in counts:
            if found != said:
                yield f"{found} {name}, the manifest says {said}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _jsonl(rows: Iterable[Document | Passage]) -> bytes:
    return "".join(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as exc:
        raise KnowledgeError(
            f"knowledge base {folder}: {name} cannot be read ({exc.strerror}); build one there, or name another folder"
        ) from exc


def _read_manifest(folder: Path) -> Manifest:
    try:
        data: dict[str, Any] = json.loads(_read(folder, _MANIFEST))
        if data["format"] != FORMAT:
            raise KnowledgeError(
                f"knowledge base {folder} has format {data['format']!r}, this version reads {FORMAT}; build it again"
            )
        return Manifest(**{**data, "files": dict(data["files"])})
    except (ValueError, TypeError, KeyError) as exc:
        raise KnowledgeError(f"knowledge base {folder}: {_MANIFEST} is malformed ({exc}); build it again") from exc


def _check_replaceable(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir() or {path.name for path in out.iterdir()} - {_MANIFEST, *_FILES}:
        raise KnowledgeError(f"{out} exists and is not a knowledge base; name another folder, or remove it")


def _replace(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files beside `out` and swap folders; if the swap fails, `out` is what it was."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        for name, data in files.items():
            with (new / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(new)
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        _sync(out.parent)
    finally:
        shutil.rmtree(work)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
