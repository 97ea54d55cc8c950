import pytest

from rag.documents import read_documents
from rag.types import KnowledgeError
from tests.unit.rag_cases import write_source


def test_reads_every_document_in_the_order_of_ids(tmp_path):
    documents = read_documents(write_source(tmp_path))
    assert [document.id for document in documents] == ["health/paracetamol", "speed", "voting"]
    paracetamol, speed, voting = documents
    assert paracetamol.title == "Paracetamol"
    assert paracetamol.metadata == {
        "publisher": "Test",
        "categories": ["c_medical", "c_dose"],
        "retrieved": "2026-01-31",
    }
    assert paracetamol.text.startswith("# Paracetamol\n\nParacetamol eases")
    assert speed.title == "Speed on the road"
    assert (voting.disputed, speed.disputed, paracetamol.disputed) == (True, False, False)


def test_a_title_is_taken_from_the_first_heading_then_from_the_id(tmp_path):
    (tmp_path / "a.md").write_text("Text.\n\n## Heading here\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("Only text.", encoding="utf-8")
    assert [document.title for document in read_documents(tmp_path)] == ["Heading here", "b"]


def test_url_is_the_given_one_or_names_the_version(tmp_path):
    (tmp_path / "a.md").write_text("---\nurl: https://example.org/a\n---\nText.", encoding="utf-8")
    (tmp_path / "b.md").write_text("Text.", encoding="utf-8")
    first, second = read_documents(tmp_path)
    assert first.url == "https://example.org/a"
    assert second.url == f"airlock:knowledge/b@{second.version[:12]}"


def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path):
    (tmp_path / "a.md").write_bytes("\ufeff---\r\ntitle: T\r\n---\r\nOne.\r\nTwo.\r\n".encode())
    (tmp_path / "b.md").write_bytes(b"---\ntitle: T\n---\nOne.\nTwo.\n")
    first, second = read_documents(tmp_path)
    assert (first.title, first.text) == ("T", "One.\nTwo.")
    assert first.version == second.version


@pytest.mark.parametrize(
    "changed", ["---\ntitle: U\n---\nText.", "---\ntitle: T\nlicence: X\n---\nText.", "---\ntitle: T\n---\nText!"]
)
def test_a_change_of_title_metadata_or_text_is_a_new_version(tmp_path, changed):
    (tmp_path / "a.md").write_text("---\ntitle: T\n---\nText.", encoding="utf-8")
    before = read_documents(tmp_path)[0].version
    assert read_documents(tmp_path)[0].version == before
    (tmp_path / "a.md").write_text(changed, encoding="utf-8")
    assert read_documents(tmp_path)[0].version != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"---\ntitle: [\n---\nText.", "is not YAML"),
        (b"---\nday: 2026-13-45\n---\nText.", "is not YAML"),
        (b"---\ntitle: T\nText.", "never closed"),
        (b"---\njust words\n---\nText.", "not `key: value`"),
        (b"---\nsource: {name: x}\n---\nText.", "`source` is nested"),
        (b"---\nsource: [[x]]\n---\nText.", "`source` is nested"),
        (b"---\ntitle: [a, b]\n---\nText.", "`title` is a list"),
        (b"caf\xe9.", "is not UTF-8"),
        (b"---\ntitle: T\n---\n\n", "has no text"),
        (b"x" * 101, "more than the 100 allowed"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    (tmp_path / "bad.md").write_bytes(content)
    with pytest.raises(KnowledgeError, match=message) as caught:
        read_documents(tmp_path, max_bytes=100)
    assert str(tmp_path / "bad.md") in str(caught.value)


def test_two_files_with_one_id_are_refused(tmp_path):
    (tmp_path / "a.md").write_text("Text.", encoding="utf-8")
    (tmp_path / "a.txt").write_text("Text.", encoding="utf-8")
    with pytest.raises(KnowledgeError, match=r"a\.md and .*a\.txt both give the document id 'a'"):
        read_documents(tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_read(tmp_path):
    (tmp_path / "secret.md").write_text("Secret.", encoding="utf-8")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.md").write_text("Text.", encoding="utf-8")
    (source / "b.md").symlink_to(source / "a.md")
    assert [document.id for document in read_documents(source)] == ["a", "b"]
    (source / "c.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(KnowledgeError, match="is a link out of"):
        read_documents(source)


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="is not a folder"):
        read_documents(tmp_path / "nowhere")
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(KnowledgeError, match="holds no"):
        read_documents(tmp_path)
