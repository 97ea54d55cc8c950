"""Several classifiers on one encoder: which one judges a request, and what is refused at the start."""

import asyncio
import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from classifier import encoder as encoder_module
from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_MODEL, Category, Taxonomy
from classifier.types import Handling, Tier
from guard.assemble_classifier import (
    load_classifier,
    load_other,
    load_taxonomy,
    load_torch_classifier,
    model_folders,
)
from guard.assemble_encoders import Encoders
from guard.choosing import Choice, Concerns, OtherClassifier, Taxonomies, first_of
from guard.cli import app
from guard.cli.policy import run as policy_test
from guard.config import Config, load_config
from guard.edition import check_categories
from guard.errors import BadRequest, ConfigError
from guard.output import Output
from guard.types import Origin, Route, Turn
from tests.classifier_cases import TAXONOMY, minilm, toy_model
from tests.doubles import WordClassifier, make_guard, raises, verdict


class Says:
    """One verdict for everything."""

    def __init__(self, found):
        self.found = found
        self.asked = []

    def classify(self, texts):
        self.asked += texts
        return [self.found] * len(texts)


def guard_with(*others, **parts):
    choices = tuple(
        Choice(Concerns(**when).rule(), classifier, TAXONOMY) for number, (when, classifier) in enumerate(others)
    )
    return make_guard(others=choices, **parts)


def route(guard, origin, text="hello"):
    return asyncio.run(guard.decide([Turn("user", text)], origin)).route


def test_the_first_classifier_that_a_request_concerns_judges_it():
    unsafe, safe = Says(verdict(Tier.UNSAFE)), Says(verdict())
    guard = guard_with(({"tenant": "bank-*"}, unsafe), ({"tenant": "bank-a", "model": "gpt-*"}, safe))
    assert route(guard, Origin("bank-a", "gpt-4")) is Route.REFUSE
    assert route(guard, Origin("shop", "gpt-4")) is Route.FORWARD
    assert route(guard, Origin(None, "gpt-4")) is Route.FORWARD, "nobody is no tenant"
    assert route(guard, Origin("shop", "gpt-4"), "a bomb") is Route.REFUSE, "`classifier` judges the others"
    assert unsafe.asked == ["hello"]
    assert safe.asked == []


def test_only_verdicts_of_the_classifier_that_can_explain_are_explained():
    class Because:
        def explain(self, text):
            return f"because of {text}"

    guard = guard_with(({"tenant": "bank-*"}, Says(verdict(Tier.UNSAFE))), explainer=Because())

    async def why(tenant):
        turns = [Turn("user", "hello")]
        return await guard.explain(turns, await guard.decide(turns, Origin(tenant)))

    assert asyncio.run(why("shop")) == "because of hello"
    with pytest.raises(BadRequest, match="one of `classifiers` judged this request"):
        asyncio.run(why("bank-a"))


def test_requests_that_wait_together_each_keep_their_classifier():
    unsafe = Says(verdict(Tier.UNSAFE))
    guard = guard_with(({"tenant": "bank"}, unsafe), ({"endpoint": "embeddings"}, Says(verdict())))

    async def both():
        origins = [Origin("bank"), Origin("shop"), Origin("shop", endpoint="embeddings")] * 8
        return await asyncio.gather(*(guard.decide([Turn("user", f"text {n}")], o) for n, o in enumerate(origins)))

    routes = [decision.route for decision in asyncio.run(both())]
    assert routes == [Route.REFUSE, Route.FORWARD, Route.FORWARD] * 8
    assert len(unsafe.asked) == 8


def test_a_further_classifier_that_fails_refuses_its_requests_only():
    class Broken:
        classify = raises(RuntimeError("secret prompt"))

    guard = guard_with(({"tenant": "bank"}, Broken()))
    decision = asyncio.run(guard.decide([Turn("user", "hello")], Origin("bank")))
    assert (decision.route, decision.rule) == (Route.REFUSE, "on_error")
    assert "secret" not in decision.cause
    assert route(guard, Origin("shop")) is Route.FORWARD


def test_rules_may_name_the_categories_of_every_classifier():
    both = Taxonomies((TAXONOMY, TAXONOMY))
    assert both.ids == TAXONOMY.ids
    assert len(both.categories) == 2 * len(TAXONOMY.categories)
    settings = load_config(None, {"output.classifier": False})
    rule = {"name": "r", "when": {"category": ["u_zorblax"]}, "route": "refuse"}
    named = Config.model_validate({**settings.model_dump(), "policy": {"rules": [rule]}})
    check_categories(named, both)
    rule["when"]["category"] = ["u_nothing"]
    with pytest.raises(ConfigError, match="u_nothing"):
        check_categories(Config.model_validate({**settings.model_dump(), "policy": {"rules": [rule]}}), both)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"a": {"model": "m"}}, "when"),
        ({"a": {"model": "m", "when": {}}}, "need a tenant, a model or an endpoint"),
        ({"a": {"model": "m", "when": {"tennant": "x"}}}, "tennant"),
        ({"a": {"model": "m", "when": {"endpoint": "chatt"}}}, "chatt"),
        ({"a": {"when": {"tenant": "x"}}}, "model"),
        ({"": {"model": "m", "when": {"tenant": "x"}}}, "classifiers"),
    ],
)
def test_what_is_wrong_with_the_section_is_named(tmp_path, section, words):
    (tmp_path / "airlock.yaml").write_text(yaml.safe_dump({"classifiers": section}))
    with pytest.raises(ConfigError, match=words):
        load_config(tmp_path / "airlock.yaml")


