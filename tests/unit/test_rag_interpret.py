import dataclasses

import pytest

from rag.answer import MAX_QUESTION, Answerer
from rag.build import build
from rag.documents import version
from rag.grounding import compose
from rag.interpret import ExtractiveInterpreter, Selection
from rag.retrieve import retrieve
from rag.store import KnowledgeBase
from rag.types import KnowledgeError, Status
from tests.unit.rag_cases import HashedWords, write_source

DOSE = "What is the maximum of paracetamol in a day?"
UNKNOWN = "Which mole changes mean skin cancer?"
VOTE = "Do supporters of a lower voting age say that sixteen-year-olds pay taxes?"


def documents(knowledge):
    with knowledge.view() as view:
        return {name: view.document(name) for name in view.document_ids()}


class Canned:
    """An interpretation model that says what it is told to, whatever the question."""

    def __init__(self, answer):
        self.canned = answer

    def answer(self, question, evidence, documents):
        return self.canned


def test_an_answer_is_verbatim_and_every_sentence_is_cited(answerer, knowledge):
    answer = answerer.answer(DOSE)
    assert not answer.abstained
    assert "eight tablets in a day,\n  which is 4,000 mg." in answer.answer
    assert "".join(answer.answer[c.answer_start : c.answer_end] for c in answer.citations) == answer.answer.replace(
        ". ", "."
    )
    for citation in answer.citations:
        document = knowledge.document(citation.document)
        assert citation.quote == document.text[citation.start : citation.end]
        assert citation.quote == answer.answer[citation.answer_start : citation.answer_end]
        assert citation.status is Status.SUPPORTED
        assert -1 <= citation.score <= 1
        passage = next(e.passage for e in answer.searched if e.passage.id == citation.passage)
        assert passage.start <= citation.start < citation.end <= passage.end
    assert answer.searched


def test_the_same_question_gets_the_same_answer(answerer):
    assert answerer.answer(DOSE) == answerer.answer(DOSE)


def test_a_question_that_nothing_answers_is_abstained_from(answerer):
    answer = answerer.answer(UNKNOWN)
    assert (answer.abstained, answer.answer, answer.citations) == (True, "", ())
    assert answer.searched


@pytest.mark.parametrize("question", ["", "  \n "])
def test_an_empty_question_is_abstained_from(answerer, question):
    answer = answerer.answer(question)
    assert (answer.abstained, answer.searched) == (True, ())


def test_odd_characters_and_great_length_do_no_harm(answerer):
    assert not answerer.answer(DOSE + "\ud800").abstained
    assert answerer.answer(" " * 50 + DOSE.ljust(MAX_QUESTION) + UNKNOWN * 1000) == answerer.answer(DOSE)


def test_without_evidence_or_with_that_of_another_question_it_abstains(knowledge):
    interpreter = ExtractiveInterpreter(HashedWords())
    evidence = knowledge.search(DOSE, 2, document="health/paracetamol")
    assert not interpreter.answer(DOSE, evidence, documents(knowledge)).abstained
    assert interpreter.answer(DOSE, [], documents(knowledge)).abstained
    for other in ("speed", "voting"):
        shuffled = knowledge.search(DOSE, 2, document=other)
        assert interpreter.answer(DOSE, shuffled, documents(knowledge)).abstained


def test_limits_hold(knowledge):
    evidence = knowledge.search(DOSE, 2, document="health/paracetamol")
    loose = Selection(threshold=-1, margin=2, sentences=2)
    assert len(ExtractiveInterpreter(HashedWords(), loose).answer(DOSE, evidence, documents(knowledge)).citations) == 2
    short = dataclasses.replace(loose, sentences=9, characters=150)
    answer = ExtractiveInterpreter(HashedWords(), short).answer(DOSE, evidence, documents(knowledge)).answer
    assert 80 < len(answer) <= 150


