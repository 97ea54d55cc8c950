import dataclasses
import sqlite3

import numpy as np
import pytest

from rag.mode import Mode
from rag.rows import Prepared
from rag.schema import DATABASE
from rag.store import KnowledgeBase
from rag.types import Document, KnowledgeError
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document
from tests.unit.test_rag_store import citation

TEA = document("tea", "Tea is hot. It is drunk from cups.", trust="high")
COLD = document("tea", "Tea is cold.", trust="low")
MILK = document("milk", "Milk is white.")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kb"


@pytest.fixture
def knowledge(folder):
    with Writer(folder, HashedWords()) as writer:
        writer.change(add=[TEA, MILK])
    return KnowledgeBase.open(folder, HashedWords())


def test_documents_come_change_and_go(knowledge):
    generation = knowledge.manifest.generation
    changed = knowledge.change(add=[COLD, document("ice", "Ice is frozen.")], remove=["milk"])
    assert (changed.added, changed.changed, changed.removed) == (("ice",), ("tea",), ("milk",))
    assert changed.generation == generation + 1 == knowledge.manifest.generation
    for mode in Mode:
        assert {e.passage.document for e in knowledge.search("tea milk ice", 9, mode=mode)} <= {"tea", "ice"}
        assert knowledge.search("tea", 1, mode=mode)[0].passage.text == "Tea is cold."
    assert knowledge.search("tea", 9, where={"trust": ["high"]}) == []
    assert knowledge.verify() == []


def test_old_versions_stay_for_the_citations_that_name_them(knowledge):
    quote = citation(TEA, 0, 11)
    assert knowledge.check(quote, current=True)
    knowledge.change(add=[COLD])
    assert knowledge.check(quote)
    assert not knowledge.check(quote, current=True)
    assert not knowledge.check(dataclasses.replace(quote, version=COLD.version))
    assert knowledge.document("tea", TEA.version) == TEA
    knowledge.change(remove=["tea"])
    assert knowledge.check(quote)
    for version, which in ((None, "any more"), ("0" * 64, "of version 0")):
        with pytest.raises(KnowledgeError, match=f"no document 'tea' {which}") as gone:
            knowledge.document("tea", version)
        assert f"{TEA.version[:12]}, {COLD.version[:12]}: " in str(gone.value)
        assert f"`airlock kb show tea --version {COLD.version[:12]}`" in str(gone.value)
    with knowledge.view() as view:
        assert view.versions("tea") == [TEA.version, COLD.version]
    assert knowledge.statistics().old_versions == 2


def test_a_version_that_comes_back_is_current_again(knowledge):
    for item in (COLD, TEA):
        knowledge.change(add=[item])
    assert knowledge.check(citation(TEA, 0, 11), current=True)
    assert knowledge.search("tea", 1)[0].passage.version == TEA.version
    assert knowledge.verify() == []


def test_the_same_again_changes_nothing_and_embeds_nothing(knowledge, folder):
    class Unused(HashedWords):
        def encode(self, texts, *, progress=False):
            assert not texts
            return super().encode(texts)

    with Writer(folder, Unused()) as writer:
        done = writer.change(add=[TEA])
    assert (done.unchanged, done.generation) == (("tea",), knowledge.manifest.generation)


def test_what_is_unchanged_is_told_by_versions_not_by_comparing_contents(knowledge, folder, monkeypatch):
    def refuse(self, other):
        raise AssertionError("contents are compared")

    monkeypatch.setattr(Prepared, "__eq__", refuse)
    with Writer(folder, HashedWords()) as writer:
        done = writer.change(add=[TEA, MILK, document("a", "A text."), document("b", "B text.")])
    assert (done.added, done.unchanged) == (("a", "b"), ("tea", "milk"))


def test_pruning_deletes_old_versions_only(knowledge, folder):
    knowledge.search("tea", 1)
    knowledge.change(add=[COLD])
    with Writer(folder, HashedWords()) as writer:
        assert writer.prune(0.0) == 0
        assert writer.prune(float("inf")) == 1
    assert not knowledge.check(citation(TEA, 0, 11))
    assert [e.passage.text for e in knowledge.search("tea", 9, mode=Mode.BM25)] == ["Tea is cold."]
    assert {e.passage.document for e in knowledge.search("tea", 9)} == {"tea", "milk"}
    assert knowledge.verify() == []


@pytest.mark.parametrize(
    ("add", "remove", "message"),
    [
        ([], ["nowhere"], "no document 'nowhere'; nothing is changed"),
        ([COLD], ["nowhere"], "no document 'nowhere'"),
        ([COLD], ["tea"], "names document 'tea' twice"),
        ([COLD, TEA], [], "names document 'tea' twice"),
        ([dataclasses.replace(COLD, title="Other")], [], "not of the version it says"),
        ([dataclasses.replace(COLD, id="")], [], "empty or cannot be printed"),
        ([dataclasses.replace(COLD, id="a\nb")], [], "empty or cannot be printed"),
        ([Document("x", "0", "x", "half \ud800", {})], [], "half of a surrogate pair"),
        ([Document("x", "0", "x", "x", {"a": "\ud800"})], [], "half of a surrogate pair"),
        ([COLD, document("x", "Some text.", expires="soon")], [], "`expires` is 'soon'"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(knowledge, add, remove, message):
    before = knowledge.manifest
    with pytest.raises(KnowledgeError, match=message):
        knowledge.change(add=add, remove=remove)
    assert knowledge.manifest == before
    assert knowledge.document("tea") == TEA


@pytest.mark.parametrize("vectors", [np.full((1, 256), np.nan, np.float32), np.ones((1, 2), np.float32)])
def test_vectors_that_are_none_are_refused(knowledge, folder, vectors):
    class Broken(HashedWords):
        def encode(self, texts, *, progress=False):
            return vectors

    with Writer(folder, Broken()) as writer, pytest.raises(KnowledgeError, match="nothing is stored"):
        writer.change(add=[COLD])
    assert knowledge.document("tea") == TEA


def test_two_writers_take_turns_and_waiting_ends(knowledge, folder):
    other = sqlite3.connect(folder / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Writer(folder, HashedWords(), wait_s=0.05) as writer:
        with pytest.raises(KnowledgeError, match=r"written by another process for more than 0\.05 seconds"):
            writer.change(add=[COLD])
        other.execute("ROLLBACK")
        other.close()
        assert writer.change(add=[COLD]).changed == ("tea",)


def test_what_another_writer_did_meanwhile_is_noticed(knowledge, folder):
    with Writer(folder, HashedWords()) as one, Writer(folder, HashedWords()) as two:
        prepared = one.prepare([TEA])  # is there: nothing to embed
        two.change(add=[COLD])
        assert one.commit(prepared) is None
        assert one.change(add=[TEA]).changed == ("tea",)
    assert knowledge.document("tea") == TEA
    assert knowledge.verify() == []


def test_a_writer_makes_a_base_but_not_of_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="is not a knowledge base"):
        Writer(tmp_path, HashedWords())
    with Writer(tmp_path / "deep" / "kb", HashedWords()):
        pass
    assert KnowledgeBase.open(tmp_path / "deep" / "kb", HashedWords()).search("x", 1) == []


def test_text_with_odd_characters_is_stored_as_it_is(knowledge):
    odd = document("odd", "A \0 null, a \U0001f600 and a \u202e mark. Another sentence.")
    knowledge.change(add=[odd])
    assert knowledge.document("odd") == odd
    assert all(
        odd.text[e.passage.start : e.passage.end] == e.passage.text for e in knowledge.search("null", 9, document="odd")
    )
    assert knowledge.verify() == []
