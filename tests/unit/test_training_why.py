import numpy as np
import pytest

from classifier.why import Decided, Explainer
from tests.classifier_cases import filler, marked, minilm, toy_classifier
from training.datasets import Row, TrainingError
from training.mixture import few_of_each
from training.report import explained
from training.tiers.evaluate_why import evaluate_why
from training.tiers.word_weights import methods

ROWS = [
    Row(marked(word, 7, seed), "s_kitchen", "train", "", lang="en" if seed % 2 else "de")
    for seed, word in enumerate(["zorblax", "flimwick", "grundle"] * 4)
]


def test_each_way_but_the_weakest_names_the_word_that_decides():
    classifier = toy_classifier()
    for row in ROWS[:3]:
        found = Decided.of(classifier, row.text)
        for name, method in methods(classifier, minilm()).items():
            if name == "gradient_x_input":  # no better than random words, as measured
                continue
            heaviest = found.words[int(np.argmax(method(found)))]
            assert found.text[heaviest.start : heaviest.end] in ("zorblax", "flimwick", "grundle"), name


def test_words_that_decide_move_the_verdict_and_others_do_not():
    classifier = toy_classifier()
    ways = {
        "both_ends": methods(classifier, minilm())["both_ends"],
        "backwards": lambda found: -methods(classifier, minilm())["both_ends"](found),
    }
    found = evaluate_why(classifier, ROWS, ways, compared=len(ROWS))
    good, bad = (found["methods"][name]["top_1"] for name in ways)
    assert found["all"]["top_1"] == good
    assert good["deletion"]["low"] > 0.2
    assert good["sufficiency"]["low"] > 0.2
    assert good["deletion"]["p"] < 0.01 < bad["deletion"]["p"]
    assert bad["deletion"]["high"] < 0
    assert found["languages"] == {"de": 6, "en": 6}
    assert set(found["by_language"]) == {"en", "other"}
    assert found["rows"] == len(ROWS)


def test_texts_of_few_words_show_nothing():
    with pytest.raises(TrainingError, match="more than 3 words"):
        evaluate_why(toy_classifier(), [Row("bread", "s_kitchen", "train", "")], {"none": lambda _: None}, compared=1)


def test_some_rows_of_each_language():
    chosen = few_of_each(ROWS, 2, lambda row: row.lang, 0)
    assert len(chosen) == 4
    assert few_of_each(ROWS, 2, lambda row: row.lang, 0) == chosen


def test_the_worst_errors_say_why():
    worst = [{"text": f"{filler(5, 1)} zorblax"}, {"text": filler(5, 2)}]
    first, second = explained(worst, Explainer(toy_classifier()), 1)
    assert first["why"]["words"][0]["word"] == "zorblax"
    assert second["why"] is None
