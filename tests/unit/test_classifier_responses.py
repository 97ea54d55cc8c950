"""An answer is read with what was asked, in every window."""

import json
from dataclasses import replace

import pytest

from classifier.model import TierClassifier
from classifier.responses import ResponseClassifier, asked
from classifier.settings import ClassifierSettings
from classifier.types import ClassifierError, Exchange, TextTooLong, Tier
from tests.classifier_cases import TAXONOMY, KeywordModel, keyword_classifier, minilm, toy_model

LONG = "one two three four five six seven eight nine ten " * 40


def reader(model=None, **settings):
    return ResponseClassifier(keyword_classifier(model, **settings))


def ids(text):
    return minilm().tokenize([text])["input_ids"][0]


def test_the_prompt_and_the_system_message_stand_before_the_answer_each_with_an_end():
    end = list(minilm().after)
    assert asked(minilm(), "what is it", "be kind", 200) == (*ids("be kind"), *end, *ids("what is it"), *end)
    assert asked(minilm(), "", "", 200) == (*end, *end)


def test_of_a_long_prompt_and_system_message_the_beginning_and_the_end_are_read():
    found = asked(minilm(), f"first {LONG} last", f"alpha {LONG} omega", 100)
    assert len(found) == 100 // 5 + 100 // 4 + 2
    assert found[0] == ids("alpha")[0]
    assert (found[19], found[-2]) == (ids("omega")[0], ids("last")[0])


def test_what_is_written_like_a_special_token_is_text():
    sep = minilm().tokenizer.sep_token
    assert sum(token == minilm().after[0] for token in asked(minilm(), f"a {sep} b", sep, 200)) == 2


@pytest.mark.parametrize("size", [1, 60, 254, 255, 700])
def test_every_token_of_an_answer_is_read_behind_what_was_asked(size):
    class Recording(KeywordModel):
        def forward(self, input_ids, attention_mask):
            rows.extend(row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
            return super().forward(input_ids, attention_mask)

    rows = []
    answer = " ".join(LONG.split()[at % 10] for at in range(size))
    (verdict,) = reader(Recording()).classify([Exchange(answer, "what is it", "be kind")])
    before = [*minilm().before, *asked(minilm(), "what is it", "be kind", 254)]
    assert all(row[: len(before)] == before for row in rows)
    assert all(len(row) <= 256 for row in rows)
    assert verdict.coverage.windows == len(rows)
    read = sum(len(row) - len(before) - 1 for row in rows)
    assert read >= size


def test_the_riskiest_window_of_an_answer_decides_and_its_place_is_the_answers():
    word = next(category.id[2:] for category in TAXONOMY.categories if category.tier is Tier.UNSAFE)
    answer = f"{LONG}{word}"
    (verdict,) = reader().classify([Exchange(answer, "what is it")])
    assert verdict.tier is Tier.UNSAFE
    assert answer[verdict.window.start : verdict.window.end].endswith(word)


def test_more_than_may_be_read_is_refused_and_the_prompt_does_not_count():
    short = reader(max_tokens=50)
    assert len(short.classify([Exchange("ten words", LONG, LONG)])) == 1
    with pytest.raises(TextTooLong):
        short.classify([Exchange(LONG)])


def test_a_model_is_only_loaded_for_what_it_reads(tmp_path):
    with pytest.raises(ClassifierError, match="trained to read texts, not exchanges"):
        ResponseClassifier.load(toy_model(), minilm())
    for file in toy_model().iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    replace(ClassifierSettings.load(tmp_path), reads="exchanges").save(tmp_path)
    loaded = ResponseClassifier.load(tmp_path, minilm())
    assert loaded.labels == {each.id: each.tier is Tier.UNSAFE for each in loaded.taxonomy.categories}
    assert loaded.classify([Exchange("hello", "what is it")])[0].coverage.windows == 1
    with pytest.raises(ClassifierError, match="airlock train classifier"):
        TierClassifier.load(tmp_path, minilm())


def test_settings_that_name_something_else_to_read_are_malformed(tmp_path):
    ClassifierSettings("m", "e", "0", "v").save(tmp_path)
    data = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(data | {"reads": "tea leaves"}))
    with pytest.raises(ClassifierError, match="tea leaves"):
        ClassifierSettings.load(tmp_path)
