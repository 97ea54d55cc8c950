import os
from functools import partial

import pytest

from rag.documents import read_documents
from rag.metadata import SIDECAR
from rag.place import open_inside
from rag.types import KnowledgeError, Limits, Quarantined, Unreadable
from tests.unit.rag_cases import write_source


def quarantined(folder, **limits):
    """The reason for each file left out."""
    return {file.path: file.reason for file in read_documents(folder, limits=Limits(**limits)).quarantined}


def test_reads_every_document_in_the_order_of_ids(tmp_path):
    documents = read_documents(write_source(tmp_path)).documents
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
    assert [document.title for document in read_documents(tmp_path).documents] == ["Heading here", "b"]


def test_url_is_the_given_one_or_names_the_version(tmp_path):
    (tmp_path / "a.md").write_text("---\nurl: https://example.org/a\n---\nText.", encoding="utf-8")
    (tmp_path / "b.md").write_text("Text.", encoding="utf-8")
    first, second = read_documents(tmp_path).documents
    assert first.url == "https://example.org/a"
    assert second.url == f"airlock:knowledge/b@{second.version[:12]}"


def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path):
    (tmp_path / "a.md").write_bytes("\ufeff---\r\ntitle: T\r\n---\r\nOne.\r\nTwo.\r\n".encode())
    (tmp_path / "b.md").write_bytes(b"---\ntitle: T\n---\nOne.\nTwo.\n")
    first, second = read_documents(tmp_path).documents
    assert (first.title, first.text) == ("T", "One.\nTwo.")
    assert first.version == second.version


@pytest.mark.parametrize(
    "changed", ["---\ntitle: U\n---\nText.", "---\ntitle: T\nlicence: X\n---\nText.", "---\ntitle: T\n---\nText!"]
)
def test_a_change_of_title_metadata_or_text_is_a_new_version(tmp_path, changed):
    (tmp_path / "a.md").write_text("---\ntitle: T\n---\nText.", encoding="utf-8")
    before = read_documents(tmp_path).documents[0].version
    assert read_documents(tmp_path).documents[0].version == before
    (tmp_path / "a.md").write_text(changed, encoding="utf-8")
    assert read_documents(tmp_path).documents[0].version != before


ALIASES = b"a0: &a0 [x]\n" + b"\n".join(
    b"a%d: &a%d [%s]" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 9)) for level in range(1, 10)
)
MERGES = b"a0: &a0 {k: x}\n" + b"\n".join(
    b"a%d: &a%d {<<: [%s]}" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 9)) for level in range(1, 10)
)


def test_ordinary_aliases_in_front_matter_work(tmp_path):
    (tmp_path / "a.md").write_text("---\npublisher: &who WHO\ntopics: [*who, *who]\n---\nText.", encoding="utf-8")
    assert dict(read_documents(tmp_path).documents[0].metadata)["topics"] == ["WHO", "WHO"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"---\ntitle: [\n---\nText.", "is not YAML"),
        (b"---\nday: 2026-13-45\n---\nText.", "is not YAML"),
        (b"---\ntitle: T\nText.", "never closed"),
        (b"---\njust words\n---\nText.", "not `key: value`"),
        (b"---\nsource: {name: x}\n---\nText.", "`source` is nested"),
        (b"---\nsource: [[x]]\n---\nText.", "`source` is nested"),
        (b"---\ntitle: [a, b]\n---\nText.", "`title` is a list"),
        (b"---\nexpires: 2030-01-31\nexpires: 2020-01-31\n---\nText.", "front matter names `expires` twice"),
        (b"---\nExpires: 2030-01-31\nexpires: 2020-01-31\n---\nText.", "front matter names `expires` twice"),
        (b"---\nnote: one\nnote: two\n---\nText.", "front matter names `note` twice"),
        (b"---\n" + ALIASES + b"\n---\nText.", "front matter has aliases (*)"),
        (b"---\n" + MERGES + b"\n---\nText.", "front matter has aliases (*)"),
        (b"---\na: " + b"[" * 5000 + b"\n---\nText.", "is nested too deeply"),
        (b'---\na: "\\ud800"\n---\nText.', "half of a surrogate pair"),
        (b"caf\xe9.", "is not UTF-8"),
        (b"a\0b", "holds NUL characters"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"---\ntitle: T\n---\n\n", "has no text"),
        (b"x" * 10_001, "more than the 10000 allowed"),
    ],
)
def test_a_file_that_cannot_be_used_is_quarantined_and_the_rest_is_read(tmp_path, content, reason):
    (tmp_path / "bad.md").write_bytes(content)
    (tmp_path / "good.md").write_text("Text.", encoding="utf-8")
    corpus = read_documents(tmp_path, limits=Limits(bytes=10_000))
    assert [document.id for document in corpus.documents] == ["good"]
    assert [file.path for file in corpus.quarantined] == ["bad.md"]
    assert reason in corpus.quarantined[0].reason


