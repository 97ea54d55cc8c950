"""Calibrating a model folder: what is written, what it does to verdicts, and what is refused."""

import json
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from classifier.calibration import Calibration
from classifier.model import TierClassifier
from classifier.settings import ClassifierSettings, Doubt, OperatingPoint
from classifier.types import ClassifierError, Tier
from tests.classifier_cases import TAXONOMY, minilm, toy_entries, toy_model, write_rows
from training.datasets import Row, TrainingError
from training.lineage import lineage
from training.manifest import file_sha256
from training.tiers.calibrate import Wanted, _kept, calibrate, point_of
from training.tiers.calibrate_cli import calibrate as command
from training.tiers.calibration_card import in_words, write_calibration
from training.tiers.conformal import Budget
from training.tiers.model_cli import model as models
from training.tiers.readings import NothingToFitError, Readings
from training.tiers.reliability import calibration_error, calibration_figures

MISS, FLAG = Budget("max-miss", 0.1), Budget("max-false-flag", 0.1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Rows of which one in eight has another label than its words say: no threshold meets two narrow budgets."""
    rng, entries = random.Random(3), toy_entries(60, "train", seed=5)
    for entry in rng.sample(entries, len(entries) // 8):
        entry["category"] = rng.choice(["s_garden", "u_zorblax", "c_flimwick"])
    for number, entry in enumerate(entries):
        entry["lang"] = "en" if number % 2 else "de"
    return write_rows(tmp_path_factory.mktemp("noisy") / "noisy.jsonl", entries)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return tmp_path_factory.mktemp("scores") / "scores.db"


@pytest.fixture
def model(tmp_path):
    shutil.copytree(toy_model(), tmp_path / "model")
    return tmp_path / "model"


def test_both_budgets_hold_with_doubt_between_them_and_the_model_says_so(model, noisy, scores):
    weights = {path.name: file_sha256(path) for path in model.glob("*.safetensors")}
    found = calibrate(model, data=[noisy], wanted=Wanted(MISS, FLAG, by=("language",)), scores=scores)
    assert {path.name: file_sha256(path) for path in model.glob("*.safetensors")} == weights
    settings = ClassifierSettings.load(model)
    assert settings.calibration == Calibration(found["temperature"]) != Calibration()
    doubt = settings.operating_point.doubt
    assert doubt is not None
    assert doubt.safe_below == found["guarantees"]["miss"]["value"]
    assert doubt.risky_from == found["guarantees"]["false_flag"]["value"]
    entries = [json.loads(line) for line in noisy.read_text().splitlines()]
    verdicts = TierClassifier.load(model, minilm()).classify([entry["text"] for entry in entries])
    assert {verdict.sure for verdict in verdicts} == {True, False}
    risky = [TAXONOMY.category(entry["category"]).tier is not Tier.SAFE for entry in entries]
    missed = [v.sure and v.tier is Tier.SAFE for v, wrong in zip(verdicts, risky, strict=True) if wrong]
    flagged = [v.sure and v.tier is not Tier.SAFE for v, wrong in zip(verdicts, risky, strict=True) if not wrong]
    assert np.mean(missed) <= 0.1
    assert np.mean(flagged) <= 0.1
    for verdict in verdicts:
        risk = 1 - verdict.tiers[Tier.SAFE]
        assert verdict.sure is not (doubt.safe_below <= risk < doubt.risky_from)
    groups = {group["group"] for group in found["guarantees"]["miss"]["groups"]}
    assert groups == {"all", "de", "en"}
    assert found["figures"]["after"]["missed"]["value"] <= 0.1


def test_the_manifest_and_the_card_tell_it_and_a_second_time_replaces_it(model, noisy, scores):
    for budget in (MISS, Budget("max-miss", 0.2)):
        calibrate(model, data=[noisy], wanted=Wanted(budget), scores=scores)
        card, manifest = (model / "README.md").read_text(), json.loads((model / "manifest.json").read_text())
        assert card.count("## Calibration") == 1
        assert f"Of risky texts (of any tier but Safe) like these at most {budget.rate:.2%} are judged Safe" in card
        assert "This holds in 95% of draws" in card
        assert "It says Unsafe from" not in card
        assert manifest["calibration"]["guarantees"]["miss"]["rate"] == budget.rate
        assert manifest["operating_point"]["risk"] == ClassifierSettings.load(model).operating_point.risk
    assert manifest["figures_at"] == json.loads((toy_model() / "manifest.json").read_text())["operating_point"]
    assert manifest["calibration"]["data"] == {"noisy.jsonl": file_sha256(noisy)}


@pytest.fixture(scope="module")
def separable(tmp_path_factory):
    """Rows that the toy model tells apart without an error."""
    return write_rows(tmp_path_factory.mktemp("separable") / "separable.jsonl", toy_entries(60, "train", seed=5))


@pytest.mark.parametrize("rows", ["noisy", "separable"])
def test_a_miss_budget_alone_does_not_loosen_a_model(model, scores, rows, request):
    data, wanted = request.getfixturevalue(rows), Wanted(Budget("max-miss", 0.3))
    trained = ClassifierSettings.load(model)
    told = {"several": OperatingPoint(0.2, 0.9)} if rows == "noisy" else {}
    replace(trained, operating_point=OperatingPoint(0.3, 0.6, **told)).save(model)
    found = calibrate(model, data=[data], wanted=wanted, scores=scores)
    point, miss = ClassifierSettings.load(model).operating_point, found["guarantees"]["miss"]
    allowed = min(group["threshold"] for group in miss["groups"])
    assert miss["value"] == point.risk <= 0.3 < allowed
    assert miss["groups"][0]["errors"] <= miss["groups"][0]["allowed"]
    assert found["figures"]["after"]["missed"]["value"] <= 0.3
    said = " ".join(in_words(found))
    assert f"those with a risk below {point.risk:g}. " in said
    assert f"The budget would allow it up to {allowed:g}; it stays where it was in training" in said
    if rows == "noisy":
        assert point.risk < 0.3  # texts of several windows had a lower threshold, and theirs is gone
    else:
        assert point.risk == 0.3


def test_budgets_of_harmless_texts_alone_tighten_no_further_than_training_does(model, separable, scores):
    trained = ClassifierSettings.load(model)
    replace(trained, operating_point=OperatingPoint(0.4, 0.6)).save(model)
    flag, refusal = Budget("max-false-flag", 0.1), Budget("max-false-refusal", 0.1)
    found = calibrate(model, data=[separable], wanted=Wanted(None, flag, refusal), scores=scores)
    point = ClassifierSettings.load(model).operating_point
    assert (point.risk, point.unsafe) == (0.05, 0.05)
    said = " ".join(in_words(found))
    assert said.count("it goes no lower than training goes") == 2
    assert "those with a risk from 0.05 on" in said
    assert found["figures"]["after"]["flagged"]["value"] <= 0.1
    replace(trained, operating_point=OperatingPoint(0.03, 0.6)).save(model)
    (model / "manifest.json").write_text((toy_model() / "manifest.json").read_text())
    calibrate(model, data=[separable], wanted=Wanted(false_flag=flag), scores=scores)
    assert ClassifierSettings.load(model).operating_point.risk == 0.03


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(MISS), Wanted(None, FLAG), Wanted(MISS, FLAG)])
def test_the_same_command_gives_the_same_point_whatever_came_before(model, noisy, scores, wanted):
    trained = ClassifierSettings.load(model).operating_point.as_dict()
    calibrate(model, data=[noisy], wanted=wanted, scores=scores)
    once = (model / "classifier.json").read_bytes()
    calibrate(model, data=[noisy], wanted=wanted, scores=scores)
    assert (model / "classifier.json").read_bytes() == once
    calibrate(model, data=[noisy], wanted=Wanted(Budget("max-miss", 0.3), FLAG), scores=scores)
    calibrate(model, data=[noisy], wanted=wanted, scores=scores)
    assert (model / "classifier.json").read_bytes() == once
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["as_trained"] == {"operating_point": trained, "temperature": 1.0}
    del manifest["as_trained"]  # as an earlier version left it
    (model / "manifest.json").write_text(json.dumps(manifest))
    calibrate(model, data=[noisy], wanted=wanted, scores=scores)
    assert (model / "classifier.json").read_bytes() == once


def test_rows_without_an_error_leave_temperature_and_point_as_trained(model, noisy, separable, scores):
    before = ClassifierSettings.load(model)
    calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    assert ClassifierSettings.load(model).calibration != before.calibration
    found = calibrate(model, data=[separable], wanted=Wanted(), scores=scores)
    after = ClassifierSettings.load(model)
    assert (after.calibration, after.operating_point) == (before.calibration, before.operating_point)
    fitting = found["rows"]["temperature"]
    assert f"Temperature 1, as trained, for all {fitting} rows that would fit it are judged right (all); " in next(
        in_words(found)
    )


def test_a_temperature_at_its_bound_is_no_temperature():
    rng = np.random.default_rng(1)
    logits = [rng.normal(0, 2, (1, len(TAXONOMY.categories))) for _ in range(300)]
    rows = [Row(str(at), TAXONOMY.ids[int(each.argmin())], "train", "") for at, each in enumerate(logits)]
    with pytest.raises(NothingToFitError, match="the fit on 300 rows ends at its bound, 20"):
        Readings(rows, logits, TAXONOMY).temperature()


def test_without_budgets_as_many_rows_are_flagged_and_refused_as_before(model, noisy, scores):
    found = calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    before, after = found["figures"]["before"], found["figures"]["after"]
    assert ClassifierSettings.load(model).operating_point.doubt is None
    assert found["guarantees"] == {}
    for name in ("missed", "flagged", "refused"):
        assert after[name]["value"] == pytest.approx(before[name]["value"], abs=0.03)
    assert after["calibration"]["all"]["log_loss"] < before["calibration"]["all"]["log_loss"]


def test_a_false_flag_budget_alone_is_not_broken_by_the_threshold_of_unsafe(model, noisy, scores):
    found = calibrate(model, data=[noisy], wanted=Wanted(false_flag=FLAG), scores=scores)
    point = ClassifierSettings.load(model).operating_point
    assert point.unsafe >= point.risk == found["guarantees"]["false_flag"]["value"]
    assert found["figures"]["after"]["flagged"]["value"] <= 0.1


def test_training_data_calibrate_by_what_was_held_out_and_are_too_few_here(model):
    rows = toy_model().parent / "rows.jsonl"
    with pytest.raises(TrainingError, match=r"\d+ rows to calibrate on; give at least 250"):
        calibrate(model, data=[rows], wanted=Wanted(), scores=model / "scores.db")
    with pytest.raises(TrainingError, match="its held-out rows calibrate; leave --split out"):
        calibrate(model, data=[rows], wanted=Wanted(), scores=model / "scores.db", split="dev")


def rewritten(model, **told):
    """The model, whose manifest tells other things."""
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | told))


def test_rows_that_a_model_learnt_which_it_goes_back_to_are_refused(model, noisy, scores):
    toy = lineage(toy_model())
    first = {**toy, "name": "first", "data": {"other.jsonl": "ab" * 32, "rows.jsonl": file_sha256(noisy)}}
    for start, teachers in (
        (first, []),
        (None, [toy, first]),
        ({**toy, "start": first}, []),
        ({**toy, "teachers": [first]}, []),
        (None, [{**toy, "start": first}]),
    ):
        rewritten(model, start=start, teachers=teachers)
        with pytest.raises(TrainingError, match=r"noisy\.jsonl: .*model goes back to 'first' .* was trained on it"):
            calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    rewritten(model, start=None, teachers=[first])
    assert lineage(model)["teachers"] == [first]
    assert "teachers" not in toy


def test_what_its_forebears_held_out_too_calibrates(model, scores):
    rows, toy = toy_model().parent / "rows.jsonl", lineage(toy_model())
    rewritten(model, start=toy)
    with pytest.raises(TrainingError, match=r"\d+ rows to calibrate on"):
        calibrate(model, data=[rows], wanted=Wanted(), scores=scores)
    rewritten(model, start={**toy, "settings": {**toy["settings"], "validation": 0.05}})
    with pytest.raises(TrainingError, match=r"rows\.jsonl: .*model goes back to 'toy'"):
        calibrate(model, data=[rows], wanted=Wanted(), scores=scores)


def test_figures_are_told_with_the_point_that_they_are_of(model, noisy, scores):
    def said(*arguments):
        return CliRunner().invoke(models, [*arguments, str(model)]).output

    assert "earlier point" not in said("show") + said("list")
    old = json.loads((model / "manifest.json").read_text())["operating_point"]
    calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    assert f"on dev, at the earlier point: risk {old['risk']}, unsafe {old['unsafe']}\n" in said("show")
    assert " at the earlier point  " in said("list")
    assert json.loads(said("show", "--json"))["figures_at"] == old


def test_what_cannot_be_used_is_refused_and_changes_nothing(model, noisy, scores, tmp_path):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for wanted, message in (
        (Wanted(Budget("max-miss", 0.0001)), r"too few to show it .* give at least \d{5}, or allow 0\.0"),
        (Wanted(false_flag=Budget("max-false-flag", 0.0001)), "--max-false-flag = 0.0001: .* too few"),
    ):
        with pytest.raises(TrainingError, match=message):
            calibrate(model, data=[noisy], wanted=wanted, scores=scores)
    unknown = write_rows(tmp_path / "unknown.jsonl", [{"text": "a", "category": "u_unheard"}])
    with pytest.raises(TrainingError, match="'u_unheard' is not in the taxonomy"):
        calibrate(model, data=[unknown], wanted=Wanted(), scores=scores)
    with pytest.raises(TrainingError, match="no rows of split 'test'; there are: train"):
        calibrate(model, data=[noisy], wanted=Wanted(), scores=scores, split="test")
    with pytest.raises(TrainingError, match="holds no trained model"):
        calibrate(tmp_path, data=[noisy], wanted=Wanted(), scores=scores)
    with pytest.raises(TrainingError, match="--by source"):
        Wanted(by=("source",))
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_logits_are_kept_so_that_a_second_budget_reads_nothing(model, noisy, scores, monkeypatch):
    calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    monkeypatch.setattr("training.tiers.scores.load_classifier", lambda _: pytest.fail("the model was loaded again"))
    calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    assert b"zorblax" not in scores.read_bytes()


@pytest.mark.parametrize("changed", ["adapter_config.json", "READING"])
def test_logits_of_another_model_or_reading_are_not_taken(model, noisy, scores, monkeypatch, changed):
    calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    if changed == "READING":
        monkeypatch.setattr("training.tiers.scores.READING", 0)
    else:
        config = json.loads((model / changed).read_text())
        (model / changed).write_text(json.dumps({**config, "lora_alpha": 4 * config["lora_alpha"]}))
    monkeypatch.setattr("training.tiers.scores.load_classifier", lambda _: pytest.fail("the model was loaded again"))
    with pytest.raises(pytest.fail.Exception, match="loaded again"):
        calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)


@pytest.mark.parametrize("content", [b"no database", None])
def test_scores_that_are_no_database_are_named_and_left_as_they_are(model, noisy, tmp_path, content):
    path = tmp_path / "notes.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = CliRunner().invoke(command, [str(model), "--data", str(noisy), "--scores", str(path)])
    assert done.exit_code == 1
    assert f"airlock: --scores {path}: " in done.output
    assert "name another file" in done.output
    assert content is None or path.read_bytes() == content


def test_what_follows_the_calibration_in_a_card_stays(model, noisy, scores):
    card = model / "README.md"
    calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    once = card.read_text()
    card.write_text(once + "\n## Contact\n\n### Who\n\nUs.\n\n## Licence\n\nMIT\n")
    calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    told = card.read_text()
    assert told.endswith("\n\n## Contact\n\n### Who\n\nUs.\n\n## Licence\n\nMIT\n")
    assert told.count("## Calibration") == 1
    assert told.index("## Calibration") < told.index("## Contact")
    assert told.partition("## Calibration")[0] == once.partition("## Calibration")[0]


def test_the_command_says_what_holds_and_writes_figures_and_diagrams(model, noisy, scores, tmp_path):
    given = [str(model), "--data", str(noisy), "--max-miss", "0.1", "--max-false-flag", "0.1", "--by", "tier"]
    files = ["--scores", str(scores), "--out", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    done = CliRunner().invoke(command, [*given, *files])
    assert done.exit_code == 0, done.output
    assert "at most 10.00% are judged surely Safe" in done.output
    assert "the policy decides what becomes of them" in done.output
    figures = json.loads((tmp_path / "c.json").read_text())
    assert {"conditionally_safe", "focused_attention", "unsafe"} <= {
        group["group"] for group in figures["guarantees"]["miss"]["groups"]
    }
    page = (tmp_path / "c.html").read_text()
    assert page.count("<svg") == len(figures["figures"]["after"]["calibration"])
    assert "calibration error" in page
    wrong = CliRunner().invoke(command, [*given[:3], "--max-miss", "1.5", *files])
    assert wrong.exit_code == 1
    assert "airlock: --max-miss = 1.5: need a share above 0 and below 1" in wrong.output


def test_the_temperature_is_found_again_and_makes_probabilities_honest():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, len(TAXONOMY.categories)))
    honest = Calibration(1.0).probabilities(logits)
    drawn = [rng.choice(len(TAXONOMY.categories), p=row) for row in honest]
    rows = [Row(str(at), TAXONOMY.ids[category], "train", "") for at, category in enumerate(drawn)]
    overconfident = Readings(rows, [row[None] * 2.5 for row in logits], TAXONOMY)
    temperature = overconfident.temperature()
    assert temperature == pytest.approx(2.5, rel=0.1)
    errors = []
    for each in (1.0, temperature):
        _, _, tiers = overconfident.at(Calibration(each)).decided(OperatingPoint())
        errors.append(calibration_error(tiers, overconfident.truth, equal_mass=True))
    assert errors[1] < 0.03 < errors[0]


def test_texts_of_several_windows_go_by_the_riskiest():
    low, high = np.array([0.0, 5, 0, 0, 0]), np.array([5.0, 0, 0, 0, 0])
    readings = Readings([Row("a", "u_zorblax", "train", "")] * 2, [low[None], np.stack([low, high, low])], TAXONOMY)
    found = readings.at(Calibration())
    assert found.risk[0] < 0.1 < 0.9 < found.risk[1]
    assert found.unsafe[1] == found.unsafe.max() > 0.9
    tiers, sure, _ = found.decided(OperatingPoint(0.5, 0.9, Doubt(0.2, 0.8)))
    assert tiers.tolist() == [Tier.SAFE, Tier.UNSAFE]
    assert sure.all()


def test_each_point_is_carried_over_the_rows_that_it_judges():
    rng = np.random.default_rng(4)
    logits = [rng.normal(0, 2, (rng.choice([1, 3]), len(TAXONOMY.categories))) for _ in range(400)]
    readings = Readings([Row(str(at), "u_zorblax", "train", "") for at in range(400)], logits, TAXONOMY)
    before, after = readings.at(Calibration()), readings.at(Calibration(3.0))
    old = OperatingPoint(0.5, 0.3, several=OperatingPoint(0.9, 0.7))
    found = _kept(old, before, after)
    several = np.array([len(each) > 1 for each in logits])
    for judged, was, now in ((~several, old, found), (several, old.several, found.several)):
        assert now != was
        assert (after.risk[judged] >= now.risk).sum() == (before.risk[judged] >= was.risk).sum()
        assert (after.unsafe[judged] >= now.unsafe).sum() == (before.unsafe[judged] >= was.unsafe).sum()


def test_thresholds_of_several_windows_stay_without_budgets_and_go_with_them(model, noisy, scores):
    settings = ClassifierSettings.load(model)
    point = replace(settings.operating_point, several=OperatingPoint(0.73, 0.76))
    replace(settings, operating_point=point).save(model)
    found = calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    several = ClassifierSettings.load(model).operating_point.several
    assert several is not None
    told = f"Of a text of several windows: Unsafe from a probability of {several.unsafe:g} on, else not Safe from a"
    assert any(told in sentence for sentence in in_words(found))
    assert told in (model / "README.md").read_text()
    found = calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    assert ClassifierSettings.load(model).operating_point.several is None
    told = f"thresholds of their own (Unsafe from {several.unsafe:g} on, else not Safe from {several.risk:g} on)"
    assert any(told in sentence and "these are gone" in sentence for sentence in in_words(found))
    found = calibrate(model, data=[noisy], wanted=Wanted(MISS), scores=scores)
    assert not any("several windows" in sentence for sentence in in_words(found))


def test_a_point_without_a_gap_between_the_budgets_has_no_doubt():
    kept = OperatingPoint(0.57, 0.7)
    assert point_of({}, kept) == kept


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_a_number_above_nought(temperature):
    with pytest.raises(ClassifierError, match="temperature"):
        Calibration(temperature)


@pytest.mark.parametrize(("low", "high", "risk"), [(0.0, 0.5, 0.3), (0.5, 0.5, 0.5), (0.2, 1.1, 0.5), (0.2, 0.4, 0.5)])
def test_a_doubt_lies_around_the_threshold(low, high, risk):
    with pytest.raises(ClassifierError, match="doubt"):
        OperatingPoint(risk, 0.5, Doubt(low, high))


def test_a_page_needs_no_network(model, noisy, scores, tmp_path):
    found = calibrate(model, data=[noisy], wanted=Wanted(), scores=scores)
    write_calibration(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text()
    assert "http" not in page.replace("http-equiv", "")


def test_calibration_of_all_rows_is_of_all_rows_whatever_their_languages_are_called():
    generator = np.random.default_rng(0)
    tiers, truth = generator.dirichlet(np.ones(4), 300), generator.integers(0, 4, 300)
    languages = ["all"] * 120 + ["de"] * 130 + ["fr"] * 50
    found = calibration_figures(tiers, truth, languages, seed=0)
    assert {name: figures["rows"] for name, figures in found.items()} == {"all": 300, "de": 130}
    told = calibration_figures(tiers, truth, ["en"] * 120 + languages[120:], seed=0)
    assert {name: figures["rows"] for name, figures in told.items()} == {"all": 300, "de": 130, "en": 120}
    assert (found["all"], found["de"]) == (told["all"], told["de"])