def test_without_a_classifier_there_are_no_further_ones():
    with pytest.raises(ValueError, match=r"classifiers\.a is set and classifier\.kind is 'none'"):
        Config.model_validate(
            {
                "classifier": {"kind": "none"},
                "output": {"classifier": False},
                "classifiers": {"a": {"model": "m", "when": {"tenant": "x"}}},
            }
        )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A configuration with `classifier` and a further one beside it, and the encoders that get loaded."""
    loaded = []

    def load(name):
        loaded.append(name)
        return minilm()

    monkeypatch.setattr(encoder_module, "load_encoder", load)
    shutil.copytree(toy_model(), tmp_path / "bank")
    data = {
        "classifier": {"model": str(toy_model())},
        "classifiers": {"bank": {"model": "bank", "when": {"tenant": "bank"}}},
    }
    (tmp_path / "airlock.yaml").write_text(yaml.safe_dump(data))
    return tmp_path, loaded


def test_a_model_of_other_categories_needs_no_word_on_those_of_the_shipped_one(folders):
    settings = load_config(folders[0] / "airlock.yaml")
    check_categories(settings, load_taxonomy(settings))
    asked = settings.model_copy(update={"output": Output(input_only=("u_jailbreak",))})
    with pytest.raises(ConfigError, match=r"output\.input_only names the category 'u_jailbreak'"):
        check_categories(asked, load_taxonomy(asked))


def test_models_on_one_encoder_share_its_weights_in_memory(folders):
    folder, loaded = folders
    settings = load_config(folder / "airlock.yaml")
    assert settings.classifiers["bank"] == OtherClassifier(model=folder / "bank", when=Concerns(tenant=("bank",)))
    encoders = Encoders(settings)
    models = [load_classifier(settings, encoders), load_other(settings, "bank", encoders)]
    assert len(loaded) == 1
    sizes = {value.data_ptr(): value.nbytes for value in minilm().model.parameters()}
    for model in models:
        own = sum(value.nbytes for value in model.runtime.model.parameters() if value.data_ptr() not in sizes)
        assert own < sum(sizes.values()) / 20
        assert model.classify(["zorblax zorblax zorblax"])[0].category == "u_zorblax"
    assert isinstance(load_taxonomy(settings), Taxonomies)


def test_a_model_that_is_missing_or_of_another_encoder_is_named_at_the_start(folders):
    folder, _ = folders
    settings = load_config(folder / "airlock.yaml")
    described = json.loads((folder / "bank" / "classifier.json").read_text())
    (folder / "bank" / "classifier.json").write_text(json.dumps({**described, "encoder_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match=r"classifiers\.bank\.model: .*was trained on encoder"):
        load_other(settings, "bank", Encoders(settings))
    shutil.rmtree(folder / "bank")
    with pytest.raises(ConfigError, match=r"classifiers\.bank\.model: .*bank has no classifier\.json"):
        load_other(settings, "bank", Encoders(settings))
    with pytest.raises(ConfigError, match=r"classifiers\.bank\.model: .*does not exist"):
        load_taxonomy(settings)


def test_a_further_model_is_served_on_an_encoder_that_lies_elsewhere(folders):
    folder, loaded = folders
    data = yaml.safe_load((folder / "airlock.yaml").read_text())
    data["classifiers"]["bank"]["encoder"] = "encoders/here"
    (folder / "airlock.yaml").write_text(yaml.safe_dump(data))
    settings = load_config(folder / "airlock.yaml")
    assert load_other(settings, "bank", Encoders(settings)).classify(["zorblax zorblax"])[0].category == "u_zorblax"
    load_torch_classifier(settings, other="bank")
    assert loaded == [str(folder / "encoders" / "here")] * 2, "counted from the configuration's folder"


def test_an_encoder_of_a_further_model_that_is_not_there_is_named_by_its_setting(tmp_path):
    bank = {"model": str(toy_model()), "encoder": "/nowhere", "when": {"tenant": "bank"}}
    settings = load_config(None, {"classifiers": {"bank": bank}})
    with pytest.raises(ConfigError, match=r"classifiers\.bank\.encoder: encoder '/nowhere': .*does not exist"):
        load_other(settings, "bank", Encoders(settings))


def test_cases_of_a_policy_are_judged_by_the_classifier_that_they_concern(folders, capsys):
    folder, loaded = folders
    described = ClassifierSettings.load(folder / "bank")
    (folder / "bank" / "classifier.json").write_text(
        json.dumps({**json.loads((folder / "bank" / "classifier.json").read_text()), "name": "other"})
    )
    assert described.name == "toy"
    cases = [
        {"text": "zorblax zorblax zorblax", "tenant": "bank", "expect": {"route": "refuse"}},
        {"text": "zorblax zorblax zorblax", "expect": {"route": "refuse"}},
    ]
    (folder / "cases.yaml").write_text(yaml.safe_dump({"cases": cases}))
    policy_test(folder / "cases.yaml", folder / "airlock.yaml", as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["passed"], said["failed"]) == (2, 0)
    assert len(loaded) == 1


def test_the_shipped_model_may_judge_beside_another_or_be_named_as_the_default(tmp_path):
    (tmp_path / "own").mkdir()
    TAXONOMY.save(tmp_path / "own" / "taxonomy.yaml")
    bank = {"model": "shipped", "when": {"tenant": "bank"}}
    (tmp_path / "airlock.yaml").write_text(
        yaml.safe_dump({"classifier": {"model": "own"}, "classifiers": {"bank": bank}})
    )
    settings = load_config(tmp_path / "airlock.yaml")
    assert load_taxonomy(settings).of == (TAXONOMY, load_taxonomy(Config()))
    beside = load_config(None, {"classifiers": {"bank": bank}, "classifier.languages": {}})
    assert model_folders(beside) == [SHIPPED_MODEL, SHIPPED_MODEL]
    assert Config.model_validate({"classifier": {"model": "shipped"}}) == Config(), "with its model for English"


def test_a_case_of_a_policy_means_the_category_of_the_classifier_that_it_concerns(tmp_path, capsys):
    zorblax = Category("u_zorblax", Tier.CONDITIONALLY_SAFE, "Zorblax, the medicine.", Handling.GROUND)
    for name, taxonomy in (("own", TAXONOMY), ("bank", Taxonomy("bank", (zorblax,)))):
        (tmp_path / name).mkdir()
        taxonomy.save(tmp_path / name / "taxonomy.yaml")
    bank = {"model": "bank", "when": {"tenant": "bank"}}
    (tmp_path / "airlock.yaml").write_text(
        yaml.safe_dump({"classifier": {"model": "own"}, "classifiers": {"bank": bank}})
    )
    cases = [
        {"category": "u_zorblax", "tier": "unsafe", "expect": {"route": "refuse"}},
        {"category": "u_zorblax", "tier": "conditionally_safe", "tenant": "bank", "expect": {"route": "ground"}},
        {"category": "u_zorblax", "tenant": "bank", "expect": {"route": "ground"}},
    ]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"cases": cases}))
    policy_test(tmp_path / "cases.yaml", tmp_path / "airlock.yaml", as_json=True)
    assert json.loads(capsys.readouterr().out)["failed"] == 0


def test_a_further_classifier_is_asked_by_its_name_for_texts_of_any_length(folders):
    folder, _ = folders
    described = json.loads((folder / "bank" / "classifier.json").read_text())
    (folder / "bank" / "classifier.json").write_text(json.dumps({**described, "name": "other"}))
    data = yaml.safe_load((folder / "airlock.yaml").read_text())
    data["classifier"]["max_tokens"] = 4
    (folder / "airlock.yaml").write_text(yaml.safe_dump(data))

    def classify(*options):
        asked = ["classify", "zorblax " * 20, "-c", str(folder / "airlock.yaml"), "--json", *options]
        done = CliRunner().invoke(app, asked)
        return json.loads(done.stdout)["model"].split("@")[0] if done.exit_code == 0 else str(done.exception)

    assert (classify(), classify("--classifier", "bank")) == ("toy", "other")
    assert classify("--classifier", "banc") == "--classifier banc: `classifiers` has: bank"


def test_choices_are_asked_in_order():
    rules = [Concerns(tenant=("a",)).rule(), Concerns(model=("m*",)).rule()]
    assert first_of(rules, Origin("a", "m1")) == 0
    assert first_of(rules, Origin("b", "M1")) == 1
    assert first_of(rules, Origin("b", "x")) is None
    assert first_of([], Origin("a")) is None


def test_the_words_of_a_further_taxonomy_have_their_handling():
    guard = guard_with(
        ({"tenant": "bank"}, Says(verdict(Tier.FOCUSED_ATTENTION, "f_mental_health", Handling.SUPPORT))),
        classifier=WordClassifier(),
    )
    assert route(guard, Origin("bank")) is Route.HAND_OVER
