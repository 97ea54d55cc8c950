import contextlib
import functools
from dataclasses import replace

import pytest
import torch
from transformers import MPNetConfig, MPNetModel

from classifier.encoder import load_encoder
from classifier.network import TierModel
from classifier.types import MINILM
from tests.classifier_cases import SETTINGS, e5_small, minilm
from training.datasets import TrainingError
from training.frozen import FrozenLayers
from training.tiers.train_classifier import lora_config


@functools.cache
def mpnet():
    """A small encoder of MPNet's shape, whose layers give tuples and share a bias of positions."""
    torch.manual_seed(0)
    like = minilm()
    config = MPNetConfig(
        vocab_size=len(like.tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
    )
    model = MPNetModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    return replace(like, name="small mpnet", model=model)


TEXTS = ["a garden", "how do I bake bread in a kettle, and why would I?", "zorblax", "a garden"]


def model_of(encoder, frozen):
    torch.manual_seed(0)
    model = TierModel.untrained(encoder, 3, lora_config(encoder, replace(SETTINGS, frozen=frozen))).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.02)  # an adapter that does something
    return model


@pytest.mark.parametrize(("make", "count"), [(minilm, 1), (minilm, 5), (e5_small, 6), (mpnet, 1), (mpnet, 2)])
def test_the_two_parts_give_what_the_whole_gives(make, count):
    encoder = make()
    model, frozen = model_of(encoder, count), FrozenLayers(encoder, count)
    rows = encoder.tokenize(TEXTS)["input_ids"]
    with torch.no_grad():
        whole = model(**encoder.collate(rows))
        with frozen.apart_from(model):
            parts = [model(**frozen.inputs(rows)) for _ in range(2)]
        again = model(**encoder.collate(rows))
    assert torch.allclose(parts[0], whole, atol=5e-3)
    assert torch.equal(parts[0], parts[1]), "kept states are those that were computed"
    assert torch.equal(again, whole), "the model is as it was"
    assert not torch.allclose(whole[0], whole[1], atol=5e-3)  # negative control


def test_only_the_layers_above_learn_and_they_do():
    encoder, count = minilm(), 4
    model, frozen = model_of(encoder, count), FrozenLayers(encoder, count)
    with frozen.apart_from(model):
        model(**frozen.inputs(encoder.tokenize(TEXTS)["input_ids"])).sum().backward()
    learnt = {name: value for name, value in model.named_parameters() if value.requires_grad}
    layers = {name.split("layer.")[1].split(".")[0] for name in learnt if "lora" in name}
    assert layers == {"4", "5"}
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learnt.values())


def test_the_model_is_whole_again_after_an_error():
    model, frozen = model_of(minilm(), 2), FrozenLayers(minilm(), 2)
    before = list(model.state_dict())
    with contextlib.suppress(KeyboardInterrupt), frozen.apart_from(model):
        assert list(model.state_dict()) != before
        raise KeyboardInterrupt
    assert list(model.state_dict()) == before


def test_states_are_computed_once_and_not_kept_beyond_what_is_allowed(monkeypatch):
    frozen, computed = FrozenLayers(minilm(), 2), []
    compute = frozen._compute
    monkeypatch.setattr(frozen, "_compute", lambda rows: computed.extend(rows) or compute(rows))
    frozen.inputs([[5, 6], [7], [5, 6]])
    frozen.inputs([[7], [5, 6], [8]])
    assert sorted(computed) == [(5, 6), (7,), (8,)]
    monkeypatch.setattr("training.frozen._MOST_KEPT", frozen._kept)
    inputs = frozen.inputs([[9], [5, 6]])
    frozen.inputs([[9]])
    assert computed.count((9,)) == 2
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("count", [6, 7, -1])
def test_some_layer_must_be_left_to_train(count):
    with pytest.raises(TrainingError, match=f"frozen = {count}: .* has 6 layers; leave one or more to train"):
        FrozenLayers(minilm(), count)


def test_an_encoder_of_another_type_is_refused():
    encoder = load_encoder(MINILM)
    encoder.model.config.model_type = "albert"
    with pytest.raises(TrainingError, match=r"is a albert model; layers can be frozen of bert, .*frozen = 0"):
        FrozenLayers(encoder, 2)
