import dataclasses
import shutil

import pytest
import torch

from classifier import encoder as encoder_module
from classifier.types import MINILM, MPNET, TextTooLong
from guard.assemble_classifier import load_classifier
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_answerer, load_knowledge, load_search, load_sentences, load_writer
from guard.choosing import ClassifierSection
from guard.config import Config
from guard.errors import ConfigError
from guard.knowledge import Knowledge
from guard.language import Detector
from rag.schema import find_manifest
from rag.types import KnowledgeError
from tests.classifier_cases import minilm, toy_model
from tests.unit.rag_cases import document


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


# Two encoders of one knowledge base

BOTH = {"encoder": MINILM, "english_encoder": MINILM}


def settings_with(folder, **knowledge):
    return config().model_copy(update={"knowledge": Knowledge(path=folder, **{**BOTH, **knowledge})})


def searched_with(folder, *, anew=False, **knowledge):
    """The encoder that a base in that folder is searched with."""
    settings = settings_with(folder, **knowledge)
    encoders = Encoders(settings)
    return load_search(settings, encoders, load_sentences(settings, encoders), anew=anew)


@pytest.fixture
def bases(tmp_path, loads):
    """A base that was made with one encoder, and one that was made with two."""
    for name, english in (("one", None), ("two", MINILM)):
        with load_writer(
            settings_with(tmp_path / name), searched_with(tmp_path / name, english_encoder=english)
        ) as made:
            made.change(add=[document("bread", "Bread is baked from flour.")])
    return tmp_path


def test_a_base_is_made_with_two_encoders_where_a_second_is_named(bases):
    one, two = (find_manifest(bases / name) for name in ("one", "two"))
    assert (one.dimension, two.dimension) == (384, 384 + 384 + 1)
    assert two.encoder == f"{one.encoder}+{one.encoder}"


@pytest.mark.parametrize(("name", "english"), [("one", None), ("one", "none"), ("two", MINILM), ("two", "none")])
def test_a_base_is_searched_with_what_it_was_made_with(bases, name, english):
    encoder = searched_with(bases / name, english_encoder=english)
    settings = settings_with(bases / name, english_encoder=english)
    (found,) = load_knowledge(settings, encoder).search("What is bread baked from?", 1)
    assert found.passage.document == "bread"


def test_a_second_encoder_for_a_base_that_was_made_without_is_refused_unless_it_is_made_anew(bases):
    with pytest.raises(ConfigError, match=r"english_encoder is 'package:.*but the knowledge base was made without one"):
        searched_with(bases / "one")
    assert searched_with(bases / "one", anew=True).dimension == 769
    assert searched_with(bases / "two", english_encoder=None, anew=True).dimension == 384


@pytest.mark.parametrize(
    ("there", "sha256", "writes"), [(False, "", False), (True, "another", False), (True, "", True)]
)
def test_without_a_setting_the_fetched_encoder_is_used_where_it_is_the_one_of_the_base(
    bases, monkeypatch, there, sha256, writes
):
    made = minilm()
    monkeypatch.setattr("guard.assemble_knowledge.is_there", lambda setting, name: there)
    fetched = dataclasses.replace(made, name=MPNET, sha256=sha256 or made.sha256)
    monkeypatch.setattr(encoder_module, "load_encoder", lambda name: fetched if name == MPNET else made)
    encoder = searched_with(bases / "two", english_encoder=None)
    settings = settings_with(bases / "two", english_encoder=None)
    assert load_knowledge(settings, encoder).search("flour", 1)
    with load_writer(settings, encoder) as writer:
        if writes:
            assert writer.change(add=[document("rye", "Rye bread is dark.")]).added == ("rye",)
        else:
            with pytest.raises(KnowledgeError, match="without which nothing can be added"):
                writer.change(add=[document("rye", "Rye bread is dark.")])


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("What is bread baked from?", True),
        ("xkcd", True),
        ("Woraus wird das Brot in Bayern gebacken?", False),
        ("面包是用什么做的？", False),
        ("ขนมปังทำจากอะไร", False),
        ("", True),
    ],
)
def test_a_question_whose_language_is_not_known_may_be_english(text, english):
    assert Detector(()).is_english(text) is english


@pytest.mark.parametrize("english", [MINILM, "none", None])
def test_a_base_of_two_encoders_answers_with_both_and_with_the_first_alone(bases, english, monkeypatch):
    monkeypatch.setattr("guard.assemble_knowledge.is_there", lambda setting, name: False)
    settings = settings_with(bases / "two", english_encoder=english)
    answer = load_answerer(settings, Encoders(settings)).answer("What is bread baked from?")
    assert answer.answer == "Bread is baked from flour."
    assert not answer.related
