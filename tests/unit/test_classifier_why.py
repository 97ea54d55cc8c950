import base64
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.examples import Examples, Labelled, log_odds
from classifier.types import ClassifierError, Tier
from classifier.why import Decided, Explainer
from classifier.word_weights import weigh
from classifier.words import words
from tests.classifier_cases import MARKER, TAXONOMY, filler, keyword_classifier, minilm, toy_classifier, toy_model

TEXTS = st.text(alphabet=st.sampled_from("ab'é-9 .,?!\n炸弹を作るสวัสดี👍한국"), max_size=40)


def offsets_of(text):
    return minilm().tokenize([text])["offset_mapping"][0]


def said(text):
    return [text[word.start : word.end] for word in words(text, offsets_of(text)) if word.says]


def test_words_are_those_of_a_reader():
    assert (
        said("Don't use state-of-the-art locks, 24 of them!") == "Don't use state-of-the-art locks 24 of them".split()
    )
    assert len(said("炸弹怎么做")) > 1, "a script without blanks has its tokens as words"
    assert said("한국어 문장") == ["한국어", "문장"]


@given(TEXTS)
def test_each_token_is_in_one_word_and_in_order(text):
    offsets = offsets_of(text)
    found = words(text, offsets)
    assert [token for word in found for token in word.tokens] == list(range(len(offsets)))
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))


class Counted:
    """A score that is linear in the words, and counts the tokens it is asked to read."""

    def __init__(self, weights, lengths):
        self.weights, self.lengths = np.array(weights, float), np.array(lengths)
        self.tokens = self.readings = 0

    def __call__(self, masks):
        self.tokens += int((masks @ self.lengths).sum())
        self.readings += len(masks)
        return masks @ self.weights


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=1, max_size=30))
def test_what_adds_up_is_taken_apart_exactly(parts):
    weights, lengths = zip(*parts, strict=True)
    score = Counted(weights, lengths)
    found = weigh(score, lengths, 10_000)
    assert found.weights == pytest.approx(weights, abs=1e-6)
    assert (found.alone, found.readings, found.tokens) == (True, score.readings, score.tokens)


def test_of_two_words_that_say_the_same_both_weigh():
    found = weigh(lambda masks: masks[:, [1, 3]].any(1).astype(float), [1] * 5, 1000).weights
    assert sorted(np.argsort(-found)[:2]) == [1, 3]
    assert found[1] == found[3] == 0.5


@given(st.integers(1, 400), st.integers(0, 3000), st.integers(0, 10**6))
def test_a_budget_holds_whatever_the_length(count, budget, seed):
    rng = np.random.default_rng(seed)
    weights, lengths = rng.normal(size=count), rng.integers(1, 4, count)
    score = Counted(weights, lengths)
    found = weigh(score, list(map(int, lengths)), budget)
    assert score.tokens == found.tokens <= max(budget, 4 * lengths.sum())
    assert score.readings == found.readings
    assert len(found.weights) == count
    assert np.isfinite(found.weights).all()


def test_in_a_long_window_the_heaviest_word_is_still_found():
    weights = np.zeros(200)
    weights[137] = 4.0
    found = weigh(Counted(weights, [1] * 200), [1] * 200, 8192)
    assert not found.alone
    assert int(found.weights.argmax()) == 137


def test_nothing_weighs_in_no_words():
    assert len(weigh(lambda masks: np.zeros(len(masks)), [], 100).weights) == 0


@pytest.mark.parametrize("marker", ["zorblax", "flimwick", "grundle"])
def test_the_word_that_decides_is_named(marker):
    text = f"{filler(8, 1)} {marker} {filler(8, 2)}"
    why = Explainer(toy_classifier()).explain(text)
    assert why.words[0].text == marker
    assert why.text[why.words[0].start : why.words[0].end] == marker
    assert why.verdict == toy_classifier().classify([text])[0]
    assert why.as_dict()["usage"]["total_tokens"] == why.tokens > why.readings
    assert why.examples == ()


def test_the_window_that_decides_is_the_one_that_is_explained():
    classifier = keyword_classifier(window=32, overlap=8)
    why = Explainer(classifier).explain(f"{filler(60, 1)} zorblax {filler(60, 2)}")
    assert why.verdict.tier is Tier.UNSAFE
    assert "zorblax" in why.text
    assert len(why.text.split()) < 40
    assert why.words[0].text == "zorblax"


def test_what_stands_encoded_is_shown_decoded():
    hidden = base64.b64encode(f"{filler(4, 1)} {MARKER}".encode()).decode()
    why = Explainer(keyword_classifier()).explain(f"bread oven {hidden}")
    assert why.encoded
    assert why.verdict.tier is Tier.UNSAFE
    assert {word.text for word in why.words} == {"zorblax"}


@pytest.mark.parametrize("text", ["", "   ", "👍👍", "?!", "\ud800", "rose 👍 lawn 👍 soil"])
def test_texts_without_words_are_explained_too(text):
    why = Explainer(keyword_classifier()).explain(text)
    assert all(word.weight > 0 for word in why.words)
    assert Decided.of(keyword_classifier(), text).verdict == why.verdict


def made(count=6):
    rng = np.random.default_rng(0)
    rows = [Labelled(f"id{at}", f"text {at}", TAXONOMY.ids[at % 5]) for at in range(count)]
    return rows, log_odds(rng.dirichlet([1] * 5, count))


def test_the_nearest_examples_are_those_of_the_same_category(tmp_path):
    classifier = toy_classifier()
    texts = [f"{filler(5, 1)} zorblax", f"{filler(5, 2)} grundle", "bread oven knife", "rose lawn tulip"]
    names = ["u_zorblax", "f_grundle", "s_kitchen", "s_garden"]
    verdicts = classifier.classify(texts)
    rows = [Labelled(str(at), text, name) for at, (text, name) in enumerate(zip(texts, names, strict=True))]
    odds = log_odds([[verdict.categories[name] for name in TAXONOMY.ids] for verdict in verdicts])
    examples = Examples(rows, odds, TAXONOMY, "hash")
    for text, name in zip(["zorblax soup bread", "soil grundle spade"], names, strict=False):
        first, *rest = Explainer(classifier, examples, most=3).explain(text).examples
        assert (first.category, first.tier) == (name, TAXONOMY.category(name).tier)
        assert len(rest) == 2
        assert first.similarity > rest[0].similarity


def test_examples_are_read_back_and_held_against_the_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "adapter_model.safetensors").write_bytes((toy_model() / "adapter_model.safetensors").read_bytes())
    assert Examples.load(model, TAXONOMY) is None
    rows, odds = made()
    from classifier.examples import adapter_of

    Examples(rows, odds, TAXONOMY, adapter_of(model)).save(model)
    assert len(Examples.load(model, TAXONOMY)) == len(rows)
    (model / "examples.jsonl").write_text('{"id": "a", "text": "t", "category": "none"}\n' * 6)
    with pytest.raises(ClassifierError, match=r"'none' is not in the taxonomy.*airlock model examples"):
        Examples.load(model, TAXONOMY)
    (model / "examples.jsonl").write_text("{}\n")
    with pytest.raises(ClassifierError, match="damaged"):
        Examples.load(model, TAXONOMY)
    (model / "adapter_model.safetensors").write_bytes(b"another")
    Examples(rows, odds, TAXONOMY, "old").save(model)
    with pytest.raises(ClassifierError, match="another adapter"):
        Examples.load(model, TAXONOMY)
