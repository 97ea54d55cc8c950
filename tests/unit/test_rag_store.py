import contextlib
import dataclasses
import os
import sqlite3
from pathlib import Path

import pytest

import rag.schema
from rag.build import build
from rag.documents import read_documents
from rag.mode import Mode
from rag.schema import DATABASE, SAMPLE, corpus_hash
from rag.store import KnowledgeBase
from rag.types import Citation, KnowledgeError, Status
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document, write_source

DAY = 86400.0


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(write_source(folder / "source"), folder / "kb", HashedWords())
    return (folder / "kb" / DATABASE).read_bytes()


@pytest.fixture
def folder(tmp_path, built):
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / DATABASE).write_bytes(built)
    return tmp_path / "kb"


@pytest.fixture
def knowledge(folder):
    return KnowledgeBase.open(folder, HashedWords())


def damage(folder, statement, *values):
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute(statement, values)


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


def found(knowledge, query, **options):
    return {item.passage.document for item in knowledge.search(query, 50, **options)}


def test_a_built_knowledge_base_opens_verifies_and_finds(knowledge):
    assert knowledge.verify() == []
    best, *rest = knowledge.search("maximum of paracetamol in a day", 3)
    assert (best.passage.document, len(rest)) == ("health/paracetamol", 2)
    assert best.score > max(item.score for item in rest)
    with knowledge.view() as view:
        assert view.document_ids() == ["health/paracetamol", "speed", "voting"]
        text = view.document(best.passage.document).text
    assert text[best.passage.start : best.passage.end] == best.passage.text


def test_all_documents_are_listed_with_what_a_search_can_ask_for(knowledge):
    with knowledge.view() as view:
        assert [found.id for found in view.documents()] == view.document_ids()
        assert list(view.documents())[2] == view.document("voting")
        assert view.entries() == ["categories", "publisher", "retrieved", "stance"]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("speed.txt", "; did you mean 'speed'?"),
        ("health.csv/paracetamol", "; did you mean 'health/paracetamol'?"),
        ("zzz", "; `airlock kb show` lists those that it has"),
    ],
)
def test_an_unknown_id_is_told_with_the_nearest_ones(folder, knowledge, wrong, hint):
    with pytest.raises(KnowledgeError) as shown:
        knowledge.document(wrong)
    assert str(shown.value) == f"knowledge base {folder} has no document {wrong!r}{hint}"
    with pytest.raises(KnowledgeError) as removed:
        knowledge.change(remove=[wrong])
    assert str(removed.value) == str(shown.value).replace(hint, f"; nothing is changed{hint}")


def test_an_unknown_version_of_a_document_is_told_as_such(knowledge):
    with pytest.raises(KnowledgeError, match="no document 'speed' of version 0; `airlock kb show speed --json` lists"):
        knowledge.document("speed", "0")


def test_search_in_one_document_gives_its_passages_only(knowledge):
    for mode in Mode:
        found = knowledge.search("paracetamol voting age supporters opponents", 10, document="voting", mode=mode)
        assert {item.passage.document for item in found} == {"voting"}
        assert len(found) == 3


def test_search_refuses_what_it_cannot_do(knowledge):
    with pytest.raises(KnowledgeError, match="k = 0"):
        knowledge.search("x", 0)
    with pytest.raises(KnowledgeError, match="no document 'nowhere'"):
        knowledge.search("x", 1, document="nowhere")
    with pytest.raises(KnowledgeError, match="no document 'speed' of version 0"):
        knowledge.document("speed", "0")


def test_scores_are_similarities_in_every_mode(knowledge):
    query = "stopping distance"
    scores = {mode: {item.passage.id: item.score for item in knowledge.search(query, 6, mode=mode)} for mode in Mode}
    assert set(scores[Mode.BM25]) == {"speed#0"}
    assert scores[Mode.BM25]["speed#0"] == pytest.approx(scores[Mode.DENSE]["speed#0"])
    assert scores[Mode.HYBRID] == pytest.approx(scores[Mode.DENSE])


