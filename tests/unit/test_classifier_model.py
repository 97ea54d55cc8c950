import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from classifier.calibration import Calibration
from classifier.model import TierClassifier
from classifier.network import TorchRuntime, network_of, save_model
from classifier.pace import paced
from classifier.settings import ClassifierSettings, Doubt, OperatingPoint
from classifier.taxonomy import Taxonomy
from classifier.types import ClassifierError, TextTooLong, Tier
from tests.classifier_cases import (
    TAXONOMY,
    KeywordModel,
    filler,
    keyword_classifier,
    minilm,
    toy_classifier,
    toy_model,
)

ROOT = Path(__file__).parents[2]
WEIGHTS = ("adapter_model.safetensors", "head.safetensors")
FILES = (*WEIGHTS, "adapter_config.json", "classifier.json", "taxonomy.yaml")
TEXTS = ["zorblax and zorblax", "bread oven knife", "grundle grundle tulip", "flimwick flimwick", "", "😀"]


@pytest.fixture
def folder(tmp_path):
    """A copy of a model folder that may be changed."""
    return Path(shutil.copytree(toy_model(), tmp_path / "model"))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# The operating point


@pytest.mark.parametrize(
    ("safe", "conditional", "focused", "unsafe", "tier"),
    [
        (1.0, 0.0, 0.0, 0.0, Tier.SAFE),
        (0.6, 0.2, 0.2, 0.0, Tier.SAFE),
        (0.51, 0.0, 0.0, 0.49, Tier.SAFE),
        (0.5, 0.3, 0.2, 0.0, Tier.CONDITIONALLY_SAFE),  # the threshold belongs to the higher tier
        (0.5, 0.0, 0.0, 0.5, Tier.UNSAFE),
        (0.4, 0.1, 0.3, 0.2, Tier.FOCUSED_ATTENTION),
        (0.4, 0.14, 0.16, 0.3, Tier.FOCUSED_ATTENTION),  # not sure enough to be refused, and still not passed on
        (0.0, 0.3, 0.2, 0.5, Tier.UNSAFE),
        (0.0, 0.6, 0.4, 0.0, Tier.CONDITIONALLY_SAFE),
    ],
)
def test_the_default_point_gives_the_tier(safe, conditional, focused, unsafe, tier):
    assert OperatingPoint().tier(dict(zip(Tier, (safe, conditional, focused, unsafe), strict=True))) is tier


@pytest.mark.parametrize(
    ("risk", "unsafe", "tier"),
    [
        (0.25, 0.5, Tier.CONDITIONALLY_SAFE),
        (0.31, 0.5, Tier.SAFE),
        (0.9, 0.1, Tier.UNSAFE),
        (0.25, 1.0, Tier.CONDITIONALLY_SAFE),
        (1.0, 1.0, Tier.SAFE),
    ],
)
def test_the_point_moves_the_tier(risk, unsafe, tier):
    tiers = {Tier.SAFE: 0.7, Tier.CONDITIONALLY_SAFE: 0.15, Tier.FOCUSED_ATTENTION: 0.05, Tier.UNSAFE: 0.1}
    assert OperatingPoint(risk, unsafe).tier(tiers) is tier


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["risk", "unsafe"])
def test_a_threshold_that_is_no_probability_is_refused(name, value):
    with pytest.raises(ClassifierError, match=f"operating point {name} = {value}"):
        OperatingPoint(**{name: value})


# Save and load


def test_a_saved_model_speaks_the_same(tmp_path):
    classifier = TierClassifier.load(toy_model(), minilm())
    save_model(network_of(classifier.runtime), classifier.taxonomy, classifier.settings, tmp_path / "again")
    again = TierClassifier.load(tmp_path / "again", minilm())
    assert again.classify(TEXTS) == classifier.classify(TEXTS)
    assert (again.taxonomy, again.settings) == (TAXONOMY, classifier.settings)


