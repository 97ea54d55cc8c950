"""A knowledge base that is searched while it is changed, by threads and by processes, some of which are killed."""

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import pytest

from rag.build import build
from rag.store import KnowledgeBase
from rag.types import Mode
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document, write_source

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["rag.write", "rag.build", "tests.unit.rag_cases"])
WAIT_S = 60


def pair(turn):
    """Two documents that are always of one turn."""
    return [document(name, f"Fact of turn{turn} about {name}.") for name in ("left", "right")]


def change_pairs(folder, turns):
    with Writer(folder, HashedWords()) as writer:
        for turn in range(1, turns):
            writer.change(add=pair(turn))


def add_until_killed(folder, said, start):
    with Writer(folder, HashedWords()) as writer:
        for number in range(start, 100_000):
            name = f"d{number}"
            writer.change(
                add=[document(name, f"Fact {number}. Another fact {number}."), document("shared", f"Turn {number}.")]
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
            seen.update(first)
            if not (len(first) == 1 and first == again):
                faults.append((first, again))

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