def test_files_that_give_one_id_are_all_quarantined(tmp_path):
    for name in ("a.md", "a.txt", "b.md"):
        (tmp_path / name).write_text("Text.", encoding="utf-8")
    corpus = read_documents(tmp_path)
    assert [document.id for document in corpus.documents] == ["b"]
    assert corpus.quarantined == (
        Quarantined("a.md", "gives the document id 'a', and so does a.txt; rename one of them"),
        Quarantined("a.txt", "gives the document id 'a', and so does a.md; rename one of them"),
    )


def test_a_row_and_a_file_that_give_one_id_are_both_quarantined(tmp_path):
    (tmp_path / "faq").mkdir()
    (tmp_path / "faq" / "1.md").write_text("Text.", encoding="utf-8")
    (tmp_path / "faq.csv").write_text("question,answer\nWhat?,That.\n", encoding="utf-8")
    assert sorted(quarantined(tmp_path)) == ["faq.csv", "faq/1.md"]


def test_a_link_out_of_the_folder_is_quarantined_and_one_inside_is_read(tmp_path):
    (tmp_path / "secret.md").write_text("Secret.", encoding="utf-8")
    (tmp_path / "secret.yaml").write_text("title: Secret", encoding="utf-8")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.md").write_text("Text.", encoding="utf-8")
    (source / "b.md").symlink_to(source / "a.md")
    (source / "c.md").symlink_to(tmp_path / "secret.md")
    (source / "d.md").symlink_to(tmp_path / "nowhere.md")
    (source / "e.md").symlink_to(source / "e.md")
    (source / "f.md").write_text("Text.", encoding="utf-8")
    (source / "f.md.meta.yaml").symlink_to(tmp_path / "secret.yaml")
    (source / "g.md").symlink_to(tmp_path)
    corpus = read_documents(source)
    assert [document.id for document in corpus.documents] == ["a", "b"]
    assert all("Secret" not in str(document) for document in corpus.documents)
    reasons = {file.path: file.reason for file in corpus.quarantined}
    assert sorted(reasons) == ["c.md", "d.md", "e.md", "f.md", "f.md.meta.yaml", "g.md"]
    assert "is a link out of the folder" in reasons["c.md"]
    assert "leads nowhere" in reasons["d.md"]
    assert "leads nowhere" in reasons["e.md"]
    assert "sidecar f.md.meta.yaml is a link out of the folder" in reasons["f.md"]


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")  # who opens it waits for ever
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "folder.md" / "a.md").write_text("Text.", encoding="utf-8")
    corpus = read_documents(tmp_path)
    assert [document.id for document in corpus.documents] == ["folder.md/a"]
    assert [(file.path, file.reason) for file in corpus.quarantined] == [
        ("pipe.md", "is not a regular file; remove it")
    ]


