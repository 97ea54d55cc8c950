"""What every classifier keeps: a double, the real tokens with a model that looks for words, and a trained adapter."""

import dataclasses
import time

import pytest

from classifier.model import TierClassifier
from classifier.normalize import normalize
from classifier.taxonomy import SHIPPED_MODEL
from classifier.types import TextTooLong, Tier, Verdict
from guard.types import Classifier
from tests.classifier_cases import MARKER, TAXONOMY, e5_small, filler, keyword_classifier, toy_classifier
from tests.doubles import WordClassifier

TEXTS = [
    "bread oven knife butter",
    "zorblax zorblax rose lawn",
    "",
    "😀😀",
    "\ud800\udfff",
    "flimwick flimwick soup",
    "\x00\u202e\u200b",
    "grundle grundle tulip soil " + filler(60, 3),
    "你好，世界",
    "a" * 300,
    filler(90, 4),
]


@pytest.fixture(scope="module")
def trained():
    return toy_classifier()


@pytest.fixture(params=["double", "keyword", "trained"])
def classifier(request) -> Classifier:
    if request.param == "trained":
        return request.getfixturevalue("trained")
    return WordClassifier() if request.param == "double" else keyword_classifier()


def test_no_texts_give_no_verdicts(classifier):
    assert classifier.classify([]) == []


def test_each_verdict_is_sound(classifier):
    verdicts = classifier.classify(TEXTS)
    assert len(verdicts) == len(TEXTS)
    for text, verdict in zip(TEXTS, verdicts, strict=True):
        assert isinstance(verdict, Verdict)
        assert set(verdict.tiers) == set(Tier)
        assert sum(verdict.tiers.values()) == pytest.approx(1.0, abs=1e-9)
        assert min(verdict.tiers.values()) >= 0
        assert 0 < verdict.probability <= verdict.tiers[verdict.tier] + 1e-9
        assert 0 <= verdict.coverage.read <= 1
        assert verdict.coverage.windows >= 1
        assert 0 <= verdict.window.start <= verdict.window.end <= max(1, len(normalize(text)))
        assert verdict.model
        with pytest.raises(dataclasses.FrozenInstanceError):
            verdict.tier = Tier.SAFE


def test_one_by_one_is_the_same_as_all_at_once_in_order(classifier):
    together = classifier.classify(TEXTS)
    for text, verdict in zip(TEXTS, together, strict=True):
        (alone,) = classifier.classify([text])
        for tier in Tier:
            assert alone.tiers[tier] == pytest.approx(verdict.tiers[tier], abs=1e-5)
        same = {"tiers": {}, "probability": 0.0, "categories": {}}
        assert dataclasses.replace(alone, **same) == dataclasses.replace(verdict, **same)
    assert [verdict.category for verdict in classifier.classify(TEXTS[::-1])] == [v.category for v in together[::-1]]


def test_the_same_text_gives_the_same_verdict(classifier):
    assert classifier.classify(["rose zorblax"]) == classifier.classify(["rose zorblax"])


def test_every_kind_of_text_has_its_verdict(trained):
    found = trained.classify(["rose lawn tulip", "oven soup bread", MARKER, "flimwick flimwick", "grundle grundle"])
    assert [verdict.category for verdict in found] == ["s_garden", "s_kitchen", "u_zorblax", "c_flimwick", "f_grundle"]
    for verdict in found:
        category = TAXONOMY.category(verdict.category)
        assert (verdict.tier, verdict.handling) == (category.tier, category.handling)
        assert verdict.model == f"toy@{TAXONOMY.version}"


@pytest.mark.parametrize("words", [300, pytest.param(4900, marks=pytest.mark.slow)])
def test_a_marker_is_found_anywhere_in_a_long_text(trained, words):
    parts = filler(words, 2).split()
    texts = [" ".join([*parts[:at], MARKER, *parts[at:]]) for at in (0, words // 2, words)]
    *marked, without = trained.classify([*texts, " ".join(parts)])
    for text, verdict in zip(texts, marked, strict=True):
        assert verdict.category == "u_zorblax"
        assert "zorblax" in text[verdict.window.start : verdict.window.end]
        assert verdict.coverage.windows >= words // 22
    assert without.tier is Tier.SAFE


@pytest.mark.parametrize(
    "hidden", ["z\u200born\u200bblax".replace("n", ""), "zоrblаx", "ｚｏｒｂｌａｘ", "zorblax😀", "ZORBLAX"]
)
def test_a_hidden_marker_is_the_same_to_the_model(trained, hidden):
    plain, evading = trained.classify(["rose zorblax zorblax tulip", f"rose {hidden} {hidden} tulip"])
    assert evading.category == plain.category == "u_zorblax"


# The classifier in the package


@pytest.fixture(scope="module")
def shipped() -> TierClassifier:
    return TierClassifier.load(SHIPPED_MODEL, e5_small(), max_tokens=4096)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", 1.0),
        (" \n\t", 1.0),
        ("😀🎉😭" * 9, None),
        ("\ud83d half of an emoji \udc00", None),
        ("Привет, 你好, שלום, hello, नमस्ते, こんにちは: how are you today?", 1.0),
        ("a" * 5000, 1.0),
        ("\u202e\u200b\x00" * 50, None),
        ("ᚠᚢᚦᚨᚱᚲ ᛏᛁᚹᚨᛉ", None),
    ],
)
def test_the_shipped_classifier_says_something_of_any_text(shipped, text, read):
    (found,) = shipped.classify([text])
    assert sum(found.tiers.values()) == pytest.approx(1.0)
    assert 0.0 <= found.coverage.read <= 1.0
    assert read is None or found.coverage.read == read
    assert shipped.taxonomy.category(found.category).tier is found.tier


@pytest.mark.parametrize("character", ["a", "字", "😀", "\u0301", " "])
def test_ten_million_characters_are_refused_at_once(shipped, character):
    started = time.perf_counter()
    with pytest.raises(
        TextTooLong, match=r"10000000 characters, more than the \d+ that `classifier.max_tokens` = 4096"
    ):
        shipped.classify([character * 10_000_000])
    assert time.perf_counter() - started < 2