def test_words_bring_up_what_vectors_miss(tmp_path):
    class Deaf(HashedWords):
        """Hears no difference between words."""

        def encode(self, texts, *, progress=False):
            return super().encode(["same"] * len(texts))

    with Writer(tmp_path / "kb", Deaf()) as writer:
        writer.change(add=[document(f"d{number}", f"A sentence about topic{number}.") for number in range(30)])
    knowledge = KnowledgeBase.open(tmp_path / "kb", Deaf())
    assert knowledge.search("topic17", 1, mode=Mode.DENSE)[0].passage.document == "d0"
    assert knowledge.search("topic17", 1, mode=Mode.HYBRID)[0].passage.document == "d17"


def test_documents_are_filtered_by_their_metadata(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(
            add=[
                document("a", "Tea is hot.", trust="high", language="en"),
                document("b", "Tea is warm.", trust="low", language="en"),
                document("c", "Tea is cold.", trust="high", topics=["tea", "ice"]),
            ]
        )
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    for mode in Mode:
        assert found(knowledge, "tea", mode=mode) == {"a", "b", "c"}
        assert found(knowledge, "tea", mode=mode, where={"trust": ["high"]}) == {"a", "c"}
        assert found(knowledge, "tea", mode=mode, where={"trust": ["high", "low"]}) == {"a", "b", "c"}
        assert found(knowledge, "tea", mode=mode, where={"trust": ["high"], "language": ["en"]}) == {"a"}
        assert found(knowledge, "tea", mode=mode, where={"topics": ["ice"]}) == {"c"}
        assert found(knowledge, "tea", mode=mode, where={"trust": ["' OR 1=1 --"], "x'": ["y"]}) == set()
        assert found(knowledge, "tea", mode=mode, where={"trust": []}) == set()


@pytest.mark.parametrize(
    ("expires", "last"),
    [
        ("2026-01-31", 1769904000.0),  # the end of that day, UTC
        ("2026-01-31T12:00:00", 1769860800.0),
        ("2026-01-31T12:00:00+02:00", 1769853600.0),
    ],
)
def test_what_has_expired_is_neither_found_nor_cited(tmp_path, expires, last):
    now = [last - 1]
    tea = document("tea", "Tea is hot.", expires=expires)
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[tea, document("milk", "Milk is cold.")])
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords(), now=lambda: now[0])
    assert found(knowledge, "tea") == {"tea", "milk"}
    assert knowledge.check(citation(tea, 0, 11))
    now[0] = last
    for mode in (Mode.DENSE, Mode.HYBRID):
        assert found(knowledge, "tea", mode=mode) == {"milk"}
    assert found(knowledge, "tea", mode=Mode.BM25) == set()
    assert found(knowledge, "tea", document="tea") == set()
    assert not knowledge.check(citation(tea, 0, 11))
    assert knowledge.statistics().expired == 1
    assert knowledge.verify() == []


def test_the_last_day_there_is_means_never(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[document("tea", "Tea is hot.", expires="9999-12-31")])
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    assert found(knowledge, "tea") == {"tea"}
    assert knowledge.verify() == []


def test_words_are_ranked_alone_where_all_is_in_scope(tmp_path):
    now, asked = [0.0], []
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(
            add=[
                document("a", "Tea is hot.", expires="2026-01-31"),
                document("b", "Tea and tea is warm."),
                document("c", "Ice."),
            ]
        )
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords(), now=lambda: now[0])

    def order(**options):
        with knowledge.view() as view:
            view._connection.set_trace_callback(asked.append)
            best = [item.passage.document for item in view.search("tea", 9, mode=Mode.BM25, **options)]
            view._connection.set_trace_callback(None)
        joined = any("JOIN" in said and "MATCH" in said for said in asked)
        asked.clear()
        return best, joined

    assert order() == (["b", "a"], False)
    assert order(document="b") == (["b"], True)
    now[0] = 2e9
    assert order() == (["b"], True)


