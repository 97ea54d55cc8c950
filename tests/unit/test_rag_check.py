"""An answer that somebody else gave, held against a knowledge base: what is supported is cited."""

import pytest

from rag.answer import Answerer
from rag.build import build
from rag.interpret import ExtractiveInterpreter
from rag.store import KnowledgeBase
from rag.types import InputError, Status
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document, write_source

SAID = "An adult waits four hours between two doses of paracetamol."
FALSE = "Tea cures every cold."


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    build(write_source(folder / "source"), folder / "kb", HashedWords())
    return KnowledgeBase.open(folder / "kb", HashedWords())


def test_what_the_knowledge_base_supports_is_cited(knowledge):
    document = knowledge.document("health/paracetamol")
    answer = f"{FALSE} {SAID}"
    report = Answerer(knowledge, ExtractiveInterpreter(HashedWords())).check(answer)
    supported = [checked for checked in report.sentences if checked.status is Status.SUPPORTED]
    assert [answer[checked.start : checked.end] for checked in supported] == [SAID]
    (citation,) = report.citations
    assert (citation.document, citation.title, citation.url) == (document.id, document.title, document.url)
    assert document.text[citation.start : citation.end] == citation.quote == SAID
    assert answer[citation.answer_start : citation.answer_end] == SAID
    assert knowledge.check(citation, current=True)


def test_the_positions_on_a_disputed_topic_that_an_answer_rests_on_are_named(knowledge):
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
    one = "Supporters of a lower voting age say that sixteen-year-olds pay taxes."
    both = f"{one} Opponents of a lower voting age say that judgement ripens late."
    given = ["Supporters of a lower voting age", "Opponents of a lower voting age"]
    for answer, positions in ((one, given[:1]), (both, given), (SAID, None)):
        report = answerer.check(answer)
        assert (report.supported, report.as_dict()["positions"]) == (True, positions)


def test_passages_of_the_caller_are_no_sources_to_be_cited(knowledge):
    report = Answerer(knowledge, ExtractiveInterpreter(HashedWords())).check(SAID, [SAID])
    assert (report.supported, report.citations) == (True, ())


@pytest.mark.parametrize("passages", [None, [SAID]])
def test_half_a_character_is_the_callers_fault_with_passages_and_without(knowledge, passages):
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
    with pytest.raises(InputError, match="half a character") as caught:
        answerer.check(f"\ud800 {SAID}", passages)
    assert caught.value.param == "answer"


def test_the_score_of_a_citation_is_not_that_of_another_sentence(knowledge):
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
    (alone,) = answerer.check(SAID).citations
    for answer in (f"{SAID} {FALSE}", f"{FALSE} {SAID}"):
        (citation,) = answerer.check(answer).citations
        assert (citation.passage, citation.score) == (alone.passage, alone.score)


def test_a_document_that_expires_while_an_answer_is_checked_is_cited_yet(tmp_path):
    moments = iter(range(1, 100))
    with Writer(tmp_path / "kb", HashedWords()) as writer:
        writer.change(add=[document("tea", "Tea is hot.", expires="1970-01-01T00:00:02")])
    knowledge = KnowledgeBase(tmp_path / "kb", HashedWords(), now=lambda: next(moments))
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
    report = answerer.check("Tea is hot.")
    assert (report.supported, [citation.document for citation in report.citations]) == (True, ["tea"])
    (written,) = report.as_dict()["citations"]
    assert (written["document"], written["title"]) == ("tea", report.citations[0].title)
    assert report.answer[written["answer_start"] : written["answer_end"]] == written["quote"]
    assert not answerer.check("Tea is hot.").supported
