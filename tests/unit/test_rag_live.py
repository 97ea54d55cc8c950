"""A knowledge base that is searched while it is changed, by threads and by processes, some of which are killed."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import threading
import time

import pytest

from rag.build import build
from rag.index import next_vectors
from rag.mode import Mode
from rag.schema import DATABASE
from rag.store import KnowledgeBase
from rag.types import KnowledgeError
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document, write_source

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["rag.write", "rag.build", "tests.unit.rag_cases"])
WAIT_S = 60


def pair(turn):
    """Two documents that are always of one turn."""
    return [
        document(name, f"Fact of turn{turn} about {name}.", asks=[f"Who knows state{turn}?"])
        for name in ("left", "right")
    ]


def change_pairs(folder, turns):
    with Writer(folder, HashedWords()) as writer:
        for turn in range(1, turns):
            writer.change(add=pair(turn))


def add_until_killed(folder, said, start):
    with Writer(folder, HashedWords()) as writer:
        for number in range(start, 100_000):
            name = f"d{number}"
            writer.change(
                add=[
                    document(name, f"Fact {number}. Another fact {number}.", asks=[f"Who says {number}?"]),
                    document("shared", f"Turn {number}.", asks=[f"Whose turn is {number}?"]),
                ]
            )
            said.send(number)


def build_until_killed(source, out, said):
    said.send("started")
    while True:
        build(source, out, HashedWords())


def start(target, *arguments):
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join(WAIT_S)
    process.close()


@pytest.mark.parametrize("mode", list(Mode))
def test_each_search_sees_one_state_while_another_process_writes(tmp_path, mode):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    process = start(change_pairs, tmp_path / "kb", 25)
    faults, seen = [], set()

    def read():
        while process.is_alive():
            with knowledge.view() as view:
                first = {e.passage.text.split()[2] for e in view.search("fact of turn about", 9, mode=mode)}
                time.sleep(0.001)
                again = {view.document(name).text.split()[2] for name in ("left", "right")}
                state = min(again).removeprefix("turn")
                asked = {e.asked for e in view.search(f"Who knows state{state}?", 9, mode=Mode.DENSE)}
            seen.update(first)
            if not (len(first) == 1 and first == again and min(asked) > 0.999):
                faults.append((first, again, asked))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    process.join(WAIT_S)
    assert faults == []
    assert len(seen) > 3
    assert knowledge.document("left").text == "Fact of turn24 about left."
    assert knowledge.verify() == []
    assert knowledge.manifest.generation == 25


def test_a_change_by_another_process_is_searchable_at_once(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    assert "turn0" in knowledge.search("turn0", 1)[0].passage.text
    process = start(change_pairs, tmp_path / "kb", 2)
    process.join(WAIT_S)
    assert "turn1" in knowledge.search("turn1", 1)[0].passage.text


def test_a_base_that_is_replaced_by_another_folder_is_noticed(tmp_path):
    for name, turn in (("kb", 0), ("new", 1)):
        with Writer(tmp_path / name, HashedWords()) as writer:
            writer.change(add=pair(turn))
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    assert "turn0" in knowledge.search("fact", 1)[0].passage.text
    shutil.rmtree(tmp_path / "kb")
    assert "turn0" in knowledge.search("fact", 1)[0].passage.text  # while nothing is there, what was
    (tmp_path / "new").rename(tmp_path / "kb")
    assert "turn1" in knowledge.search("fact", 1)[0].passage.text


def test_a_base_that_stays_away_is_not_answered_from(tmp_path, monkeypatch):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    (tmp_path / "kb").rename(tmp_path / "away")
    assert knowledge.search("fact", 1)  # it may be about to be replaced
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    with pytest.raises(KnowledgeError, match=r"knowledge\.db is not there"):
        knowledge.search("fact", 1)
    (tmp_path / "away").rename(tmp_path / "kb")
    assert knowledge.search("fact", 1)
    (tmp_path / "kb").rename(tmp_path / "away")
    assert knowledge.search("fact", 1), "missed anew"


def test_a_copy_that_is_put_back_in_place_is_searched_as_it_is(tmp_path):
    folder = tmp_path / "kb"
    knowledge = base_with(folder, left="Fact of turn0.", right="Other fact.")
    copy = copied(folder)
    knowledge.change(add=[document("left", "Fact of turn1.")], remove=["right"])
    assert [e.passage.text for e in knowledge.search("turn1", 9)] == ["Fact of turn1."]
    put_back(folder, copy)
    for _ in range(2):
        assert {e.passage.text for e in knowledge.search("turn0", 9)} == {"Fact of turn0.", "Other fact."}
        assert knowledge.manifest.generation == 1


@pytest.mark.parametrize("lost", ["added", "removed"])
def test_a_copy_that_was_put_back_and_overtook_what_was_lost_is_searched_as_it_is(tmp_path, lost):
    folder = tmp_path / "kb"
    knowledge = base_with(folder, left="Fact of turn0.", right="Other fact.")
    copy = copied(folder)
    change = {"add": [document("lost", "A lost zebra.")]} if lost == "added" else {"remove": ["right"]}
    knowledge.change(**change)
    knowledge.search("zebra", 1)
    put_back(folder, copy)
    with Writer(folder, HashedWords()) as writer:
        writer.change(add=[document("new", "A new giraffe.")])
        writer.change(add=[document("more", "More of it.")])
    texts = {e.passage.text for e in knowledge.search("giraffe", 9)}
    assert texts == {"Fact of turn0.", "Other fact.", "A new giraffe.", "More of it."}
    assert knowledge.search("giraffe", 1)[0].passage.text == "A new giraffe."


def base_with(folder, **texts):
    with Writer(folder, HashedWords()) as writer:
        writer.change(add=[document(name, text) for name, text in texts.items()])
    return KnowledgeBase.open(folder, HashedWords())


def copied(folder):
    """A copy of the database, as a backup makes it."""
    copy_database(folder / DATABASE, folder.with_suffix(".backup"))
    return folder.with_suffix(".backup")


def put_back(folder, copy):
    """Write it over the database that is there, whose inode stays."""
    copy_database(copy, folder / DATABASE)


def copy_database(source, target):
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def test_a_view_that_others_overtook_searches_its_own_state(tmp_path):
    knowledge = base_with(tmp_path / "kb", left="Fact of turn0.")
    with knowledge.view() as view:
        knowledge.change(add=[document("left", "Fact of turn1.")])
        assert [e.passage.text for e in knowledge.search("fact", 9)] == ["Fact of turn1."]
        assert [e.passage.text for e in view.search("fact", 9)] == ["Fact of turn0."]
    assert [e.passage.text for e in knowledge.search("fact", 9)] == ["Fact of turn1."]


def test_only_a_search_by_vectors_waits_for_vectors(tmp_path, monkeypatch):
    knowledge = base_with(tmp_path / "kb", left="Fact of turn0.")
    knowledge.change(add=[document("left", "Fact of turn1.")])
    started, go = threading.Event(), threading.Event()

    def slow(*arguments):
        started.set()
        assert go.wait(WAIT_S)
        return next_vectors(*arguments)

    monkeypatch.setattr("rag.snapshots.next_vectors", slow)
    found = []
    thread = threading.Thread(target=lambda: found.extend(knowledge.search("fact", 1)))
    thread.start()
    try:
        assert started.wait(WAIT_S)
        assert knowledge.manifest.generation == 2
        assert knowledge.document("left").text == "Fact of turn1."
        assert knowledge.search("fact", 1, mode=Mode.BM25)[0].passage.text == "Fact of turn1."
    finally:
        go.set()
        thread.join(WAIT_S)
    assert [e.passage.text for e in found] == ["Fact of turn1."]


def test_a_writer_notices_that_its_database_was_replaced(tmp_path):
    for name in ("kb", "new"):
        base_with(tmp_path / name, left=name)
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        shutil.rmtree(tmp_path / "kb")
        (tmp_path / "new").rename(tmp_path / "kb")
        with pytest.raises(KnowledgeError, match="was replaced by another"):
            writer.change(remove=["left"])
    assert KnowledgeBase.open(tmp_path / "kb", HashedWords()).document("left").text == "new"


def killed_writers(folder, times, seed):
    """Kill a writer at random moments, again and again; after each, all that it acknowledged is there and sound."""
    chance = random.Random(seed)
    acknowledged = -1
    for _ in range(times):
        hears, says = PROCESSES.Pipe(duplex=False)
        process = start(add_until_killed, folder, says, acknowledged + 1)
        says.close()
        if chance.random() < 0.8:  # else it is killed while it opens
            hears.poll(WAIT_S)
        time.sleep(chance.uniform(0, 0.03))
        kill(process)
        while hears.poll():
            try:
                acknowledged = max(acknowledged, hears.recv())
            except EOFError:
                break
        hears.close()
        if acknowledged < 0:
            continue
        knowledge = KnowledgeBase.open(folder, HashedWords())
        with knowledge.view() as view:
            names = set(view.document_ids())
            last = int(view.document("shared").text.split()[1].rstrip("."))
        assert names == {"shared", *(f"d{number}" for number in range(last + 1))}
        assert acknowledged <= last <= acknowledged + 1
        assert knowledge.verify() == []
        assert knowledge.search(f"Fact {last}.", 1, mode=Mode.BM25)[0].passage.document == f"d{last}"
        assert knowledge.search(f"Whose turn is {last}?", 9, document="shared")[0].asked == pytest.approx(1.0)
        knowledge.close()
        acknowledged = last
    assert acknowledged > times // 2


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    killed_writers(tmp_path / "kb", 8, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_writers_killed_hundreds_of_times_lose_nothing_that_they_acknowledged(tmp_path):
    for seed in range(4):
        killed_writers(tmp_path / f"kb{seed}", 75, seed=seed + 1)


def killed_builds(folder, times, seed):
    chance = random.Random(seed)
    source = write_source(folder / "source")
    (source / "asked.md").write_text("---\nasks: [Who asks?]\n---\nSomebody does.", encoding="utf-8")
    build(source, folder / "kb", HashedWords())
    corpus = KnowledgeBase.open(folder / "kb", HashedWords()).manifest.corpus
    for _ in range(times):
        hears, says = PROCESSES.Pipe(duplex=False)
        process = start(build_until_killed, source, folder / "kb", says)
        hears.poll(WAIT_S)
        time.sleep(chance.uniform(0, 1.0))
        kill(process)
        hears.close()
        says.close()
        knowledge = KnowledgeBase.open(folder / "kb", HashedWords())
        assert knowledge.manifest.corpus == corpus
        assert knowledge.verify() == []
        knowledge.close()
    build(source, folder / "kb", HashedWords())
    assert sorted(path.name for path in folder.iterdir()) == ["kb", "source"]


def test_a_killed_build_leaves_what_was_there(tmp_path):
    killed_builds(tmp_path, 3, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_builds_killed_a_hundred_times_leave_what_was_there(tmp_path):
    killed_builds(tmp_path, 100, seed=1)