def test_a_folder_holds_these_files_only_and_no_pickle(tmp_path):
    save_model(network_of(toy_classifier().runtime), TAXONOMY, toy_classifier().settings, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(FILES)
    assert {path.suffix for path in toy_model().rglob("*")} <= {".safetensors", ".json", ".yaml", ".md"}


def test_no_file_names_a_folder_of_this_machine():
    for path in toy_model().iterdir():
        content = path.read_bytes()
        for place in (Path.home(), ROOT, toy_model(), minilm().path):
            assert str(place).encode() not in content, path.name


def test_weights_are_saved_in_half_precision():
    for name in WEIGHTS:
        assert {value.dtype for value in load_file(toy_model() / name).values()} == {torch.float16}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "half", "garbage", "empty"])
def test_a_damaged_file_is_refused_in_one_message(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"half": content[: len(content) // 2], "garbage": b"\xff\x00{]", "empty": b""}[damage])
    with pytest.raises(ClassifierError, match=r"model"):
        TierClassifier.load(folder, minilm())


def test_a_pickled_adapter_is_not_opened(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cposix\nabort\n(tR.")
    with pytest.raises(ClassifierError, match=r"adapter_model\.safetensors"):
        TierClassifier.load(folder, minilm())


def _dropped(weights):
    return dict(list(weights.items())[3:])


def _more(weights):
    return {**weights, "stray": torch.zeros(1)}


def _renamed(weights):
    return {name.replace("query", "quarry").replace("bias", "bios"): value for name, value in weights.items()}


def _not_finite(weights):
    name, value = next(iter(weights.items()))
    return {**weights, name: torch.full_like(value, float("inf"))}


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("change", [_dropped, _more, _renamed, _not_finite])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_all_there_are_refused(folder, name, change):
    save_file(change(load_file(folder / name)), folder / name)
    with pytest.raises(ClassifierError, match="damaged or incomplete"):
        TierClassifier.load(folder, minilm())


def test_a_head_of_another_size_is_refused(folder):
    weights = load_file(folder / "head.safetensors")
    save_file({name: value[:-1].contiguous() for name, value in weights.items()}, folder / "head.safetensors")
    with pytest.raises(ClassifierError, match="damaged or incomplete"):
        TierClassifier.load(folder, minilm())
    fewer = Taxonomy("fewer", TAXONOMY.categories[1:])
    with pytest.raises(ClassifierError, match="5 outputs, taxonomy 'fewer' has 4 categories"):
        TierClassifier(TorchRuntime(KeywordModel(), minilm()), minilm(), fewer, keyword_classifier().settings)


@pytest.mark.parametrize("changes", [{"r": 3}, {"r": "x"}, {"peft_type": "ELSE"}, {"target_modules": ["nowhere"]}])
def test_another_adapter_config_is_refused(folder, changes):
    edit(folder / "adapter_config.json", **changes)
    with pytest.raises(ClassifierError, match="damaged or incomplete"):
        TierClassifier.load(folder, minilm())


def test_an_adapter_of_another_encoder_is_refused():
    other = replace(minilm(), name="another", sha256="f" * 64)
    with pytest.raises(ClassifierError, match=r"trained on encoder 'package:gt.*not on 'another' \(ffffffffffff…\)"):
        TierClassifier.load(toy_model(), other)


def test_a_changed_taxonomy_is_refused(folder):
    path = folder / "taxonomy.yaml"
    path.write_text(path.read_text().replace("tier: unsafe", "tier: safe"))
    with pytest.raises(ClassifierError, match=f"taxonomy.yaml has version .*trained with {TAXONOMY.version}"):
        TierClassifier.load(folder, minilm())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": "32"}, "whole numbers"),
        ({"window": 513}, "reads up to 512"),
        ({"overlap": 30}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"window": 2, "overlap": 0}, "windows of 2"),
        ({"operating_point": {"risk": 2}}, "risk = 2"),
        ({"operating_point": {"risky": 0.5}}, "malformed"),
        ({"operating_point": {"doubt": {"safe_below": 0.6, "risky_from": 0.9}}}, "must lie inside"),
        ({"operating_point": {"doubt": {"safe_below": 0.6}}}, "malformed"),
        ({"operating_point": {"several": {"unsafe": 0}}}, "unsafe = 0"),
        ({"operating_point": {"several": {"several": {"risk": 0.9}}}}, "have one point"),
        ({"operating_point": {"several": 0.9}}, "malformed"),
        ({"calibration": {"temperature": 0}}, "temperature = 0"),
        ({"calibration": {"heat": 1}}, "malformed"),
        ({"operating_point": None}, "malformed"),
        ({"more": 1}, "malformed"),
    ],
)
def test_settings_that_cannot_work_are_refused_on_loading(folder, changes, said):
    edit(folder / "classifier.json", **changes)
    with pytest.raises(ClassifierError, match=said):
        TierClassifier.load(folder, minilm())


def test_settings_come_back(tmp_path):
    settings = ClassifierSettings("n", "e", "s", "v", 128, 32, OperatingPoint(0.3, 0.7))
    settings.save(tmp_path)
    assert ClassifierSettings.load(tmp_path) == settings


# Reading, with a model that looks for words


@pytest.fixture(scope="module")
def long_text():
    return filler(5000, 1)


@pytest.mark.parametrize("at", [0, 1, 1247, 2500, 3333, 4998, 5000])
def test_a_word_is_found_anywhere_in_a_long_text(long_text, at):
    words = long_text.split()
    words.insert(at, "zorblax")
    text = " ".join(words)
    (verdict,) = keyword_classifier().classify([text])
    assert verdict.tier is Tier.UNSAFE
    assert verdict.category == "u_zorblax"
    assert "zorblax" in text[verdict.window.start : verdict.window.end]
    assert verdict.coverage.tokens >= 5001
    assert verdict.coverage.windows == 1 + -(-(verdict.coverage.tokens - 254) // 190)


def test_nothing_is_found_in_a_long_text_without_the_word(long_text):
    (verdict,) = keyword_classifier().classify([long_text])
    assert verdict.tier is Tier.SAFE


def test_the_window_of_the_highest_tier_decides(long_text):
    text = f"flimwick flimwick flimwick {long_text} grundle {long_text} zorblax zorblax {long_text} zorblax"
    (verdict,) = keyword_classifier().classify([text])
    assert verdict.tier is Tier.UNSAFE
    assert "zorblax zorblax" in text[verdict.window.start : verdict.window.end]  # the surest of them


def test_a_safe_text_has_the_risk_of_its_riskiest_window(long_text):
    classifier = keyword_classifier()
    classifier.settings = replace(classifier.settings, operating_point=OperatingPoint(risk=0.99, unsafe=0.99))
    alone, inside = classifier.classify(["grundle", f"{long_text} grundle {long_text}"])
    assert alone.tier is inside.tier is Tier.SAFE
    assert inside.tiers[Tier.SAFE] == pytest.approx(alone.tiers[Tier.SAFE])


def test_a_long_text_is_read_in_slices_and_others_may_come_between(long_text):
    left = []
    sliced = keyword_classifier(slice_tokens=512)
    with paced(left.append):
        verdicts = sliced.classify([long_text, "tulip"])
    assert verdicts == keyword_classifier(slice_tokens=10**9).classify([long_text, "tulip"])
    assert max(rows * width for rows, width in sliced.runtime.model.batches) <= 512
    assert len(left) == len(sliced.runtime.model.batches) - 1 > 2
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] <= left[0] < 1


def test_a_reading_can_be_given_up_between_two_slices(long_text):
    classifier = keyword_classifier(slice_tokens=256)

    def give_up(left):
        raise TimeoutError

    with paced(give_up), pytest.raises(TimeoutError):
        classifier.classify([long_text])
    assert len(classifier.runtime.model.batches) == 1


def test_windows_run_in_batches_of_like_length(long_text):
    classifier = keyword_classifier(batch=4)
    classifier.classify(["bread", long_text, "oven", "knife", ""])
    assert max(rows for rows, _ in classifier.runtime.model.batches) == 4
    assert max(width for _, width in classifier.runtime.model.batches) == 256
    assert classifier.runtime.model.batches[0] == (4, 3)


def test_a_longer_text_than_allowed_is_refused_whole(long_text):
    classifier = keyword_classifier(max_tokens=10)
    exact = filler(10, 0)
    (verdict,) = classifier.classify([exact])
    assert verdict.coverage.tokens == 10
    with pytest.raises(TextTooLong, match=r"has 21 tokens, more than the 10 that `classifier\.max_tokens`"):
        classifier.classify([exact, exact + " rose"])
    with pytest.raises(TextTooLong):
        keyword_classifier(max_tokens=1000).classify([long_text])


@pytest.mark.parametrize("characters", [10**5, pytest.param(10**6, marks=pytest.mark.slow)])
def test_very_many_of_one_letter_are_too_long(characters):
    with pytest.raises(TextTooLong):
        keyword_classifier(max_tokens=16_384).classify(["a" * characters])


@pytest.mark.parametrize(
    ("text", "tokens", "read"),
    [
        ("", 0, 1.0),
        (" \n\t\u200b", 0, 1.0),
        (" " * 10**6, 0, 1.0),
        ("\u200d" * 10**5, 0, 0.0),
        ("😀", 1, 0.0),
        ("😀" * 250_000, 1, 0.0),
        ("\ud800", 0, 0.0),
        ("rose lawn", 2, 1.0),
        ("rose 😀", 2, 0.8),
        ("rose😀", 2, 0.8),
        ("𐎠𐎡𐎢𐎣 rose", 2, 0.5),
    ],
)
def test_coverage_counts_what_the_vocabulary_knows(text, tokens, read):
    (verdict,) = keyword_classifier().classify([text])
    assert (verdict.coverage.tokens, verdict.coverage.windows) == (tokens, 1)
    assert verdict.coverage.read == pytest.approx(read)
    assert verdict.tier is Tier.SAFE


def test_what_nobody_sees_counts_as_unread():
    hidden = "".join(chr(0xE0100 + ord(char)) for char in "how to make a bomb " * 40)
    verdict, family, plain = keyword_classifier().classify(
        ["😀 nice" + hidden, "👩\u200d👩\u200d👧\ufe0f nice day", "nice"]
    )
    assert verdict.coverage.read < 0.1
    assert family.coverage.read > 0.4
    assert plain.coverage.read == 1.0


@pytest.mark.parametrize("written", ["[SEP]", "[CLS]", "[PAD]", "[UNK]"])
def test_what_a_text_writes_like_a_special_token_is_text(written):
    (verdict,) = keyword_classifier().classify([f"rose {written} zorblax"])
    assert verdict.coverage.tokens > 3 + len("zorblax") // 3
    assert verdict.tier is Tier.UNSAFE


class Reads(KeywordModel):
    """A `KeywordModel` that keeps what it was given to read."""

    def __init__(self):
        super().__init__()
        self.read: list[str] = []

    def forward(self, input_ids, attention_mask):
        self.read += [minilm().tokenizer.decode(ids, skip_special_tokens=True) for ids in input_ids]
        return super().forward(input_ids, attention_mask)


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("how → to cook ← the zorblax", ["how → to cook ← the zorblax", "how to cook the zorblax"]),
        ("how → to cook the zorblax", ["how → to cook the zorblax"]),
    ],
)
def test_a_text_with_symbols_between_its_words_is_read_without_them_too(text, readings):
    classifier = keyword_classifier(Reads())
    (verdict,) = classifier.classify([text])
    assert sorted(classifier.runtime.model.read) == sorted(readings)
    assert verdict.coverage.windows == len(readings)
    assert verdict.coverage.read == 1.0
    assert verdict.category == "u_zorblax"
    assert (verdict.window.start, verdict.window.end) == (0, len(text))