def test_a_reranker_has_the_last_word(folder):
    class Longest:
        def score(self, query, texts):
            return [len(text) for text in texts]

    knowledge = KnowledgeBase.open(folder, HashedWords(), reranker=Longest())
    best = knowledge.search("paracetamol", 1)[0]
    every = KnowledgeBase.open(folder, HashedWords()).search("paracetamol", 50)
    assert len(best.passage.text) == max(len(item.passage.text) for item in every)
    assert best.score == next(item.score for item in every if item.passage.id == best.passage.id)


def test_check_accepts_only_the_quote_at_its_place_in_this_version(knowledge):
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


# What is refused


@pytest.mark.parametrize("other", [HashedWords(fingerprint="other"), HashedWords(dimension=128)])
def test_another_encoder_is_refused(folder, other):
    with pytest.raises(KnowledgeError, match="was built with encoder"):
        KnowledgeBase.open(folder, other)
    with pytest.raises(KnowledgeError, match="was built with encoder"):
        Writer(folder, other)


def test_a_missing_base_and_one_of_the_old_format_are_refused(tmp_path):
    with pytest.raises(KnowledgeError, match=r"knowledge\.db is not there; build one"):
        KnowledgeBase.open(tmp_path, HashedWords())
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="has format 1, this version reads 3; build it again"):
        KnowledgeBase.open(tmp_path, HashedWords())
    with pytest.raises(KnowledgeError, match="not a knowledge base of this format"):
        Writer(tmp_path, HashedWords())


@pytest.mark.parametrize(("number", "way_out"), [(2, "build it again"), (99, "use a newer one")])
def test_another_format_is_refused(folder, number, way_out):
    damage(folder, f"PRAGMA user_version = {number}")
    with pytest.raises(KnowledgeError, match=f"has format {number}, this version reads 3; {way_out}"):
        KnowledgeBase.open(folder, HashedWords())


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\xff" * 5000, b"no database" * 100])
def test_a_file_that_is_no_base_is_refused(folder, content):
    (folder / DATABASE).write_bytes(content)
    with pytest.raises(KnowledgeError, match=r"build it again|cannot be used"):
        KnowledgeBase.open(folder, HashedWords())


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE manifest SET corpus = 'f'", "other documents than its manifest says"),
        ("UPDATE manifest SET documents = 4", "other documents than its manifest says"),
        ("UPDATE manifest SET passages = 7", "other documents than its manifest says"),
        ("DELETE FROM documents WHERE id = 'speed'", "other documents than its manifest says"),
        ("DELETE FROM manifest", "has lost its manifest"),
        ("UPDATE passages SET vector = zeroblob(1024) WHERE row = 2", "vectors of document .* are damaged"),
        ("UPDATE passages SET start = start + 1 WHERE row = 2", "vectors of document .* are damaged"),
    ],
)
def test_what_is_not_what_the_manifest_says_is_refused(folder, statement, refused):
    damage(folder, statement)
    with pytest.raises(KnowledgeError, match=refused):
        KnowledgeBase.open(folder, HashedWords())


def test_text_that_is_no_utf_8_is_damage(folder, knowledge):
    damage(folder, "UPDATE documents SET text = CAST(x'ff41' AS TEXT) WHERE id = 'speed'")
    with pytest.raises(KnowledgeError, match="is damaged"):
        knowledge.document("speed")