def test_sentences_stand_in_the_order_of_their_document(knowledge):
    loose = ExtractiveInterpreter(HashedWords(), Selection(threshold=-1, margin=2, sentences=9))
    evidence = knowledge.search(DOSE, 9, document="health/paracetamol") + knowledge.search(DOSE, 1, document="speed")
    citations = loose.answer(DOSE, evidence, documents(knowledge)).citations
    assert [c.document for c in citations] == ["health/paracetamol"] * 4 + ["speed"]
    assert [c.start for c in citations[:4]] == sorted(c.start for c in citations[:4])


def test_what_a_heading_turns_is_passed_over_for_what_can_be_quoted(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "burns.md").write_text(
        "# Burns\n\nCool a fresh burn with running water.\n\n## What not to do\n\n"
        "- Put butter, ice and oil on a fresh burn with running blisters.\n\n## Later\n\nSee a doctor.\n",
        encoding="utf-8",
    )
    encoder = HashedWords()
    build(source, tmp_path / "kb", encoder)
    knowledge = KnowledgeBase.open(tmp_path / "kb", encoder)
    answerer = Answerer(knowledge, ExtractiveInterpreter(encoder, Selection(threshold=0.2)))
    answer = answerer.answer("Butter, ice and oil on a fresh burn with running blisters?")
    assert answer.answer == "Cool a fresh burn with running water."


def test_a_sentence_said_twice_is_quoted_once(tmp_path):
    (tmp_path / "source").mkdir()
    text = "# Speed\n\nThe stopping distance grows with speed. The stopping distance grows with speed.\n"
    (tmp_path / "source" / "a.md").write_text(text, encoding="utf-8")
    build(tmp_path / "source", tmp_path / "kb", HashedWords())
    answerer = Answerer(
        KnowledgeBase.open(tmp_path / "kb", HashedWords()), ExtractiveInterpreter(HashedWords(), Selection(threshold=0))
    )
    assert answerer.answer("stopping distance and speed").answer == "The stopping distance grows with speed."


