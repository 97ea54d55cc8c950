"""Heads taken out of checkpoints: new weights that compute what the forward mask computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from attribution import surgery, testbed
from attribution.ablate import ablate
from attribution.checkpoint import load
from attribution.heads import all_heads
from attribution.surgery import remove
from attribution.types import Ablation, AttributionError, EngineMismatch, HeadId, UnsupportedModel
from tests.attribution_cases import FAMILIES, MORE, build, prompts, tiny
from training.audit.surgery_cli import remove_heads

pytestmark = pytest.mark.usefixtures("one_thread")

_OUT = [HeadId(0, 1), HeadId(1, 0), HeadId(1, 3)]
_NO_QUERY = {"qwen3", "gemma3"}


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.tensor(prompts(9, 9))).logits
    return found


@pytest.mark.parametrize("method", ["value", "mean", "query"])
@pytest.mark.parametrize("name", FAMILIES)
def test_new_weights_compute_what_the_mask_computes(name: str, method: str) -> None:
    model = tiny(name, torch.float32)
    how = Ablation(method, 0.1)  # type: ignore[arg-type]
    stock = _logits(model)
    if method == "query" and name in _NO_QUERY:
        with pytest.raises(UnsupportedModel, match="weights that all heads share"):
            remove(model, _OUT, how)
        return
    cut = _logits(remove(model, _OUT, how))
    with ablate(model, _OUT, how):
        torch.testing.assert_close(cut, _logits(model), atol=1e-5, rtol=0)
    assert (cut - stock).abs().max() > 1e-3
    assert torch.equal(_logits(model), stock)
    with ablate(model, [HeadId(0, 2)], how):
        assert (cut - _logits(model)).abs().max() > 1e-3  # another head is another model


@pytest.mark.parametrize("method", ["key", "mean_query"])
def test_what_has_no_form_in_weights_is_refused(method: str) -> None:
    with pytest.raises(UnsupportedModel, match="no form in the weights"):
        remove(tiny("llama"), _OUT, Ablation(method))  # type: ignore[arg-type]
    with pytest.raises(AttributionError, match="not in the model"):
        remove(tiny("llama"), [HeadId(5, 0)])


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3"])
def test_queries_that_are_wider_than_a_head_are_refused(name: str) -> None:
    narrow = tiny(name, torch.float32, q_lora_rank=None)  # queries of 16, of which 8 turn; values of 12
    with pytest.raises(UnsupportedModel, match="64 wide, not 4 heads of"):
        remove(narrow, _OUT, Ablation("query", 0.1))
    remove(narrow, _OUT, Ablation("value", 0.1))


def test_a_norm_without_weights_undoes_the_scaling_of_queries() -> None:
    normed = tiny("llama4", torch.float32, use_qk_norm=True, no_rope_layers=[1, 1, 0])
    with pytest.raises(UnsupportedModel, match="norms its queries by no weights"):
        remove(normed, _OUT, Ablation("query", 0.1))
    how, out = Ablation("query", 0.1), [HeadId(2, 1)]  # the layer without positions has no norm
    cut = _logits(remove(normed, out, how))
    with ablate(normed, out, how):
        torch.testing.assert_close(cut, _logits(normed), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["value", "mean", "query"])
def test_a_cut_that_is_not_the_mask_is_an_error(
    monkeypatch: pytest.MonkeyPatch, method: str, dtype: torch.dtype
) -> None:
    how = Ablation(method)  # type: ignore[arg-type]
    model = tiny("llama_biased", dtype)
    remove(model, _OUT, how)
    rows, output = surgery._rows, surgery._output
    monkeypatch.setattr(surgery, "_rows", lambda projection, found: rows(projection, found ^ 8))
    monkeypatch.setattr(
        surgery, "_output", lambda layout, layer, out, how: output(layout, layer, [head ^ 1 for head in out], how)
    )
    with pytest.raises(EngineMismatch, match=r"'llama' without 0\.1 .* remove heads by"):
        remove(model, [HeadId(0, 1)], how)


def test_a_norm_of_a_name_that_is_not_known_is_found_by_what_it_does() -> None:
    hunyuan = build("HunYuanDenseV1", torch.float32, **{**MORE["qwen3_moe"][1], "head_dim": 8})
    with pytest.raises(EngineMismatch, match="'hunyuan_v1_dense'"):
        remove(hunyuan, _OUT, Ablation("query", 0.1))
    remove(hunyuan, _OUT, Ablation("value", 0.1))


@pytest.mark.parametrize("method", ["value", "mean", "query"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "olmo2", "gpt_neox", "granite"])
def test_halves_are_cut_as_well(name: str, dtype: torch.dtype, method: str) -> None:
    model = tiny(name, dtype)
    for out in (_OUT, all_heads(model)):  # without any, attention gives less than float16 can tell
        remove(model, out, Ablation(method))  # type: ignore[arg-type]


def _run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(remove_heads)
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, AttributionError):
        raise done.exception  # the command line prints it as one line
    assert done.exit_code == 0, done.output
    return done.output


def _saved(folder: Path) -> PreTrainedModel:
    """A tiny model in a folder, with a real tokenizer."""
    model = tiny("llama", torch.float32)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(testbed.path() / name, folder)
    return model


def test_the_command_writes_a_checkpoint_that_loads(tmp_path: Path) -> None:
    source, out = tmp_path / "model", tmp_path / "cut"
    model = _saved(source)
    others = ("README.md", "manifest.json", "pytorch_model.bin.index.json", "tf_model.h5.index.json")
    for name in others:
        (source / name).write_text('{"figures": "of the whole model"}')
    (source / "LICENSE").write_text("Apache-2.0")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    _run(str(source), "--heads", "0.1,1.0", "--method", "mean", "--out", str(out))
    with ablate(model, [HeadId(0, 1), HeadId(1, 0)], Ablation("mean")):
        loaded = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
        torch.testing.assert_close(_logits(loaded), _logits(model), atol=1e-5, rtol=0)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert (out / "tokenizer.json").read_bytes() == before["tokenizer.json"]
    assert (out / "LICENSE").read_text() == "Apache-2.0"
    assert not any((out / name).exists() for name in others)
    note = json.loads((out / "surgery.json").read_text())
    assert (note["heads"], note["ablation"]) == (["0.1", "1.0"], "mean")
    assert note["source_sha256"] == load(source).sha256 != load(out).sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "model"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--heads", "one"], "not of the form layer.head"),
        (["--heads", "9.0"], "not in the model"),
        (["--heads", "0.1,1.0,0.1"], "--heads 0.1,1.0,0.1: head 0.1 is there twice; name each head once"),
        (["--heads", "0.0", "--out", "model"], "not empty"),
    ],
)
def test_bad_orders_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _saved(Path("model"))
    with pytest.raises(AttributionError, match=reason):
        _run("model", "--out", "cut", *arguments)
    assert not Path("cut").exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    for folder, reason in (("model", "no \\*.safetensors"), ("nowhere", "not a folder")):
        with pytest.raises(AttributionError, match=reason):
            _run(str(tmp_path / folder), "--out", str(tmp_path / "cut"), "--heads", "0.0")


def test_an_epsilon_of_a_mean_is_refused(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(remove_heads)
    words = ("--heads", "0.0", "--method", "mean", "--epsilon", "0.5", "--out", str(tmp_path / "cut"))
    done = CliRunner().invoke(app, [str(tmp_path), *words])
    assert done.exit_code == 2
    assert "--epsilon needs --method query" in " ".join(done.output.replace("│", " ").split())
