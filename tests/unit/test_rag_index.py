import dataclasses
import json
import os
import threading
import time

import numpy as np
import pytest

from rag.cache import INDEX, INDEX_NOTE, IndexSettings
from rag.index import reindex
from rag.mode import Mode
from rag.schema import DATABASE
from rag.store import KnowledgeBase
from rag.watch import watch
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document

SMALL = IndexSettings(flat=100, neighbours=16, construction=80, sample=50)
NAMES = [f"d{number:03}" for number in range(300)]


def text(number):
    return f"Topic{number} and thing{number % 17} with colour{number % 5} near place{number % 29}."


def knowledge_of(folder, count=300):
    with Writer(folder, HashedWords(64)) as writer:
        writer.change(add=[document(NAMES[number], text(number)) for number in range(count)])
    return folder


@pytest.fixture
def folder(tmp_path):
    return knowledge_of(tmp_path / "kb")


def opened(folder, settings=SMALL):
    return KnowledgeBase.open(folder, HashedWords(64), settings=settings)


def nearest(knowledge, query, k=10, **options):
    return [
        (item.passage.document, round(item.score, 5)) for item in knowledge.search(query, k, mode=Mode.DENSE, **options)
    ]


def test_exact_search_agrees_with_the_dot_product(folder):
    vectors = HashedWords(64).encode([f"{NAMES[number]}\n{text(number)}" for number in range(300)])
    query = HashedWords(64).encode(["topic7 thing7"])[0]
    order = np.lexsort((np.arange(300), -(vectors @ query)))[:10]
    found = opened(folder).search("topic7 thing7", 10, mode=Mode.DENSE)
    assert [item.score for item in found] == pytest.approx((vectors @ query)[order].tolist(), abs=1e-6)
    assert found[0].passage.document == "d007"


def test_a_large_base_gets_a_measured_graph_and_finds_what_exact_search_finds(folder):
    exact = opened(folder)
    reindex(folder, SMALL)
    approximate = opened(folder)
    figures = approximate.statistics()
    assert (figures.index, exact.statistics().index) == ("hnsw", "flat")
    assert 0.95 <= figures.recall <= 1
    hits = []
    for number in range(0, 300, 10):
        least = nearest(exact, text(number))[-1][1]  # others may be just as near
        hits.append(sum(score >= least for _, score in nearest(approximate, text(number))))
    assert np.mean(hits) >= 9
    assert approximate.verify() == []


def test_a_small_base_gets_none(folder):
    reindex(folder)
    assert not (folder / INDEX).exists()


def test_a_graph_that_finds_too_little_is_not_used(folder):
    reindex(folder, dataclasses.replace(SMALL, recall=1.1))
    assert not (folder / INDEX).exists()
    assert opened(folder).statistics().index == "flat"


def test_a_graph_that_found_too_little_is_not_made_again_at_once(folder, monkeypatch):
    strict = dataclasses.replace(SMALL, recall=1.1)
    reindex(folder, strict)
    made = []
    monkeypatch.setattr("rag.index.build_cached", lambda *arguments: made.append(arguments))
    reindex(folder, strict)
    assert made == []
    assert opened(folder).verify() == []
    reindex(folder, SMALL)  # of which less is asked
    assert len(made) == 1