def test_a_verdict_has_the_probability_of_every_category():
    found = keyword_classifier()
    (verdict,) = found.classify(["here is zorblax"])
    assert tuple(verdict.categories) == found.taxonomy.ids
    assert sum(verdict.categories.values()) == pytest.approx(1.0)
    assert verdict.categories["u_zorblax"] == verdict.probability
    for tier in Tier:
        ids = [each.id for each in found.taxonomy.categories if each.tier is tier]
        assert sum(verdict.categories[each] for each in ids) == pytest.approx(verdict.tiers[tier])


# A point of its own for texts of several windows


def test_a_text_of_several_windows_has_its_own_thresholds(long_text):
    classifier = keyword_classifier()
    short, long = "bread zorblax", f"{long_text} zorblax {long_text}"
    strict = OperatingPoint(several=OperatingPoint(0.9999, 0.9999))
    classifier.settings = replace(classifier.settings, operating_point=strict)
    assert [verdict.tier for verdict in classifier.classify([short, long])] == [Tier.UNSAFE, Tier.SAFE]
    classifier.settings = replace(
        classifier.settings, operating_point=OperatingPoint(0.9999, 0.9999, several=strict.several)
    )
    assert [verdict.tier for verdict in classifier.classify([short, long])] == [Tier.SAFE, Tier.SAFE]
    looser = OperatingPoint(0.9999, 0.9999, several=OperatingPoint())
    classifier.settings = replace(classifier.settings, operating_point=looser)
    assert [verdict.tier for verdict in classifier.classify([short, long])] == [Tier.SAFE, Tier.UNSAFE]


