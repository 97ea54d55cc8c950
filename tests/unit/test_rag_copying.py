"""A knowledge base is copied as it is at one moment, whole or not at all."""

import contextlib
import multiprocessing
import shutil
import sqlite3

import pytest

from rag.build import build
from rag.copying import copy_base
from rag.schema import DATABASE
from rag.store import KnowledgeBase
from rag.types import KnowledgeError
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document, write_source

PROCESSES = multiprocessing.get_context("forkserver")
WAIT_S = 60


def pair(turn):
    """Two documents that are always of one turn."""
    return [document(name, f"Fact of turn{turn} about {name}.") for name in ("left", "right")]


def change_until_told(folder, stop):
    with Writer(folder, HashedWords()) as writer:
        turn = 0
        while not stop.is_set():
            turn += 1
            writer.change(add=pair(turn))


def opened(folder):
    return KnowledgeBase.open(folder, HashedWords())


def test_a_copy_holds_all_that_the_base_does_in_one_file(tmp_path):
    build(write_source(tmp_path / "source"), tmp_path / "kb", HashedWords())
    knowledge = opened(tmp_path / "kb")
    knowledge.change(add=[document("speed", "The road is wet.")])
    manifest = copy_base(knowledge, tmp_path / "deep" / "copy")
    assert [path.name for path in (tmp_path / "deep" / "copy").iterdir()] == [DATABASE]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"], "nothing is left beside it"
    copy = opened(tmp_path / "deep" / "copy")
    assert (copy.verify(), copy.manifest) == ([], manifest)
    assert manifest == knowledge.manifest
    with copy.view() as old, knowledge.view() as new:
        assert list(old.documents()) == list(new.documents())
        assert old.versions("speed") == new.versions("speed")
    assert copy.search("wet road", 1) == knowledge.search("wet road", 1)


def test_what_only_the_log_of_a_base_holds_is_copied_too(tmp_path):
    """A copy of the file alone is an old state that is sound: what is newer stands in SQLite's log beside it."""
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge = opened(tmp_path / "kb")
    knowledge.change(add=pair(1))
    (tmp_path / "file").mkdir()
    shutil.copy(tmp_path / "kb" / DATABASE, tmp_path / "file")
    assert "turn0" in opened(tmp_path / "file").document("left").text, "negative control"
    copy_base(knowledge, tmp_path / "copy")
    assert "turn1" in opened(tmp_path / "copy").document("left").text


def test_each_copy_is_of_one_state_while_another_process_writes(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge, stop, generations = opened(tmp_path / "kb"), PROCESSES.Event(), []
    process = PROCESSES.Process(target=change_until_told, args=(tmp_path / "kb", stop), daemon=True)
    process.start()
    try:
        for number in range(200):
            copy_base(knowledge, tmp_path / str(number))
            copy = opened(tmp_path / str(number))
            assert {name: copy.document(name).text for name in ("left", "right")} == {
                made.id: made.text for made in pair(copy.manifest.generation - 1)
            }
            generations.append(copy.manifest.generation)
            if len(set(generations)) > 5:
                break
    finally:
        stop.set()
        process.join(WAIT_S)
    assert process.exitcode == 0
    assert generations == sorted(generations)
    assert len(set(generations)) > 5


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_not_copied_over(tmp_path, there):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "link": lambda: out.symlink_to("nowhere")}[there]()
    with pytest.raises(KnowledgeError, match="out exists; name a folder that is not there"):
        copy_base(opened(tmp_path / "kb"), out)
    assert not out.exists() or not out.is_dir() or not list(out.iterdir())


def test_a_place_where_nothing_can_be_made_is_named(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    (tmp_path / "file").touch()
    with pytest.raises(KnowledgeError, match=r"file/out cannot be made .*; name another folder"):
        copy_base(opened(tmp_path / "kb"), tmp_path / "file" / "out")


def test_of_a_base_that_is_not_sound_no_copy_is_kept(tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=pair(0))
    knowledge = opened(tmp_path / "kb")
    with contextlib.closing(sqlite3.connect(tmp_path / "kb" / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM words WHERE rowid = 1")
    with pytest.raises(KnowledgeError, match="is not sound, and no copy of it is kept: the index of words"):
        copy_base(knowledge, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb"]
