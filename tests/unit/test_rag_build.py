import contextlib
import sqlite3
from pathlib import Path

import pytest

import rag.build
from rag.build import build
from rag.mode import Mode
from rag.schema import DATABASE
from rag.store import KnowledgeBase
from rag.sync import Happened, add_files
from rag.types import KnowledgeError, Limits, QuarantineError
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, write_source
from tests.unit.test_rag_store import citation


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


@pytest.fixture
def folder(tmp_path, source):
    build(source, tmp_path / "kb", HashedWords())
    return tmp_path / "kb"


class Broken(HashedWords):
    """Fails at the second document."""

    def encode(self, texts, *, progress=False):
        if any("voting" in text for text in texts):
            raise RuntimeError("out of memory")
        return super().encode(texts)


def corpus(folder, encoder=None):
    return KnowledgeBase.open(folder, encoder or HashedWords()).manifest.corpus


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_builds_hold_the_same(tmp_path, source, folder):
    again = build(source, tmp_path / "again", HashedWords()).manifest
    assert corpus(folder) == again.corpus
    one, two = (KnowledgeBase.open(path, HashedWords()) for path in (folder, tmp_path / "again"))
    for mode in Mode:
        assert one.search("voting age", 9, mode=mode) == two.search("voting age", 9, mode=mode)
    assert names(tmp_path) == ["again", "kb", "source"]


def test_a_base_that_is_replaced_keeps_old_versions_and_is_seen_by_readers(source, folder):
    knowledge = KnowledgeBase.open(folder, HashedWords())
    old = knowledge.document("speed")
    (source / "speed.txt").write_text("Another text.", encoding="utf-8")
    build(source, folder, HashedWords())
    assert knowledge.document("speed").text == "Another text."
    assert knowledge.search("another text", 1)[0].passage.document == "speed"
    assert knowledge.check(citation(old, 21, 40))
    assert knowledge.statistics().old_versions == 1
    assert knowledge.verify() == []


def test_documents_added_by_hand_that_a_build_replaces_are_told_of(source, folder, tmp_path):
    for name in ("tea", "speed"):
        (tmp_path / f"{name}.md").write_text("Tea is hot.", encoding="utf-8")
    (source / "voting.md").unlink()
    with Writer(folder, HashedWords()) as writer:
        list(add_files(writer, [tmp_path / "tea.md", tmp_path / "speed.md"]))
    (gone,) = build(source, folder, HashedWords()).told
    assert (gone.happened, gone.name) == (Happened.REMOVED, "tea")
    assert "add it again" in gone.reason
    assert build(source, folder, HashedWords()).told == ()


def test_another_encoder_replaces_the_vectors_and_running_readers_refuse(source, folder):
    other = HashedWords(dimension=64, fingerprint="other")
    knowledge = KnowledgeBase.open(folder, HashedWords())
    build(source, folder, other)
    assert KnowledgeBase.open(folder, other).verify() == []
    with pytest.raises(KnowledgeError, match="was built with encoder other"):
        knowledge.search("x", 1)