@pytest.mark.parametrize("column", ["text", "title"])
def test_a_damaged_document_is_never_shown(folder, knowledge, column):
    damage(folder, f"UPDATE documents SET {column} = replace({column}, 'S', 'Z') WHERE id = 'speed'")
    for use in (lambda: knowledge.document("speed"), lambda: knowledge.search("stopping distance", 1)):
        with pytest.raises(KnowledgeError, match="document 'speed' is damaged"):
            use()
    assert knowledge.verify() == ["document speed is not the version it says"]


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE documents SET text = 'x' WHERE id = 'speed'", "a passage that does not stand in its text"),
        ("UPDATE documents SET expires = 1 WHERE id = 'speed'", "document speed is not the version it says"),
        ("UPDATE documents SET metadata = '{' WHERE id = 'speed'", "metadata that cannot be read"),
        ("UPDATE passages SET vector = zeroblob(1024) WHERE row = 2", "not those it was stored with"),
        ("UPDATE entries SET value = 'Other' WHERE key = 'publisher'", "is filtered by other metadata than it has"),
        ("DELETE FROM words WHERE rowid = 1", "index of words does not hold the passages"),
        ("UPDATE manifest SET passages = 7", "6 passages, the manifest says 7"),
        ("UPDATE manifest SET corpus = 'f'", "not the corpus that the manifest names"),
        ("UPDATE passages SET number = number + 1 WHERE row = 2", "passages that are not numbered in their order"),
        ("DROP INDEX documents_current", "the database has no documents_current"),
        ("CREATE TRIGGER more AFTER INSERT ON passages BEGIN SELECT 1; END", "the database has another more"),
        ("ALTER TABLE files ADD COLUMN more TEXT", "the database has another files than the one it was made with"),
    ],
)
def test_verify_names_what_is_wrong(folder, knowledge, statement, fault):
    damage(folder, statement)
    assert any(fault in said for said in knowledge.verify())


def test_the_hash_of_a_corpus_takes_documents_in_and_out():
    one, two = ("a", "1"), ("b", "2")
    both = corpus_hash([one, two])
    assert both == corpus_hash([two, one]) != corpus_hash([one])
    assert corpus_hash([two], both, sign=-1) == corpus_hash([one])
    assert corpus_hash([("a", "2"), ("b", "1")]) != both


# Where nothing can be written


def test_a_folder_that_cannot_be_written_is_read_without_a_trace(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    knowledge = KnowledgeBase.open(folder, HashedWords())
    assert knowledge.search("paracetamol", 1)
    assert [path.name for path in folder.iterdir()] == [DATABASE]


def test_what_another_writes_to_a_folder_that_is_not_ours_is_seen_or_refused(folder, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    knowledge = KnowledgeBase.open(folder, HashedWords())
    knowledge.search("paracetamol", 1)

    def change(text):
        with monkeypatch.context() as other:
            other.setattr(os, "access", access)
            with Writer(folder, HashedWords()) as writer:
                writer.change(add=[document("new", text)])

    change("A zebra.")
    assert knowledge.search("zebra", 1)[0].passage.text == "A zebra."

    def be_overtaken():
        with knowledge.view() as view:
            view.search("zebra", 1)
            change("A giraffe.")

    with pytest.raises(KnowledgeError, match="was written by another while it was read"):
        be_overtaken()
    with Writer(folder, HashedWords()) as writer:  # whose log stays while it is open
        writer.change(add=[document("more", "A lion.")])
        assert knowledge.search("lion", 1)[0].passage.text == "A lion."
    assert knowledge.search("giraffe", 1)[0].passage.text == "A giraffe."


def test_figures_can_be_had_while_the_log_goes_away(knowledge, monkeypatch):
    is_file = Path.is_file

    def gone(self):
        if self.name.endswith("-wal"):
            raise FileNotFoundError
        return is_file(self)

    with Writer(knowledge.folder, HashedWords()) as writer:
        writer.change(add=[document("new", "Text.")])
        monkeypatch.setattr(Path, "is_file", gone)
        assert knowledge.statistics().bytes > 0


def test_the_shipped_sample_is_built_from_the_documents_in_the_repository(monkeypatch):
    documents = read_documents(Path(__file__).parents[2] / "data" / "knowledge").documents
    with contextlib.closing(rag.schema.open_reader(SAMPLE)) as connection:
        manifest = rag.schema.read_manifest(connection, SAMPLE)
    current = corpus_hash((item.id, item.version) for item in documents)
    assert manifest.corpus == current, (
        "run: rm -r rag/assets/sample && airlock kb build data/knowledge --out rag/assets/sample"
    )
    knowledge = KnowledgeBase.open(SAMPLE, HashedWords(manifest.dimension, manifest.encoder))
    assert knowledge.verify() == []
    assert knowledge.statistics().old_versions == 0
    assert [path.name for path in SAMPLE.iterdir()] == [DATABASE]
