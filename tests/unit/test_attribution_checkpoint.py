"""Loading what is to be audited: whatever is wrong with a folder is one line that names it and the way out."""

import contextlib
import json
import shutil

import pytest
import torch
from audit_cases import tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, BertModel

from attribution.checkpoint import load
from attribution.types import CheckpointError
from attribution.weights import weights_sha256


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def settings(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder, *words, **options):
    """The message, having checked that it is one line, names the folder or setting, and holds the words."""
    with pytest.raises(CheckpointError) as caught:
        load(folder, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 700
    for word in words:
        assert word in said, said
    return said


def test_a_model_is_loaded_ready_to_be_audited(folder):
    found = load(folder)
    stock = AutoModelForCausalLM.from_pretrained(folder)
    assert not found.model.training
    assert not any(weight.requires_grad for weight in found.model.parameters())
    ids = torch.tensor([[0, 9, 8]])
    with torch.no_grad():
        assert torch.equal(found.model(ids).logits, stock(ids).logits)
    assert found.tokenizer.decode(found.tokenizer("ab", add_special_tokens=False)["input_ids"]) == "ab"
    assert found.sha256 == weights_sha256([folder / "model.safetensors"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_weights_are_in_the_asked_dtype(folder, dtype):
    assert {weight.dtype for weight in load(folder, dtype=dtype).model.parameters()} == {getattr(torch, dtype)}


def test_the_hash_is_of_names_and_bytes_of_weights(folder):
    before = load(folder).sha256
    settings(folder, note="x")
    assert load(folder).sha256 == before
    weights(folder, lambda tensors: tensors["model.norm.weight"].mul_(1.0001))
    assert load(folder).sha256 != before
    renamed = shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    assert weights_sha256([renamed]) != weights_sha256([folder / "model.safetensors"])


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nothing", "nothing is not a folder", "save_pretrained")


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "model.gguf", "is not a folder")


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()
    refused(folder, "no config.json", "no model")


def test_an_adapter_is_named_as_such(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    refused(folder, "an adapter", "merge it into its base")


def test_an_adapter_beside_the_model_would_be_applied_unseen(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(folder, "adapter_config.json", "merge it into its base first, or remove it")


def test_weights_that_the_config_names_would_be_loaded_unseen(folder):
    settings(folder, transformers_weights=None)
    load(folder)
    settings(folder, transformers_weights="other/model.safetensors")
    refused(folder, "transformers_weights = 'other/model.safetensors'", "save the model anew without it")


@pytest.mark.parametrize("content", ["{", "[]", '"x"', "", "[" * 100_000, "\udcff"])
def test_a_config_that_is_none(folder, content):
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    said = refused(folder, "config.json")
    assert "code of its own" not in said


def test_an_unknown_family(folder):
    settings(folder, model_type="gloopy", architectures=["GloopyForCausalLM"])
    refused(folder, "'gloopy'", "causal language model")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.pkl", "last.ckpt"])
def test_a_pickle_is_not_opened(folder, name, monkeypatch):
    (folder / "model.safetensors").rename(folder / name)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    refused(folder, name, "a pickle", "convert it to safetensors")


def test_a_pickle_beside_safetensors_is_left_alone(folder, monkeypatch):
    (folder / "pytorch_model.bin").write_bytes(b"rubbish")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    load(folder)


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no *.safetensors")


def test_a_model_of_texts_and_images_is_told_how_to_be_audited(folder):
    settings(folder, architectures=["Gemma3ForConditionalGeneration"], text_config={})
    refused(folder, "is a Gemma3ForConditionalGeneration, not a causal language model alone; save its language model")


def test_a_model_that_encodes_and_decodes_has_no_language_model_to_be_saved(folder):
    settings(folder, architectures=["T5ForConditionalGeneration"])
    refused(folder, "is a T5ForConditionalGeneration, not a causal language model, and writes no text")


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
@pytest.mark.parametrize("architectures", ["own", None, ["BertLMHeadModel"]])
def test_an_encoder_is_refused(tmp_path, kind, architectures):
    """Also one that does not say what it is, or calls itself a language model: its attention looks ahead."""
    config = BertConfig(
        vocab_size=263, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    kind(config).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    if architectures != "own":
        settings(tmp_path / "bert", architectures=architectures)
    refused(tmp_path / "bert", "causal language model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite(folder, value):
    weights(folder, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"][3].fill_(value))
    refused(folder, "model.layers.1.mlp.up_proj.weight", "NaN or infinity", "nothing is computed")


def test_a_weight_that_is_not_finite_in_half_precision(folder):
    weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(1e30))
    load(folder)
    refused(folder, "model.norm.weight", "float16", dtype="float16")


def test_missing_weights_would_be_random(folder):
    weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1.self_attn" in name])
    refused(folder, "lacks 4 weights", "model.layers.1.self_attn.k_proj.weight", "random")


def test_weights_of_another_shape(folder):
    weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))
    refused(folder, "cannot be loaded")


@pytest.mark.parametrize("left", [0, 4, 100, -1000])
def test_truncated_safetensors(folder, left):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    refused(folder, "model", "cannot be loaded")


def test_a_shard_that_was_not_downloaded(folder):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    mapped = {name: f"model-0000{1 + (at > 5)}-of-00002.safetensors" for at, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    refused(folder, "cannot be loaded")


def shard(folder, shards=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
    """The weights in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    mapped = {name: shards[at % 2] for at, name in enumerate(sorted(tensors))}
    for file in shards:
        save_file({name: tensors[name] for name in tensors if mapped[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def test_weights_in_shards_are_loaded(folder):
    whole = load(folder).model.state_dict()
    shard(folder)
    assert all(torch.equal(value, whole[name]) for name, value in load(folder).model.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "model-00003-of-00003.safetensors", "adapter_model.safetensors"])
def test_weights_that_the_index_does_not_name_are_refused(folder, name):
    """Stock loading takes model.safetensors where both are there."""
    content = (folder / "model.safetensors").read_bytes()
    shard(folder)
    (folder / name).write_bytes(content)
    refused(folder, f"has weights in {name} beside those of model.safetensors.index.json", f"remove {name}")
    (folder / name).unlink()
    load(folder)


def test_weights_beside_the_only_file_are_refused(folder):
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    refused(folder, "consolidated.safetensors beside those of model.safetensors", "remove consolidated.safetensors")


@pytest.mark.parametrize("place", ["sub/", "../", "/tmp/"])
def test_an_index_that_names_files_elsewhere_is_refused(folder, place):
    shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", f"{place}model-00002"))
    refused(folder, f"names '{place}model-00002-of-00002.safetensors'", "not in the folder itself")


def test_code_of_its_own_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    settings(folder, auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"})
    refused(folder, "code of its own", "not run")


def test_a_tokenizer_with_code_of_its_own_is_not_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    file = folder / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    with contextlib.suppress(CheckpointError):
        load(folder)  # with what tokenizer.json says, or not at all


@pytest.mark.parametrize("dtype", ["int8", "float33", ""])
def test_an_unknown_dtype(folder, dtype):
    refused(folder, repr(dtype), "float32, bfloat16", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "", "cpu:x"])
def test_a_device_that_is_not_there(folder, device):
    refused(folder, f"device {device!r}", "cpu always can", device=device)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
)
def test_out_of_memory(folder, error, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    refused(folder, "does not fit", "float32", "smaller dtype")


def test_no_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    refused(folder, "tokenizer cannot be loaded; copy tokenizer.json")


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(folder, "tokenizer cannot be loaded")