def test_other_readings_of_a_short_text_are_no_further_windows_of_it():
    classifier = keyword_classifier()
    point = OperatingPoint(several=OperatingPoint(0.9999, 0.9999))
    classifier.settings = replace(classifier.settings, operating_point=point)
    text = f"bread {base64.b64encode(b'zorblax and a zorblax').decode()}"
    (verdict,) = classifier.classify([text])
    assert verdict.coverage.windows > 1
    assert verdict.tier is Tier.UNSAFE


def test_what_stands_before_each_window_changes_nothing_of_that(long_text):
    classifier = keyword_classifier()
    classifier.settings = replace(
        classifier.settings, operating_point=OperatingPoint(several=OperatingPoint(0.9999, 0.9999))
    )
    windowed = classifier.read([f"{long_text} zorblax"], [(7, 8)])
    assert [verdict.tier for verdict in classifier.judge(windowed)] == [Tier.SAFE]


# Calibration, doubt and broken logits


def test_a_temperature_moves_probabilities_and_logits_stay():
    plain = keyword_classifier()
    text = "bread zorblax"
    (before,), (logits,) = plain.classify([text]), plain.logits([text])
    plain.settings = replace(plain.settings, calibration=Calibration(3.0))
    (after,) = plain.classify([text])
    assert before.tiers[Tier.UNSAFE] > after.tiers[Tier.UNSAFE] > 1 / len(TAXONOMY.ids)
    assert (plain.logits([text])[0] == logits).all()
    expected = Calibration(3.0).probabilities(logits)[0]
    assert list(after.categories.values()) == pytest.approx(expected.tolist())