def test_names_and_reasons_cannot_write_to_a_terminal(tmp_path):
    (tmp_path / "a\x1b[31m.md").write_text("Text.", encoding="utf-8")
    (tmp_path / "b.csv").write_text("question,answer,id\nQ,A,\x1b[2J\n", encoding="utf-8")
    (tmp_path / os.fsdecode(b"\xff.md")).write_text("Text.", encoding="utf-8")
    corpus = read_documents(tmp_path)
    assert len(corpus.quarantined) == 3
    assert not corpus.documents
    assert all((file.path + file.reason).isprintable() for file in corpus.quarantined)


def test_the_sidecar_wins_over_what_the_file_says(tmp_path):
    (tmp_path / "a.md").write_text(
        "---\ntitle: Own\npublisher: Own\nstance: one side\nretrieved: 2026-01-31\n---\nText.", encoding="utf-8"
    )
    sidecar = "title: Beside\nurl: https://example.org/a\nstance: null\ntrust: high\nexpires: 2027-01-31T12:00:00Z\n"
    (tmp_path / "a.md.meta.yaml").write_text(sidecar, encoding="utf-8")
    (document,) = read_documents(tmp_path).documents
    assert (document.title, document.url, document.disputed) == ("Beside", "https://example.org/a", False)
    assert document.metadata == {
        "publisher": "Own",
        "retrieved": "2026-01-31",
        "url": "https://example.org/a",
        "trust": "high",
        "expires": "2027-01-31T12:00:00+00:00",
    }


def test_known_entries_may_be_written_in_capitals_and_others_keep_their_case(tmp_path):
    (tmp_path / "a.md").write_text(
        "---\nTitle: T\nExpires: 2020-01-01\nTRUST: low\nStance: one\nTopic: Tea\n---\nText.", encoding="utf-8"
    )
    (tmp_path / "a.md.meta.yaml").write_text("Stance: null", encoding="utf-8")
    (document,) = read_documents(tmp_path).documents
    assert document.title == "T"
    assert document.metadata == {"expires": "2020-01-01", "trust": "low", "Topic": "Tea"}


def test_a_change_of_the_sidecar_is_a_new_version(tmp_path):
    (tmp_path / "a.md").write_text("Text.", encoding="utf-8")
    before = read_documents(tmp_path).documents[0].version
    (tmp_path / "a.md.meta.yaml").write_text("publisher: P", encoding="utf-8")
    assert read_documents(tmp_path).documents[0].version != before


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (b"[", "sidecar a.md.meta.yaml is not YAML"),
        (b"words", "sidecar a.md.meta.yaml is str"),
        (b"title: caf\xe9", "sidecar a.md.meta.yaml is not UTF-8"),
        (b"title: " + b"x" * 70_000, "sidecar a.md.meta.yaml has 70007 bytes"),
        (b"expires: next year", "metadata `expires` is 'next year', not an ISO 8601 date; write it like 2026-01-31"),
        (b"published: 2026-02-30 ", "is not YAML"),
        (b"published: '2026-02-30'", "metadata `published` is '2026-02-30'"),
        (b"retrieved: 31.1.2026", "metadata `retrieved` is '31.1.2026'"),
        (b"retrieved: [2026-01-31]", "metadata `retrieved` is a list"),
        (b"Trust: absolute", "metadata `trust` is 'absolute'; give one of high, medium, low"),
        (b"trust: high\ntrust: low", "sidecar a.md.meta.yaml names `trust` twice; give each a name of its own"),
        (b"trust: absolute", "metadata `trust` is 'absolute'; give one of high, medium, low"),
    ],
)
def test_a_sidecar_that_cannot_be_used_quarantines_its_file(tmp_path, sidecar, reason):
    (tmp_path / "a.md").write_text("Text.", encoding="utf-8")
    (tmp_path / "a.md.meta.yaml").write_bytes(sidecar)
    (tmp_path / "b.md").write_text("Text.", encoding="utf-8")
    found = quarantined(tmp_path)
    assert list(found) == ["a.md"]
    assert reason in found["a.md"]


