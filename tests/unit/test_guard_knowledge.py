"""`airlock kb` on the command line, without a model."""

import pytest
from typer.testing import CliRunner

from guard.cli import app, knowledge
from guard.config import load_config
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document


@pytest.fixture
def run(tmp_path, monkeypatch):
    def encoder(config, kb):
        return load_config(None, {"knowledge.path": str(kb)}), HashedWords()

    monkeypatch.setattr(knowledge, "_encoder", encoder)

    def call(*arguments, kb=tmp_path / "kb"):
        return CliRunner().invoke(app, ["kb", *map(str, arguments), "--kb", str(kb)])

    return call


@pytest.mark.parametrize("command", [["remove", "tea"], ["prune", "--before", "2026-01-01"]])
def test_a_mistyped_base_is_not_made_in_order_to_remove_from_it(run, tmp_path, command):
    assert run(*command, kb=tmp_path / "bk").exit_code != 0
    assert not (tmp_path / "bk").exists()


def test_a_document_sends_nothing_to_the_terminal_but_text(run, tmp_path):
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[document("tea", "Tea\x1b[2J is\x9b hot.\n\n東京\u3000\xa0é\t😀 stay.", note="a\x07b")])
    for said in (run("show", "tea").output, run("search", "tea").output):
        assert "Tea⟨U+001B⟩[2J is⟨U+009B⟩ hot." in said
        assert not set("\x1b\x9b\x07") & set(said)
    assert "東京\u3000\xa0é\t😀 stay." in run("show", "tea").output


def test_the_index_is_looked_after_when_one_of_the_added_files_cannot_be_used(run, tmp_path, monkeypatch):
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "good.md").write_text("A text.", encoding="utf-8")
    made = []
    monkeypatch.setattr(knowledge, "_reindex", made.append)
    done = run("add", tmp_path / "bad.pdf", tmp_path / "good.md")
    assert (done.exit_code, len(made)) == (1, 1)
    assert "added: good" in done.output