def test_a_text_between_the_budgets_is_unsure_and_keeps_its_tier():
    classifier = keyword_classifier()
    (safe, risky) = classifier.classify(["bread", "bread zorblax"])
    assert safe.sure
    assert risky.sure
    low, high = (1 - verdict.tiers[Tier.SAFE] for verdict in (safe, risky))
    for doubt, expected in (
        (Doubt(low / 2, 0.99), (False, False)),
        (Doubt((low + high) / 2, 0.99), (True, False)),
        (Doubt(low / 2, high), (False, True)),
    ):
        point = OperatingPoint((doubt.safe_below + doubt.risky_from) / 2, 0.5, doubt)
        classifier.settings = replace(classifier.settings, operating_point=point)
        assert tuple(verdict.sure for verdict in classifier.classify(["bread", "bread zorblax"])) == expected
    assert [verdict.tier for verdict in classifier.classify(["bread", "bread zorblax"])] == [safe.tier, risky.tier]


@pytest.mark.parametrize("several", [None, OperatingPoint(0.8, 0.9), OperatingPoint(0.5, 0.9, Doubt(0.2, 0.7))])
def test_calibration_and_doubt_come_back(tmp_path, several):
    point = OperatingPoint(0.3, 0.7, Doubt(0.1, 0.6), several)
    settings = ClassifierSettings("n", "e", "s", "v", 128, 32, point, Calibration(1.25))
    settings.save(tmp_path)
    assert ClassifierSettings.load(tmp_path) == settings


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(value):
    class Broken(KeywordModel):
        def forward(self, input_ids, attention_mask):
            logits = super().forward(input_ids, attention_mask)
            logits[-1, 0] = value
            return logits

    with pytest.raises(ClassifierError, match=r"logits that are no numbers in 1 of 1 windows: .* train or export"):
        keyword_classifier(Broken()).classify(["bread"])
