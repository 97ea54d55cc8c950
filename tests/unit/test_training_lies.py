import dataclasses
from pathlib import Path

import pytest

from rag.segments import segments
from rag.types import DEFAULT_GATE, GroundedAnswer
from tests.doubles import citation
from tests.unit.rag_cases import write_source
from training.grounding.evaluate_grounding import Credulous, evaluate_gate, off, places, through, upper, upper_of
from training.grounding.lies import HONEST, Liar

SOURCE = Path(__file__).parents[2] / "data" / "knowledge" / "road_safety"


@pytest.fixture(scope="module")
def cases():
    return list(Liar(places([SOURCE]), seed=0).cases())


def test_lies_of_many_kinds_are_made_the_same_for_a_seed(cases):
    kinds = {case.kind for case in cases}
    assert {"number", "negation", "unit", "opposite", "force", "condition", "glued", "swapped", "removed"} <= kinds
    again = list(Liar(places([SOURCE]), seed=0).cases())
    assert [case.answer.answer for case in again] == [case.answer.answer for case in cases]
    other = list(Liar(places([SOURCE]), seed=1).cases())
    assert [case.answer.answer for case in other] != [case.answer.answer for case in cases]


def test_no_lie_stands_in_its_evidence_and_the_honest_quotes_do(cases):
    for case in cases:
        assert case.target in case.answer.answer
        inside = any(case.target in each.passage.text for each in case.evidence)
        assert inside == (case.kind == "quote") or case.kind in HONEST


def test_without_a_gate_every_lie_is_released_and_with_it_none_of_these(cases):
    some = cases[::4]
    assert evaluate_gate(some, off)["released_share"] == 1.0
    figures = evaluate_gate(some, through(None, DEFAULT_GATE))
    assert (figures["released"], figures["kept"]["quote"]["share"] > 0.7) == (0, True)
    assert 0 < figures["released_upper"] < 0.1


def test_a_model_that_believes_everything_leaves_the_rules(cases):
    edited = [case for case in cases if case.kind in ("number", "negation", "unit", "force")]
    assert evaluate_gate(edited, through(Credulous(), DEFAULT_GATE))["released_share"] < 0.05


def test_a_citation_that_does_not_stand_is_not_counted(tmp_path):
    from rag.answer import Answerer
    from rag.build import build
    from rag.interpret import ExtractiveInterpreter
    from rag.store import KnowledgeBase
    from tests.unit.rag_cases import HashedWords
    from training.grounding.evaluate_grounding import evaluate_citations

    build(write_source(tmp_path / "source"), tmp_path / "kb", HashedWords())

    def reopened():
        return KnowledgeBase.open(tmp_path / "kb", HashedWords())

    answerer = Answerer(reopened(), ExtractiveInterpreter(HashedWords()))
    questions = ["What is the maximum of paracetamol in a day?"]
    figures = evaluate_citations(answerer, questions, reopened)
    assert figures["released"] == figures["verified"] > 0

    class Shifted:
        def answer(self, question):
            answer = answerer.answer(question)
            wrong = [dataclasses.replace(each, start=each.start + 1) for each in answer.citations]
            return dataclasses.replace(answer, citations=tuple(wrong))

    figures = evaluate_citations(Shifted(), questions, reopened)
    assert figures["verified"] == 0 < figures["released"]


def test_of_two_sentences_taken_for_one_both_must_be_cited(monkeypatch):
    from training.grounding import evaluate_grounding

    said = "Adults may say no. Supporters agree that it helps."  # "no." reads like the abbreviation of a number
    first = dataclasses.replace(citation(), answer_start=0, answer_end=18, quote=said[:18])
    second = dataclasses.replace(citation(), answer_start=19, answer_end=len(said), quote=said[19:])
    assert len(segments(said)) == 1

    class Says:
        def answer(self, question):
            return GroundedAnswer(said, False, (first, second))

    for known, verified in (((first, second), 1), ((first,), 0), ((second,), 0)):
        monkeypatch.setattr(evaluate_grounding, "_stands", lambda each, *_, known=known: each in known)
        figures = evaluate_grounding.evaluate_citations(Says(), ["May I?"], lambda: None)
        assert (figures["released"], figures["verified"]) == (1, verified)


def test_the_bound_is_above_the_share():
    assert upper(0, 300) == pytest.approx(0.00994, abs=1e-4)
    assert upper(0, 0) is None
    assert upper(5, 5) == 1.0


def test_lies_on_one_passage_bound_their_share_as_one():
    none = [(str(number // 10), False) for number in range(300)]
    assert upper_of(none) == upper(0, 30) > upper(0, 300)
    apart = [(passage, number % 100 == 0) for number, (passage, _) in enumerate(none)]
    together = [(passage, passage == "7") for passage, _ in none]
    assert upper(3, 300) <= upper_of(apart) < upper_of(together)
    assert upper_of(together) > upper(10, 300)
    assert upper_of([]) is None
