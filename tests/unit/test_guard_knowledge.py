"""`airlock kb` on the command line, without a model."""

import json

import pytest
from typer.testing import CliRunner

import guard.assemble
from guard.cli import app, knowledge
from guard.config import load_config
from guard.errors import BadRequest, ConfigError
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


@pytest.fixture
def base(tmp_path):
    """Two documents, one of which expires."""
    documents = [
        document("library", "The library opens at nine.", title="The library", trust="high"),
        document("faq/wifi", "The password is on the wall.", title="Wi-Fi", expires="2999-01-31"),
    ]
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=documents)


@pytest.mark.usefixtures("base")
def test_show_without_an_id_lists_the_documents(run):
    assert run("show").output == "faq/wifi  Wi-Fi (expires 2999-01-31)\nlibrary  The library\n"
    assert [json.loads(line) for line in run("show", "--json").output.splitlines()] == [
        {"id": "faq/wifi", "title": "Wi-Fi", "expires": "2999-01-31"},
        {"id": "library", "title": "The library", "expires": None},
    ]
    assert "name its ID" in run("show", "--version", "a").output


@pytest.mark.usefixtures("base")
def test_an_unknown_id_is_told_with_the_nearest_one(run):
    for wrong, right in (("library.md", "library"), ("faq.csv/wifi", "faq/wifi")):
        for command in ("show", "remove"):
            said = str(run(command, wrong).exception)
            assert f"no document {wrong!r}; " in said
            assert said.endswith(f"; did you mean {right!r}?")


@pytest.mark.usefixtures("base")
def test_what_embeds_nothing_loads_no_encoder(run, tmp_path, monkeypatch):
    monkeypatch.setattr(knowledge, "_encoder", None)
    for command in (
        ["stats"],
        ["verify"],
        ["show", "library"],
        ["copy", tmp_path / "copy"],
        ["prune", "--before", "2026-01-01"],
        ["remove", "library"],
    ):
        done = run(*command)
        assert done.exit_code == 0, done
    assert "1 documents" in run("verify").output
    assert "2 documents" in run("verify", kb=tmp_path / "copy").output


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("query", ["", "   ", "?!"])
def test_a_search_for_nothing_is_refused(run, query):
    done = run("search", query)
    assert isinstance(done.exception, BadRequest)
    assert "give some as an argument" in str(done.exception)


@pytest.mark.usefixtures("base")
def test_a_metadata_entry_that_no_document_has_is_told(run):
    done = run("search", "library", "--where", "title=The library")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == ("airlock: warning: no document has the metadata entry 'title'; there are: expires, trust\n")
    assert run("search", "library", "--where", "trust=low").output == ""
    assert run("search", "library", "--where", "trust=high").stderr == ""


def test_the_end_of_sync_tells_how_many_documents_there_are(run, tmp_path):
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("a", "b"):
        (source / f"{name}.md").write_text(f"Text {name}.", encoding="utf-8")
    assert run("sync", source).stdout.endswith("2 added; 2 documents in the base\n")
    (source / "a.md").write_text("New text.", encoding="utf-8")
    assert run("sync", source).stdout.endswith("1 changed; 2 documents in the base\n")
    assert run("sync", source).stdout == "nothing to do; 2 documents in the base\n"
    assert {json.loads(line)["happened"] for line in run("sync", source, "--json").stdout.splitlines()} <= {"unchanged"}


@pytest.mark.parametrize("command", [["search", "tea"], ["stats"], ["remove", "tea"]])
def test_faults_of_the_option_are_not_told_as_those_of_the_setting(run, tmp_path, command):
    done = run(*command, kb=tmp_path / "bk")
    assert str(done.exception).startswith(f"--kb {tmp_path / 'bk'}: knowledge base ")
    config = tmp_path / "airlock.yaml"
    config.write_text("knowledge: {path: bk}")
    named = CliRunner().invoke(app, ["kb", "stats", "--config", str(config)])
    assert str(named.exception).startswith("knowledge.path: knowledge base ")


def test_ask_takes_the_base_of_the_option(monkeypatch, tmp_path):
    asked = []

    def load(config):
        asked.append((config.knowledge.path, config.journal.kept))
        raise ConfigError("knowledge.path: no base")

    monkeypatch.setattr(guard.assemble, "load_guard", load)
    done = CliRunner().invoke(app, ["ask", "hi", "--kb", str(tmp_path / "kb")])
    assert asked == [(tmp_path / "kb", False)]
    assert str(done.exception) == f"--kb {tmp_path / 'kb'}: no base"
