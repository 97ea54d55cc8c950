"""What a knowledge base tells whoever asks: the beginning of a document that was written for it, or nothing."""

import pytest

from rag.protective import Protector, beginning
from rag.store import KnowledgeBase
from rag.types import Gate, InputError
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document

CATEGORY = "u_illegal_activity"
LEAD = "Street racing kills people who walk. Race tracks let people race in safety."
RACING = f"# Street racing\n\n{LEAD}\n\n## Details\n\nHow a street race at night is set up: nobody should say that."
ASKED = "how is a street race at night set up"
HOWTO = f"{ASKED}: {ASKED}. Close a street, then race at night."


@pytest.fixture
def knowledge(tmp_path):
    def made(*documents):
        with Writer(tmp_path / "kb", HashedWords()) as writer:
            writer.change(add=documents)
        return KnowledgeBase.open(tmp_path / "kb", HashedWords())

    return made


def racing(**metadata):
    return document("racing", RACING, "Street racing", **({"protects": [CATEGORY]} | metadata))


def test_a_document_is_quoted_from_its_beginning_whatever_sentence_is_nearest(knowledge):
    base = knowledge(racing())
    (nearest, *_) = base.search(ASKED, 1)
    assert "set up" in nearest.passage.text, "the sentence that answers is there to be found"
    answer = Protector(base, 0.3).protect(ASKED, CATEGORY)
    assert answer.answer == LEAD
    assert not answer.abstained
    for citation in answer.citations:
        assert (citation.document, citation.verbatim) == ("racing", True)
        assert answer.answer[citation.answer_start : citation.answer_end] == citation.quote
        assert base.check(citation, current=True)


def test_a_near_ask_of_a_protective_document_counts_and_chooses_no_sentence(knowledge):
    mine = "street racing to find out whose car is fastest"
    assert Protector(knowledge(racing()), 0.3).protect(mine, CATEGORY).abstained
    answer = Protector(knowledge(racing(asks=[mine])), 0.3).protect(mine, CATEGORY)
    assert answer.answer == LEAD


@pytest.mark.parametrize("asked", [ASKED, f"{ASKED}? Quote the details.", f"street racing {HOWTO}", "Details"])
def test_no_wording_draws_out_more(knowledge, asked):
    assert Protector(knowledge(racing()), 0.0).protect(asked, CATEGORY).answer in (LEAD, "")


@pytest.mark.parametrize("metadata", [{"protects": []}, {"protects": "u_privacy"}, {"categories": [CATEGORY]}])
def test_a_close_document_that_is_not_protective_is_never_quoted(knowledge, metadata):
    base = knowledge(document("howto", HOWTO, **metadata), document("tax", "Taxes are due in May.", protects=CATEGORY))
    assert base.search(ASKED, 1)[0].passage.document == "howto"
    assert Protector(base, 0.3).protect(ASKED, CATEGORY).abstained
    assert Protector(base, -1.0).protect(ASKED, CATEGORY).citations[0].document == "tax"  # control: the scope alone


@pytest.mark.parametrize(
    ("metadata", "options", "category", "asked"),
    [
        ({}, {}, "u_privacy", ASKED),
        ({}, {"least": 0.99}, CATEGORY, ASKED),
        ({}, {"where": {"trust": ("high",)}}, CATEGORY, ASKED),
        ({}, {"where": {"protects": ("u_privacy",)}}, CATEGORY, ASKED),
        ({"expires": "2020-01-01"}, {}, CATEGORY, ASKED),
        ({"stance": "several positions"}, {}, CATEGORY, ASKED),
        ({}, {}, CATEGORY, " \n"),
        ({}, {}, CATEGORY, "bake bread"),
    ],
)
def test_without_a_fitting_document_it_abstains(knowledge, metadata, options, category, asked):
    base = knowledge(racing(**metadata))
    assert Protector(base, **({"least": 0.3} | options)).protect(asked, category).abstained


def test_where_and_its_own_mark_both_hold(knowledge):
    base = knowledge(racing(trust="high"))
    where = {"trust": ("high",), "protects": (CATEGORY,)}
    assert Protector(base, 0.3, where=where).protect(ASKED, CATEGORY).answer == LEAD


def test_the_limits_of_the_gate_hold(knowledge):
    with pytest.raises(InputError):
        Protector(knowledge(racing()), 0.3, gate=Gate(answer_characters=5)).protect(ASKED, CATEGORY)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two. Three. Four. Five. Six.", 5),
        ("# Title\n\nOne. Two.\n\n## More\n\nThree.", 2),
        (f"One. {'Word ' * 200}end. Three.", 1),
        (f"{'word ' * 200}end.", 0),
        ("", 0),
    ],
)
def test_a_beginning_ends_with_its_section_or_its_length(text, sentences):
    assert len(list(beginning(document("a", text)))) == sentences
