import dataclasses
import shutil

import pytest
import torch

from classifier import encoder as encoder_module
from classifier.types import MINILM, TextTooLong
from guard.assemble_classifier import Encoders, load_classifier
from guard.assemble_knowledge import load_sentences
from guard.config import ClassifierSection, Config, Knowledge
from guard.errors import ConfigError
from tests.classifier_cases import minilm, toy_model


@pytest.fixture
def loads(monkeypatch):
    """Names of the encoders that were loaded, in order; each is MiniLM under its own name."""
    found = []

    def load(name):
        found.append(name)
        return dataclasses.replace(minilm(), name=name)

    monkeypatch.setattr(encoder_module, "load_encoder", load)
    return found


def config(**classifier):
    return Config(classifier=ClassifierSection(model=toy_model(), **classifier))


def test_by_default_the_classifier_sits_on_the_encoder_that_its_folder_names(loads):
    assert Config().classifier.encoder is None
    classifier = load_classifier(config(), Encoders(config()))
    assert loads == [MINILM]
    assert classifier.classify(["zorblax zorblax zorblax"])[0].category == "u_zorblax"


def test_parts_that_name_the_same_encoder_share_it(loads):
    settings = config().model_copy(update={"knowledge": Knowledge(encoder=MINILM)})
    encoders = Encoders(settings)
    classifier = load_classifier(settings, encoders)
    sentences = load_sentences(settings, encoders)
    load_sentences(settings, encoders)
    assert loads == [MINILM]
    weights = {value.data_ptr() for value in minilm().model.parameters()}
    assert weights & {value.data_ptr() for value in classifier.runtime.model.parameters()}
    assert sentences.encode(["bread"]).shape == (1, 384)


def test_the_two_parts_may_have_an_encoder_each(loads):
    settings = Config(
        classifier=ClassifierSection(model=toy_model(), encoder="one"), knowledge=Knowledge(encoder="two")
    )
    encoders = Encoders(settings)
    load_classifier(settings, encoders)
    assert encoders.get("any", "two").name == "two"
    assert encoders.get("any", "one") is encoders.get("any", "one")
    assert loads == ["one", "two"]


def test_threads_are_those_of_the_configuration(loads):
    try:
        Encoders(config(threads=2)).get("any", "one")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["package:no_such_package/model", "/no/such/folder", "/no/such/file.bin"])
def test_an_encoder_that_cannot_be_loaded_is_named_with_its_setting(name):
    settings = Config(classifier=ClassifierSection(model=toy_model(), encoder=name), knowledge=Knowledge(encoder=name))
    with pytest.raises(ConfigError, match=rf"^classifier\.encoder: encoder '{name}'"):
        load_classifier(settings, Encoders(settings))
    with pytest.raises(ConfigError, match=rf"^knowledge\.encoder: encoder '{name}'"):
        load_sentences(settings, Encoders(settings))


def test_a_model_that_cannot_be_loaded_is_named_with_its_setting(tmp_path, loads):
    settings = Config(classifier=ClassifierSection(model=tmp_path))
    with pytest.raises(ConfigError, match=rf"^classifier\.model: classifier model {tmp_path} has no classifier\.json"):
        load_classifier(settings, Encoders(settings))
    shutil.copytree(toy_model(), tmp_path, dirs_exist_ok=True)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"^classifier\.model: .*damaged or incomplete"):
        load_classifier(settings, Encoders(settings))


def test_a_model_of_another_encoder_is_refused(monkeypatch):
    other = dataclasses.replace(minilm(), name="other", sha256="0" * 64)
    monkeypatch.setattr(encoder_module, "load_encoder", lambda _: other)
    with pytest.raises(
        ConfigError, match=r"was trained on encoder 'package:gt_all.*, not on 'other'.*`classifier\.encoder`"
    ):
        load_classifier(config(encoder="other"), Encoders(config()))


def test_only_a_limited_classifier_has_a_longest_text(loads):
    settings = config(max_tokens=3)
    long = "bread oven knife butter spoon " * 9
    with pytest.raises(TextTooLong, match=r"`classifier\.max_tokens` = 3"):
        load_classifier(settings, Encoders(settings)).classify([long])
    assert load_classifier(settings, Encoders(settings), limited=False).classify([long])[0].coverage.tokens >= 45