def test_old_leftovers_of_an_index_are_removed_and_young_ones_not(folder):
    for name, age in ((".index.hnsw-old", 7200), (".index.json-young", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    reindex(folder, SMALL)
    assert not (folder / ".index.hnsw-old").exists()
    assert (folder / ".index.json-young").exists()


def test_watching_makes_the_graph_of_what_has_grown(tmp_path):
    source, stop = tmp_path / "source", threading.Event()
    source.mkdir()
    (source / "list.jsonl").write_text(
        "".join(
            json.dumps({"id": NAMES[n], "question": f"What is {n}?", "answer": text(n)}) + "\n" for n in range(120)
        ),
        encoding="utf-8",
    )
    with Writer(tmp_path / "kb", HashedWords(64)) as writer:
        for number, _ in enumerate(watch(writer, source, stop=stop, settings=SMALL), 1):
            if number == 120:
                stop.set()
    assert opened(tmp_path / "kb").statistics().index == "hnsw"


@pytest.mark.parametrize("damage", ["byte", "cut", "missing", "note", "no note"])
def test_a_damaged_graph_is_not_used_and_made_anew(folder, damage):
    reindex(folder, SMALL)
    data = (folder / INDEX).read_bytes()
    match damage:
        case "byte":
            (folder / INDEX).write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
        case "cut":
            (folder / INDEX).write_bytes(data[:5000])
        case "missing":
            (folder / INDEX).unlink()
        case "note":
            (folder / INDEX_NOTE).write_text("[", encoding="utf-8")
        case "no note":
            (folder / INDEX_NOTE).unlink()
    knowledge = opened(folder)
    assert knowledge.statistics().index == "flat"
    assert nearest(knowledge, text(7))[0][0] == "d007"
    assert bool(knowledge.verify()) is (damage in ("byte", "cut", "missing"))
    reindex(folder, SMALL)
    assert opened(folder).statistics().index == "hnsw"


def test_the_graph_of_another_base_is_not_used(folder, tmp_path):
    other = knowledge_of(tmp_path / "other")
    reindex(other, SMALL)
    for name in (INDEX, INDEX_NOTE):
        (folder / name).write_bytes((other / name).read_bytes())
    assert opened(folder).statistics().index == "flat"


@pytest.mark.parametrize("others", [1, 60])
def test_a_graph_that_is_not_of_the_rows_there_are_is_not_used(tmp_path, others):
    """A base that was restored from a copy and went another way than the one that the graph was made of."""
    folder = knowledge_of(tmp_path / "kb", 200)
    copy = (folder / DATABASE).read_bytes()
    with Writer(folder, HashedWords(64)) as writer:
        writer.change(add=[document(NAMES[number], text(number)) for number in range(200, 250)])
    reindex(folder, SMALL)
    (folder / DATABASE).write_bytes(copy)
    assert opened(folder).statistics().index == "hnsw"  # all it holds is in the graph
    with Writer(folder, HashedWords(64)) as writer:
        writer.change(add=[document(f"e{number}", f"Zebra{number} matter.") for number in range(others)])
    knowledge = opened(folder)
    assert knowledge.statistics().index == "flat"
    assert nearest(knowledge, "zebra0 matter", 1)[0][0] == "e0"
    reindex(folder, SMALL)
    assert opened(folder).statistics().index == "hnsw"


@pytest.mark.parametrize("key", ["passages", "ef_search", "recall_at_10"])
def test_a_note_that_lacks_something_is_not_used(folder, key):
    reindex(folder, SMALL)
    note = json.loads((folder / INDEX_NOTE).read_text(encoding="utf-8"))
    del note[key]
    (folder / INDEX_NOTE).write_text(json.dumps(note), encoding="utf-8")
    assert opened(folder).statistics().index == "flat"


def test_what_changed_since_the_graph_is_seen(folder):
    reindex(folder, SMALL)
    for knowledge in (opened(folder), opened(folder)):  # one that derives, one that reads what is there
        nearest(knowledge, "x")
        with Writer(folder, HashedWords(64)) as writer:
            writer.change(add=[document("new", "Zebra zebra zebra."), document("d007", "Now about giraffes.")])
            writer.change(remove=["d008"] if "d008" in writer.current_versions(["d008"]) else [])
        assert knowledge.statistics().index == "hnsw"
        assert nearest(knowledge, "zebra", 1)[0][0] == "new"
        assert "d008" not in dict(nearest(knowledge, text(8), 300))
        assert "giraffes" in knowledge.search("giraffes", 1, mode=Mode.DENSE)[0].passage.text
    knowledge = opened(folder)
    assert nearest(knowledge, "zebra", 1)[0][0] == "new"
    assert "d008" not in dict(nearest(knowledge, text(8), 300))


def test_a_narrow_filter_is_searched_exactly(folder):
    reindex(folder, SMALL)
    assert {name for name, _ in nearest(opened(folder), text(7), document="d250")} == {"d250"}


def test_a_stale_graph_is_made_anew_and_a_running_reader_takes_it(folder, monkeypatch):
    monkeypatch.setattr("rag.index._YOUNG", 10)
    reindex(folder, SMALL)
    knowledge = opened(folder)
    note = json.loads((folder / INDEX_NOTE).read_text(encoding="utf-8"))
    with Writer(folder, HashedWords(64)) as writer:
        writer.change(add=[document(f"e{number}", f"Other{number} matter.") for number in range(90)])
    assert nearest(knowledge, "other17 matter", 1)[0][0] == "e17"
    reindex(folder, SMALL)
    assert json.loads((folder / INDEX_NOTE).read_text(encoding="utf-8"))["generation"] == note["generation"] + 1
    knowledge.change(remove=["e18"])
    with knowledge.view() as view:
        view.search("x", 1)
        assert view.vectors().cached.stamp != note["sha256"]
        assert len(view.vectors().young.rows) == 0
    assert nearest(knowledge, "other17 matter", 1)[0][0] == "e17"


def test_many_changes_are_merged_into_the_flat_segment(tmp_path, monkeypatch):
    monkeypatch.setattr("rag.index._YOUNG", 5)
    folder = knowledge_of(tmp_path / "kb", 20)
    knowledge = opened(folder)
    for number in range(20, 40):
        knowledge.change(add=[document(NAMES[number], text(number))], remove=[NAMES[number - 20]])
        assert {name for name, _ in nearest(knowledge, "x", 99)} == set(NAMES[number - 19 : number + 1])
    with knowledge.view() as view:
        assert len(view.vectors().main.rows) + len(view.vectors().young.rows) <= 20 + 6
