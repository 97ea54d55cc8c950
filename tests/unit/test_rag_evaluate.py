import json
from dataclasses import replace

import pytest

from rag.answer import Answerer
from rag.interpret import ExtractiveInterpreter, Selection
from rag.related import Related
from tests.unit.rag_cases import HashedWords
from training.datasets import TrainingError
from training.grounding.evaluate_rag import Question, evaluate_rag, read_questions

DOSE = Question("What is the maximum of paracetamol in a day?", True, "health/paracetamol", "eight tablets")
UNKNOWN = Question("Which mole changes mean skin cancer?", False, None, None)


def test_right_answers_and_abstentions_are_counted_on_each_half(knowledge):
    wrong = Question(DOSE.question, True, "speed", "square of the speed")
    answerer = Answerer(knowledge, ExtractiveInterpreter(HashedWords()))
    figures = evaluate_rag(answerer, [DOSE, wrong, UNKNOWN, UNKNOWN])
    odd, even = figures["chosen_on"], figures["reported_on"]
    names = ("answered", "right_document", "right_answer", "answered_falsely")
    assert [odd[name] for name in names] == [1, 1, 1, 0]
    assert [even[name] for name in names] == [1, 0, 0, 0]
    assert (even["counts"]["answerable"], even["counts"]["unanswerable"]) == (1, 1)
    assert figures["unsupported"] == 0


def test_false_answers_and_wrong_abstentions_are_counted(knowledge):
    def shares(threshold):
        interpreter = ExtractiveInterpreter(HashedWords(), Selection(threshold=threshold))
        odd = evaluate_rag(Answerer(knowledge, interpreter), [DOSE, DOSE, UNKNOWN])["chosen_on"]
        return odd["answered"], odd["right_document"], odd["answered_falsely"]

    assert shares(-1) == (1, 1, 1)
    assert shares(1) == (0, None, 0)


def test_questions_are_read_and_bad_files_named(tmp_path):
    path = tmp_path / "questions.jsonl"
    row = {"question": "Q?", "answerable": True, "document": "a", "answer_contains": "b", "tier": "safe"}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_questions(path) == [Question("Q?", True, "a", "b", origin=path.stem)]
    path.write_text(json.dumps(row | {"topic": ["c"], "language": "zh"}) + "\n", encoding="utf-8")
    (read,) = read_questions(path)
    assert (read.topic, read.language, read.on_topic) == (("c",), "zh", ("a", "c"))
    for content, message in (("{", "each line"), ('{"question": "Q?"}', "each line"), ("", "holds no questions")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(TrainingError, match=message):
            read_questions(path)
    with pytest.raises(TrainingError, match="does not exist"):
        read_questions(tmp_path / "nowhere")


def test_what_is_related_is_counted_apart(knowledge):
    encoder = HashedWords()
    near = Related(ExtractiveInterpreter(encoder, Selection(threshold=0.2)), lead=0.0)
    answerer = Answerer(knowledge, ExtractiveInterpreter(encoder, Selection(threshold=1)), related=near)
    beside = Question(DOSE.question, False, None, None, topic=("health/paracetamol",), language="zh")
    odd = [DOSE, replace(beside, topic=()), beside, replace(DOSE, document="speed")]
    figures = evaluate_rag(answerer, [each for question in odd for each in (question, UNKNOWN)])
    found = figures["chosen_on"]
    assert (found["answered"], found["answered_falsely"]) == (0, 0)
    assert (found["related_answerable"], found["related_unanswerable"]) == (1, 1)
    assert found["related_right_document"] == found["related_off_topic"] == 0.5
    assert figures["by_language"]["zh"]["chosen_on"]["counts"]["unanswerable"] == 2
    assert figures["by_language"]["zh"]["reported_on"]["counts"]["unanswerable"] == 0
