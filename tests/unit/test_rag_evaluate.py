import json

import pytest

from rag.answer import Answerer
from rag.interpret import ExtractiveInterpreter, Selection
from tests.unit.rag_cases import HashedWords
from training.datasets import TrainingError
from training.evaluate_rag import Question, evaluate_rag, read_questions

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
    assert read_questions(path) == [Question("Q?", True, "a", "b")]
    for content, message in (("{", "each line"), ('{"question": "Q?"}', "each line"), ("", "holds no questions")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(TrainingError, match=message):
            read_questions(path)
    with pytest.raises(TrainingError, match="does not exist"):
        read_questions(tmp_path / "nowhere")