def test_a_build_that_fails_leaves_what_was_there_and_the_next_goes_on(source, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("rag.sync.BATCH", 1)
    before = corpus(folder)
    (source / "speed.txt").write_text("Another text.", encoding="utf-8")
    with pytest.raises(RuntimeError, match="out of memory"):
        build(source, folder, Broken())
    assert corpus(folder) == before
    assert names(tmp_path) == [".kb.building", "kb", "source"]
    asked = []

    class Counting(HashedWords):
        def encode(self, texts, *, progress=False):
            asked.extend(texts)
            return super().encode(texts)

    build(source, folder, Counting())
    assert asked
    assert all("voting" in text for text in asked)  # the others were kept
    assert corpus(folder) != before
    assert names(tmp_path) == ["kb", "source"]


def test_what_another_encoder_left_is_not_gone_on_with(source, tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"):
        build(source, tmp_path / "kb", Broken(dimension=32, fingerprint="broken"))
    assert build(source, tmp_path / "kb", HashedWords()).manifest.documents == 3
    assert KnowledgeBase.open(tmp_path / "kb", HashedWords()).verify() == []


@pytest.mark.parametrize("left", ["old format", "damaged", "empty"])
def test_what_cannot_be_used_is_replaced(source, folder, left):
    match left:
        case "old format":
            (folder / DATABASE).unlink()
            (folder / "manifest.json").write_text("{}", encoding="utf-8")
        case "damaged":
            data = (folder / DATABASE).read_bytes()
            (folder / DATABASE).write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
        case "empty":
            (folder / DATABASE).unlink()
    build(source, folder, HashedWords())
    assert names(folder) == [DATABASE]
    assert KnowledgeBase.open(folder, HashedWords()).verify() == []


def test_a_swap_that_fails_leaves_what_was_there(source, folder, monkeypatch):
    (folder / DATABASE).rename(folder / "manifest.json")  # of no use
    rename, calls = Path.rename, []

    def fail_once(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="disk gone"):
        build(source, folder, HashedWords())
    assert names(folder) == ["manifest.json"]


def test_a_swap_that_cannot_be_undone_keeps_the_old_base(source, folder, tmp_path, monkeypatch):
    (folder / DATABASE).rename(folder / "manifest.json")  # of no use
    rename, calls = Path.rename, []

    def fail_later(self, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_later)
    with pytest.raises(OSError, match="disk gone"):
        build(source, folder, HashedWords())
    assert [path.name for path in tmp_path.glob(".kb-*/old/*")] == ["manifest.json"]


@pytest.mark.parametrize("error", ["SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR"])
def test_a_base_that_cannot_be_looked_at_for_now_is_not_replaced(source, folder, tmp_path, monkeypatch, error):
    before = (folder / DATABASE).stat().st_ino
    read = rag.build.read_manifest

    def fail(connection, looked_at):
        if looked_at == folder:
            exc = sqlite3.OperationalError("not now")
            exc.sqlite_errorcode = getattr(sqlite3, error)
            raise exc
        return read(connection, looked_at)

    monkeypatch.setattr("rag.build.read_manifest", fail)
    with pytest.raises(KnowledgeError, match=r"not now|written by another process"):
        build(source, folder, HashedWords())
    assert (folder / DATABASE).stat().st_ino == before
    monkeypatch.undo()
    build(source, folder, HashedWords())
    assert (folder / DATABASE).stat().st_ino == before


def test_a_base_of_a_newer_format_is_not_replaced(source, folder):
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(KnowledgeError, match="has format 99, this version reads 3; use a newer one"):
        build(source, folder, HashedWords())


def test_what_a_killed_process_left_of_an_index_does_not_hinder(source, folder):
    (folder / ".index.hnsw-x1").write_bytes(b"half")
    build(source, folder, HashedWords())
    assert KnowledgeBase.open(folder, HashedWords()).verify() == []


def test_an_empty_folder_gets_the_base_inside_it(source, tmp_path, monkeypatch):
    out = tmp_path / "volume"
    out.mkdir()
    monkeypatch.chdir(out)
    before = out.stat().st_ino
    assert build(source, Path("."), HashedWords()).manifest.documents == 3
    assert out.stat().st_ino == before
    assert names(out) == [DATABASE]
    assert names(tmp_path) == ["source", "volume"]
    assert KnowledgeBase.open(out, HashedWords()).verify() == []


def test_a_folder_that_is_no_knowledge_base_is_not_replaced(source, folder, tmp_path):
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, source, HashedWords())
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, folder, HashedWords())
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        build(source, tmp_path / "link", HashedWords())


def test_documents_without_a_sentence_are_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.md").write_text("# Heading only\n", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="has a sentence to quote"):
        build(tmp_path / "source", tmp_path / "kb", HashedWords())
    assert names(tmp_path) == ["source"]


def test_a_build_names_what_it_left_out(source, tmp_path):
    (source / "bad.pdf").write_bytes(b"%PDF-1.7")
    built = build(source, tmp_path / "kb", HashedWords())
    assert built.manifest.documents == 3
    assert [file.path for file in built.quarantined] == ["bad.pdf"]


def test_a_strict_build_and_one_without_documents_leave_what_was_there(source, folder, tmp_path):
    before = corpus(folder)
    (source / "bad.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(QuarantineError, match=r"1 files below .* in strict mode none may be") as caught:
        build(source, folder, HashedWords(), strict=True)
    assert [file.path for file in caught.value.quarantined] == ["bad.pdf"]
    with pytest.raises(QuarantineError, match=r"4 files below .* no other is there"):
        build(source, folder, HashedWords(), limits=Limits(bytes=1))
    assert corpus(folder) == before
    assert names(tmp_path) == ["kb", "source"]


def test_a_strict_build_reads_each_file_once(source, tmp_path, monkeypatch):
    from rag.reading import ReadingProcess

    read, seen = ReadingProcess.read, []

    def noted(self, path, *more):
        seen.append(path.name)
        return read(self, path, *more)

    monkeypatch.setattr(ReadingProcess, "read", noted)
    build(source, tmp_path / "kb", HashedWords(), strict=True)
    assert sorted(seen) == ["paracetamol.md", "speed.txt", "voting.md"]


def test_a_strict_build_of_sound_files_is_built(source, tmp_path):
    assert build(source, tmp_path / "kb", HashedWords(), strict=True).quarantined == ()
