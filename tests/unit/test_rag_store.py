import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from rag.documents import read_documents
from rag.store import SAMPLE, KnowledgeBase, build, corpus_hash
from rag.types import Citation, KnowledgeError, Limits, QuarantineError, Status
from tests.unit.rag_cases import HashedWords, write_source

FILES = ("documents.jsonl", "index.faiss", "manifest.json", "passages.jsonl")


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


@pytest.fixture
def folder(tmp_path, source):
    build(source, tmp_path / "kb", HashedWords())
    return tmp_path / "kb"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def citation(source, start, end, **changes):
    made = Citation(
        passage="p",
        document=source.id,
        version=source.version,
        title=source.title,
        url=source.url,
        start=start,
        end=end,
        quote=source.text[start:end],
        score=0.5,
        status=Status.SUPPORTED,
        answer_start=0,
        answer_end=1,
    )
    return dataclasses.replace(made, **changes)


def test_a_built_knowledge_base_opens_verifies_and_finds(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    assert knowledge.verify() == []
    best, *rest = knowledge.search("maximum of paracetamol in a day", 3)
    assert (best.passage.document, len(rest)) == ("health/paracetamol", 2)
    assert best.score > rest[0].score >= rest[1].score
    assert set(knowledge.documents) == {"health/paracetamol", "speed", "voting"}


def test_search_in_one_document_gives_its_passages_only(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    found = knowledge.search("maximum of paracetamol", 10, document="voting")
    assert {item.passage.document for item in found} == {"voting"}
    assert len(found) == 3


def test_search_refuses_what_it_cannot_do(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    with pytest.raises(KnowledgeError, match="k = 0"):
        knowledge.search("x", 0)
    with pytest.raises(KnowledgeError, match="no document 'nowhere'"):
        knowledge.search("x", 1, document="nowhere")


def test_two_builds_are_the_same_byte_for_byte(tmp_path, source, folder):
    build(source, tmp_path / "again", HashedWords())
    assert content(tmp_path / "again") == content(folder)
    assert sorted(content(folder)) == sorted(FILES)


def test_a_changed_document_changes_the_corpus(tmp_path, source, folder):
    before = KnowledgeBase.open(folder, HashedWords()).manifest.corpus
    (source / "speed.txt").write_text("Another text.", encoding="utf-8")
    assert build(source, folder, HashedWords()).manifest.corpus != before
    assert KnowledgeBase.open(folder, HashedWords()).document("speed").text == "Another text."


@pytest.mark.parametrize("name", ["documents.jsonl", "passages.jsonl", "index.faiss"])
def test_one_changed_byte_is_refused_and_reported(folder, name):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(KnowledgeError, match=f"{name} is not the file that the manifest names"):
        KnowledgeBase.open(folder, HashedWords())
    assert knowledge.verify() == [f"{name} has changed: its SHA-256 is not the manifest's"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(KnowledgeError, match=f"{name} cannot be read"):
        KnowledgeBase.open(folder, HashedWords())


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(KnowledgeError, match=r"manifest\.json cannot be read"):
        KnowledgeBase.open(tmp_path / "nowhere", HashedWords())


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is malformed"),
        ("[]", "is malformed"),
        ('{"format": 1}', "is malformed"),
        ('{"format": 1, "files": ["index.faiss"]}', "is malformed"),
        ('{"format": 99}', "has format 99, this version reads 1"),
    ],
)
def test_a_manifest_it_does_not_understand_is_refused(folder, manifest, message):
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(KnowledgeError, match=message):
        KnowledgeBase.open(folder, HashedWords())


@pytest.mark.parametrize("other", [HashedWords(fingerprint="other"), HashedWords(dimension=128)])
def test_another_encoder_is_refused(folder, other):
    with pytest.raises(KnowledgeError, match="was built with encoder"):
        KnowledgeBase.open(folder, other)


def test_a_passage_off_its_offsets_is_reported(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    knowledge.passages[1] = dataclasses.replace(knowledge.passages[1], start=knowledge.passages[1].start + 1)
    assert knowledge.verify() == [f"passage {knowledge.passages[1].id} does not stand at its offsets"]


def test_a_changed_text_or_count_is_reported(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    knowledge.documents["speed"] = dataclasses.replace(knowledge.documents["speed"], title="Other")
    knowledge.passages.pop()
    faults = knowledge.verify()
    assert faults == ["document speed is not the version it says", "5 passages, the manifest says 6"]


def test_a_missing_file_and_a_stray_passage_are_reported(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    (folder / "index.faiss").unlink()
    knowledge.passages[0] = dataclasses.replace(knowledge.passages[0], document="nowhere")
    del knowledge.documents["speed"]
    assert knowledge.verify() == [
        "index.faiss is missing",
        "the documents are not the corpus that the manifest names",
        "passage health/paracetamol#0 is of a document or version that is not here",
        "passage speed#0 is of a document or version that is not here",
        "2 documents, the manifest says 3",
    ]


def test_files_of_another_shape_are_refused(folder):
    data = b'{"id": "a"}\n'
    (folder / "documents.jsonl").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["documents.jsonl"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(KnowledgeError, match="build it again"):
        KnowledgeBase.open(folder, HashedWords())


def test_check_accepts_only_the_quote_at_its_place_in_this_version(folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    document = knowledge.document("speed")
    assert knowledge.check(citation(document, 21, 40))
    assert not knowledge.check(citation(document, 21, 40, quote=document.text[22:41]))
    assert not knowledge.check(citation(document, 22, 41, quote=document.text[21:40]))
    assert not knowledge.check(citation(document, 21, 40, version="0" * 64))
    assert not knowledge.check(citation(document, 21, 40, document="voting"))
    assert not knowledge.check(citation(document, 21, 40, document="nowhere"))
    assert not knowledge.check(citation(document, 21, 21))
    assert not knowledge.check(citation(document, -9, -1))
    assert not knowledge.check(citation(document, 21, 10_000))


def test_a_build_that_fails_leaves_what_was_there(source, folder, tmp_path):
    class Broken(HashedWords):
        def encode(self, texts, *, progress=False):
            raise RuntimeError("out of memory")

    before = content(folder)
    (source / "speed.txt").write_text("Another text.", encoding="utf-8")
    with pytest.raises(RuntimeError, match="out of memory"):
        build(source, folder, Broken())
    assert content(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb", "source"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_swap_that_fails_leaves_what_was_there(source, folder, tmp_path, monkeypatch, failing):
    before = content(folder)
    (source / "speed.txt").write_text("Another text.", encoding="utf-8")
    rename, calls = Path.rename, []

    def fail_once(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="disk gone"):
        build(source, folder, HashedWords())
    assert content(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb", "source"]
    monkeypatch.undo()
    build(source, folder, HashedWords())
    assert content(folder) != before


def test_a_folder_that_is_no_knowledge_base_is_not_replaced(source, folder, tmp_path):
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, source, HashedWords())
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, folder, HashedWords())
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, tmp_path / "link", HashedWords())
    (tmp_path / "empty").mkdir()
    build(source, tmp_path / "empty", HashedWords())


def test_documents_without_a_sentence_are_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.md").write_text("# Heading only\n", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="has a sentence to quote"):
        build(tmp_path / "source", tmp_path / "kb", HashedWords())
    assert not (tmp_path / "kb").exists()


def test_the_shipped_sample_is_built_from_the_documents_in_the_repository():
    manifest = json.loads((SAMPLE / "manifest.json").read_text(encoding="utf-8"))
    documents = read_documents(Path(__file__).parents[2] / "data" / "knowledge").documents
    assert corpus_hash(documents) == manifest["corpus"], "run: airlock kb build data/knowledge --out rag/assets/sample"
    encoder = HashedWords(manifest["dimension"], manifest["encoder"])
    assert KnowledgeBase.open(SAMPLE, encoder).verify() == []


def test_the_manifest_names_encoder_and_counts(folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["encoder"], manifest["dimension"]) == ("hashed-words", 256)
    assert (manifest["documents"], manifest["passages"]) == (3, 6)


def test_a_build_names_what_it_left_out(source, tmp_path):
    (source / "bad.pdf").write_bytes(b"%PDF-1.7")
    built = build(source, tmp_path / "kb", HashedWords())
    assert built.manifest.documents == 3
    assert [file.path for file in built.quarantined] == ["bad.pdf"]


def test_a_strict_build_and_one_without_documents_leave_what_was_there(source, folder):
    before = content(folder)
    (source / "bad.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(QuarantineError, match=r"1 files below .* in strict mode none may be") as caught:
        build(source, folder, HashedWords(), strict=True)
    assert [file.path for file in caught.value.quarantined] == ["bad.pdf"]
    with pytest.raises(QuarantineError, match=r"4 files below .* no other is there"):
        build(source, folder, HashedWords(), limits=Limits(bytes=1))
    assert content(folder) == before
    assert build(source, folder, HashedWords(), limits=Limits(bytes=1000)).manifest.documents == 3


def test_a_strict_build_of_sound_files_is_built(source, tmp_path):
    assert build(source, tmp_path / "kb", HashedWords(), strict=True).quarantined == ()