def test_a_sidecar_of_no_document_is_named(tmp_path):
    (tmp_path / "report.md").write_text("Text.", encoding="utf-8")
    (tmp_path / "report.meta.yaml").write_text("publisher: P", encoding="utf-8")
    corpus = read_documents(tmp_path)
    assert [document.metadata for document in corpus.documents] == [{}]
    assert [file.path for file in corpus.quarantined] == ["report.meta.yaml"]


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="is not a folder"):
        read_documents(tmp_path / "nowhere")
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(KnowledgeError, match="holds no"):
        read_documents(tmp_path)


def test_a_link_that_is_set_between_the_check_and_the_opening_is_noticed(tmp_path, monkeypatch):
    """The folder of the file is replaced by a link out of the source, just before the file is opened."""
    inside, outside = tmp_path / "source" / "a", tmp_path / "outside"
    for folder, text in ((inside, "Inside."), (outside, "Secret.")):
        folder.mkdir(parents=True)
        (folder / "x.md").write_text(text, encoding="utf-8")
    real = os.open

    def swapped(path, flags, *more, back=False):
        if inside.is_symlink():
            return real(path, flags, *more)
        inside.rename(tmp_path / "kept")
        inside.symlink_to(outside)
        descriptor = real(path, flags, *more)
        if back:
            inside.unlink()
            (tmp_path / "kept").rename(inside)
        return descriptor

    with open_inside(inside / "x.md", tmp_path / "source") as file:
        assert file.read() == b"Inside."
    for back in (True, False):
        monkeypatch.setattr(os, "open", partial(swapped, back=back))
        with pytest.raises(Unreadable, match="was replaced while it was opened"):
            open_inside(inside / "x.md", tmp_path / "source")
    monkeypatch.undo()
    with pytest.raises(Unreadable, match="is a link out of the folder"):
        open_inside(inside / "x.md", tmp_path / "source")


DISPUTED = "# Age\n\nIt is 18.\n\n## For\n\nSome say 16.\n\n## Against\n\nOthers say 21.\n"


@pytest.mark.parametrize(
    ("positions", "wrong"),
    [("For", None), ("[For, Against]", None), ("[]", None), ("[For, Nowhere]", "Nowhere"), ("for", "for")],
)
def test_positions_are_headings_of_the_text(tmp_path, positions, wrong):
    (tmp_path / "age.md").write_text(f"---\nstance: two\npositions: {positions}\n---\n{DISPUTED}", encoding="utf-8")
    (tmp_path / "other.md").write_text("Text.", encoding="utf-8")
    known = "give headings of the text, which are: 'Age', 'For', 'Against'"
    told = {"age.md": f"metadata `positions` names {wrong!r}; {known}"} if wrong else {}
    assert quarantined(tmp_path) == told


def test_positions_beside_a_list_are_headings_of_one_of_its_texts(tmp_path):
    rows = 'question,answer\nIs it good?,"Yes.\n\n## For\n\nIt is.\n\n## Against\n\nIt is not."\nWhen?,At nine.\n'
    (tmp_path / "faq.csv").write_text(rows, encoding="utf-8")
    beside = tmp_path / f"faq.csv{SIDECAR}"
    beside.write_text("positions: [For, Against]\n", encoding="utf-8")
    assert quarantined(tmp_path) == {}
    beside.write_text("positions: [For, Nowhere]\n", encoding="utf-8")
    assert "names 'Nowhere'" in quarantined(tmp_path)["faq.csv"]


def test_positions_of_a_text_without_headings_are_refused(tmp_path):
    (tmp_path / "age.txt").write_text("---\npositions: For\n---\nSome say 16.", encoding="utf-8")
    reason = "metadata `positions` names 'For'; give headings of the text, which are: none"
    assert quarantined(tmp_path) == {"age.txt": reason}
