"""Where nothing answers for sure: the document that stands out is quoted, said to be on the topic, or none is."""

from dataclasses import replace

import pytest

from rag.answer import Answerer
from rag.interpret import ExtractiveInterpreter, Selection
from rag.related import Related
from rag.types import Evidence, Passage
from tests.unit.rag_cases import HashedWords

DOSE = "What is the maximum of paracetamol in a day?"
UNKNOWN = "Which mole changes mean skin cancer?"
VOTE = "Do supporters of a lower voting age say that sixteen-year-olds pay taxes?"


def never():
    return ExtractiveInterpreter(HashedWords(), Selection(threshold=1.0))


def asked(knowledge, question, *, lead=0.05, threshold=0.3):
    near = Related(ExtractiveInterpreter(HashedWords(), Selection(threshold=threshold)), lead)
    return Answerer(knowledge, never(), related=near).answer(question)


def found(**scores):
    return [
        Evidence(Passage(f"{name}#{number}", name, "v", 0, 1, "x"), score)
        for name, each in scores.items()
        for number, score in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("scores", "name", "count"),
    [
        ({"a": [0.3, 0.5], "b": [0.44, 0.4]}, "a", 2),
        ({"b": [0.44], "a": [0.5]}, "a", 1),
        ({"a": [0.5, 0.1], "b": [0.46]}, None, 0),
        ({"a": [0.5]}, "a", 1),
        ({"a": [0.02], "b": [-0.1]}, None, 0),
        ({}, None, 0),
    ],
)
def test_a_document_stands_out_when_no_other_is_nearly_as_near(scores, name, count):
    of = Related(never(), lead=0.05).of(found(**scores))
    assert [item.passage.document for item in of] == [name] * count


def test_a_document_whose_asks_are_not_near_has_to_stand_out_further():
    with_asks = [replace(item, asked=0.4) for item in found(a=[0.5], b=[0.44])]
    assert Related(never(), lead=0.05, lead_with_asks=0.07).of(with_asks) == []
    assert Related(never(), lead=0.05, lead_with_asks=0.05).of(with_asks) == with_asks[:1]
    assert Related(never(), lead=0.05, lead_with_asks=0.07).of(found(a=[0.5], b=[0.44])) == found(a=[0.5])


def test_what_is_no_sure_answer_says_so_and_is_cited(knowledge):
    answer = asked(knowledge, DOSE)
    assert (answer.related, answer.abstained, answer.outcome) == (True, False, "related")
    assert {citation.document for citation in answer.citations} == {"health/paracetamol"}
    assert all(knowledge.check(citation) for citation in answer.citations)


def test_without_a_document_that_stands_out_or_is_near_it_abstains(knowledge):
    assert asked(knowledge, DOSE, lead=2.0).outcome == "abstained"
    assert asked(knowledge, DOSE, threshold=0.99).outcome == "abstained"
    assert asked(knowledge, UNKNOWN).outcome == "abstained"
    assert Answerer(knowledge, never()).answer(DOSE).outcome == "abstained"


def test_a_sure_answer_stays_one(knowledge):
    sure = ExtractiveInterpreter(HashedWords(), Selection(threshold=0.3))
    plain, beside = Answerer(knowledge, sure), Answerer(knowledge, sure, related=Related(sure))
    assert beside.answer(DOSE) == plain.answer(DOSE)
    assert plain.answer(DOSE).outcome == "answered"


def test_a_disputed_topic_is_heard_from_all_sides_here_too(knowledge):
    answer = asked(knowledge, VOTE)
    assert answer.related
    assert answer.positions == ("Supporters of a lower voting age", "Opponents of a lower voting age")


def test_less_is_asked_of_a_document_in_another_language(knowledge):
    def answered(tongue, **changes):
        selection = replace(Selection(threshold=0.9), **changes)
        languages = {DOSE: tongue}
        interpreter = ExtractiveInterpreter(HashedWords(), selection, language=lambda text: languages.get(text, "en"))
        return not Answerer(knowledge, interpreter).answer(DOSE).abstained

    assert not answered("en", abroad=0.5)
    assert answered("zh", abroad=0.5)
    assert not answered("zh", abroad=0.0)
    assert not answered(None, abroad=0.5), "a language that is not known may be the document's"