@pytest.mark.parametrize("setting", [{"weight": 1.5}, {"weight": -0.1}, {"sentences": 0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(KnowledgeError, match=next(iter(setting))):
        Selection(**setting)


def test_a_disputed_topic_is_answered_from_all_sides(answerer):
    answer = answerer.answer(VOTE)
    assert {c.document for c in answer.citations} == {"voting"}
    assert "Supporters of a lower voting age" in answer.answer
    assert "Opponents of a lower voting age" in answer.answer


def test_an_answer_says_which_positions_it_gives(answerer, tmp_path):
    sides = ("Supporters of a lower voting age", "Opponents of a lower voting age")
    assert answerer.answer(VOTE).positions == sides
    assert answerer.answer(DOSE).positions is None
    assert answerer.answer("zebra").positions is None
    named = f"positions: [{sides[1]}]\nstance: several positions\n"
    source = write_source(tmp_path / "named")
    text = (source / "voting.md").read_text(encoding="utf-8").replace("stance: several positions\n", named)
    (source / "voting.md").write_text(text, encoding="utf-8")
    build(source, tmp_path / "kb", HashedWords())
    answerer = Answerer(KnowledgeBase.open(tmp_path / "kb", HashedWords()), ExtractiveInterpreter(HashedWords()))
    assert answerer.answer(VOTE).positions == (sides[1],)


def test_an_undisputed_topic_is_not_and_so_one_sided(tmp_path):
    source = write_source(tmp_path / "source")
    text = (source / "voting.md").read_text(encoding="utf-8").replace("stance: several positions\n", "")
    (source / "voting.md").write_text(text, encoding="utf-8")
    build(source, tmp_path / "kb", HashedWords())
    answerer = Answerer(KnowledgeBase.open(tmp_path / "kb", HashedWords()), ExtractiveInterpreter(HashedWords()))
    answer = answerer.answer(VOTE)
    assert "Supporters of a lower voting age" in answer.answer
    assert "Opponents of a lower voting age" not in answer.answer


def test_disputed_documents_are_searched_whole_or_left_out(knowledge):
    with knowledge.view() as view:
        assert {e.passage.id for e in retrieve(view, VOTE, 1)} == {"voting#0", "voting#1", "voting#2"}
        assert "voting" in {e.passage.document for e in view.search(DOSE, 6)}
        assert "voting" not in {e.passage.document for e in retrieve(view, DOSE, 6)}


def test_a_changed_document_loses_the_sentences_of_its_old_version(knowledge):
    loose = ExtractiveInterpreter(HashedWords(), Selection(threshold=0, margin=2))
    true = Answerer(knowledge, loose).answer(DOSE)
    assert Answerer(knowledge, Canned(true)).answer(DOSE) == true
    old = knowledge.document("health/paracetamol")
    text = old.text.replace("eight tablets", "six tablets")
    new = dataclasses.replace(old, text=text, version=version(old.title, old.metadata, text))
    knowledge.change(add=[new])
    answer = Answerer(knowledge, Canned(true)).answer(DOSE)
    assert "tablets" in true.answer
    assert "tablets" not in answer.answer
    assert {c.version for c in answer.citations if c.document == old.id} == {new.version}  # what did not change
    assert all(knowledge.check(citation) for citation in true.citations)
    assert "six tablets" in Answerer(knowledge, loose).answer(DOSE).answer


def test_a_document_that_is_no_evidence_is_not_cited(knowledge):
    true = Answerer(knowledge, ExtractiveInterpreter(HashedWords())).answer(DOSE)
    assert Answerer(knowledge, Canned(true), k=1).answer("stopping distance and speed").abstained


def test_an_answer_sees_one_state_of_the_knowledge_base(knowledge):
    class Late(ExtractiveInterpreter):
        def answer(self, question, evidence, documents):
            answer = super().answer(question, evidence, documents)
            knowledge.change(remove=["health/paracetamol"])
            return answer

    assert not Answerer(knowledge, Late(HashedWords())).answer(DOSE).abstained
    assert Answerer(knowledge, ExtractiveInterpreter(HashedWords())).answer(DOSE).abstained


def test_what_the_evidence_does_not_say_is_taken_out(answerer, knowledge):
    true = answerer.answer(DOSE)
    invented = dataclasses.replace(true, answer=true.answer + " Take as many as you like.")
    assert Answerer(knowledge, Canned(invented)).answer(DOSE) == true
    altered = dataclasses.replace(true, answer=true.answer.replace("eight", "forty"))
    assert Answerer(knowledge, Canned(altered)).answer(DOSE).abstained


def test_the_gate_cites_what_the_model_did_not_or_cited_wrongly(answerer, knowledge):
    true = answerer.answer(DOSE)
    wrong = dataclasses.replace(true.citations[0], answer_start=10_000, answer_end=10_001, document="speed")
    for citations in ((), (wrong,)):
        answer = Answerer(knowledge, Canned(dataclasses.replace(true, citations=citations))).answer(DOSE)
        assert answer.answer == true.answer
        assert [knowledge.check(citation) for citation in answer.citations] == [True]


def test_a_line_above_the_passage_turns_what_the_knowledge_base_has(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rest = "".join(f"- Item {number} is a thing that nobody does at any time.\n" for number in range(40))
    (source / "a.md").write_text(f"# Paracetamol\n\nNever do this:\n{rest}- Drink alcohol with paracetamol.\n", "utf-8")
    build(source, tmp_path / "kb", HashedWords())
    knowledge = KnowledgeBase.open(tmp_path / "kb", HashedWords())
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()), k=1)
    report = answerer.check("Drink alcohol with paracetamol.")
    assert "Never" not in report.passages[0].text
    assert not report.supported


def test_documents_are_paragraphs(answerer):
    first = answerer.answer(DOSE).citations[0]
    one, two = (dataclasses.replace(first, quote=quote) for quote in ("One.", "Two."))
    answer = compose([one, two, dataclasses.replace(first, quote="Three.", document="other")], ())
    assert answer.answer == "One. Two.\n\nThree."
    assert [(c.answer_start, c.answer_end) for c in answer.citations] == [(0, 4), (5, 9), (11, 17)]
