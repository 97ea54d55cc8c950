"""Heads of families that compute attention in their own way, against copies whose weights were edited by hand."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attribution.ablate import ablate, way
from attribution.brute import BruteForce, exact_or_slow
from attribution.engine import Engine
from attribution.heads import all_heads
from attribution.probe import probe
from attribution.selfcheck import check
from attribution.ships import ships
from attribution.types import Ablation, AttributionError, EngineMismatch, HeadId, UnsupportedModel
from tests.attribution_cases import HOOKED, build, each, prompts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

# By family: the layers, in a layer the query projection and W_o, and where the query of head i begins, by hand from
# the modeling code of each.
_D = 8
_PLACES: dict[str, tuple[str, str, str, Any]] = {
    "biogpt": ("biogpt.layers", "self_attn.q_proj", "self_attn.out_proj", lambda i: i * _D),
    "bloom": ("transformer.h", "self_attention.query_key_value", "self_attention.dense", lambda i: i * 3 * _D),
    "codegen": ("transformer.h", "attn.qkv_proj", "attn.out_proj", lambda i: (i // 2) * 6 * _D + (i % 2) * _D),
    "falcon": ("transformer.h", "self_attention.query_key_value", "self_attention.dense", lambda i: i * _D),
    "falcon_alibi": ("transformer.h", "self_attention.query_key_value", "self_attention.dense", lambda i: i * 3 * _D),
    "falcon_grouped": (
        "transformer.h",
        "self_attention.query_key_value",
        "self_attention.dense",
        lambda i: (i // 2) * 4 * _D + (i % 2) * _D,
    ),
    "gpt_neo": ("transformer.h", "attn.attention.q_proj", "attn.attention.out_proj", lambda i: i * _D),
    "gpt_neox_japanese": (
        "gpt_neox_japanese.layers",
        "attention.query_key_value",
        "attention.dense",
        lambda i: i * 3 * _D,
    ),
    "gpt_oss": ("model.layers", "self_attn.q_proj", "self_attn.o_proj", lambda i: i * _D),
    "gptj": ("transformer.h", "attn.q_proj", "attn.out_proj", lambda i: i * _D),
    "mpt": ("transformer.blocks", "attn.Wqkv", "attn.out_proj", lambda i: i * _D),
    "stablelm": ("model.layers", "self_attn.q_proj", "self_attn.o_proj", lambda i: i * _D),
    "xglm": ("model.layers", "self_attn.q_proj", "self_attn.out_proj", lambda i: i * _D),
}
_WAYS = [Ablation("query"), Ablation("key", 0.3), Ablation("value", 0.2), Ablation("mean"), Ablation("mean_query")]
_OUT = [HeadId(0, 3), HeadId(1, 2), HeadId(2, 0)]


def _projections(model: PreTrainedModel, name: str, layer: int) -> tuple[nn.Linear, nn.Linear, list[int]]:
    layers, query, output, begins = _PLACES[name]
    holder = model.get_submodule(f"{layers}.{layer}")
    heads = model.config.num_attention_heads
    linear, out = holder.get_submodule(query), holder.get_submodule(output)
    assert isinstance(linear, nn.Linear)
    assert isinstance(out, nn.Linear)
    return linear, out, [begins(head) for head in range(heads)]


def _edited(model: PreTrainedModel, name: str, heads: list[HeadId], how: Ablation) -> PreTrainedModel:
    """A copy whose weights are those of a model without the heads; one head a layer."""
    edited = copy.deepcopy(model)
    for layer, head in heads:
        query, output, begins = _projections(edited, name, layer)
        with torch.no_grad():
            for values in (query.weight, *(() if query.bias is None else (query.bias,))):
                mine = slice(begins[head], begins[head] + _D)
                if how.method in ("query", "key"):
                    values[mine] *= how.epsilon
                elif how.method == "mean_query":
                    values[mine] = torch.stack([values[at : at + _D] for at in begins]).mean(0)
            columns = output.weight.view(output.out_features, len(begins), _D)
            if how.method == "value":
                columns[:, head] *= how.epsilon
            elif how.method == "mean":
                shared = columns[:, head] / len(begins)
                columns[:, head] = 0.0
                columns += shared[:, None]
    return edited


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: list[list[int]]) -> Tensor:
    found: Tensor = model(torch.tensor(ids)).logits
    return found


@pytest.mark.parametrize("name", HOOKED)
def test_a_head_out_is_a_model_whose_weights_are_without_it(name: str) -> None:
    model, ids = tiny(name, torch.float32), prompts(11, 11)
    stock = _logits(model, ids)
    by = way(model)
    assert by.projections is not None
    with ablate(model, [], by=by):
        assert torch.equal(_logits(model, ids), stock)
    for how in _WAYS:
        with ablate(model, _OUT, how, by=by):
            found = _logits(model, ids)
        expected = _logits(_edited(model, name, _OUT, how), ids)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert (found - stock).abs().max() > 1e-2, str(how)
    assert torch.equal(_logits(model, ids), stock)


@pytest.mark.parametrize("name", HOOKED)
def test_the_slow_way_is_taken_and_passes_the_checks(name: str) -> None:
    model, ids, told = tiny(name, torch.float32), prompts(9, 5), []
    runner = exact_or_slow(model, told=told.append)
    assert isinstance(runner, BruteForce)
    assert "the slow way" in told[0]
    for how in (Ablation("query"), Ablation("value")):
        found = check(runner, ids, how)
        assert max(found.base_difference, found.leak, found.head_difference) <= 1e-4
        assert found.effect > 1e-3
    (batch,) = runner.without_each(ids[:1], Ablation("value"), heads=[HeadId(1, 2)])
    expected = _logits(_edited(model, name, [HeadId(1, 2)], Ablation("value")), ids[:1])[0, -1]
    torch.testing.assert_close(runner.logits(batch.states)[0, 0], expected, atol=1e-4, rtol=1e-4)


def test_undifferentiated_attention_is_a_running_mean_and_with_alibi_a_fading_one() -> None:
    slopes = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]
    for name, fades in (("gptj", [0.0] * 4), ("bloom", slopes)):
        model, seen = tiny(name), dict[str, Tensor]()
        query, output, _ = _projections(model, name, 1)
        values = query if name == "bloom" else model.transformer.h[1].attn.v_proj
        handles = [
            values.register_forward_hook(lambda *args, kept=seen: kept.__setitem__("v", args[2][0])),
            output.register_forward_pre_hook(lambda _, args, kept=seen: kept.__setitem__("out", args[0][0])),
        ]
        with ablate(model, [HeadId(1, 0), HeadId(1, 3)], Ablation("query", 0.0)):
            _logits(model, prompts(7))
        drawn = seen["v"].view(7, 4, -1)[..., -_D:]
        steps = torch.arange(7.0, dtype=torch.float64)
        for head in (0, 3):
            weights = (fades[head] * (steps[None] - steps[:, None])).exp().tril()
            expected = (weights / weights.sum(-1, keepdim=True)) @ drawn[:, head]
            torch.testing.assert_close(seen["out"].view(7, 4, -1)[:, head], expected, atol=1e-6, rtol=0)
        for handle in handles:
            handle.remove()


def test_two_heads_of_a_layer_and_blocks_inside_one_another() -> None:
    model, ids = tiny("bloom", torch.float32), prompts(8)
    stock, pair = _logits(model, ids), [HeadId(1, 0), HeadId(1, 3)]
    seen: list[Tensor] = []
    output = _projections(model, "bloom", 1)[1]
    with ablate(model, pair, Ablation("mean")):
        handle = output.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        outer = _logits(model, ids)
        handle.remove()
        with ablate(model, [HeadId(2, 1)], Ablation("query")):
            inner = _logits(model, ids)
        assert torch.equal(_logits(model, ids), outer)
    heads = seen[0].unflatten(-1, (4, -1))
    assert torch.equal(heads[..., 0, :], heads[..., 3, :])  # the mean of all heads before either was replaced
    with ablate(model, [HeadId(2, 1)], Ablation("query")):
        assert torch.equal(_logits(model, ids), inner)
    with pytest.raises(ZeroDivisionError), ablate(model, pair):
        raise ZeroDivisionError
    assert torch.equal(_logits(model, ids), stock)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_answers_with_a_cache_are_teacher_forced() -> None:
    model, ids = tiny("falcon", torch.float32), torch.tensor(prompts(6))
    settings = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    settings |= {"pad_token_id": 0, "eos_token_id": None}
    for how in (Ablation("query"), Ablation("mean")):
        with ablate(model, _OUT, how):
            made = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
            forced = _logits(model, made.sequences.tolist())[:, 5:-1]
        torch.testing.assert_close(torch.stack(made.logits, 1), forced, atol=1e-4, rtol=0)


def test_ships_of_every_head_rank_the_head_that_matters_first() -> None:
    model = tiny("gptj", torch.float32)
    for layer in range(3):
        for head in range(4):
            if (layer, head) != (1, 2):
                _projections(model, "gptj", layer)[1].weight.data[:, head * _D : (head + 1) * _D] *= 1e-3
    means = ships(BruteForce(model), prompts(9, 7), Ablation("value")).mean(0)
    assert HeadId(*divmod(int(means.argmax()), 4)) == HeadId(1, 2)
    assert len(all_heads(model)) == means.numel()


def test_queries_that_are_normed_or_clamped_are_not_scaled_but_heads_can_be_taken_out_by_value() -> None:
    normed = build("StableLm", torch.float32, **{**HOOKED["stablelm"][1], "qk_layernorm": True})
    clamped = build("Mpt", torch.float32, **HOOKED["mpt"][1], attn_config={"clip_qkv": 4.0})
    for model in (normed, clamped):
        runner = BruteForce(model)
        with pytest.raises(UnsupportedModel, match=r"a norm or a clamp .* 'query' is not exact; take value or mean"):
            runner.states(prompts(5), without=_OUT)
        check(runner, prompts(5, 9), Ablation("value"))
        check(runner, prompts(5, 9), Ablation("mean"))


class _Gated(nn.Module):
    """An output projection behind a gate."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.gate, self.inner = nn.Linear(inner.in_features, inner.in_features), inner

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.inner(given * self.gate(given).sigmoid())
        return found


def _gate(model: PreTrainedModel) -> None:
    for block in model.transformer.h:
        block.attn.out_proj = _Gated(block.attn.out_proj)


def _mix(model: PreTrainedModel) -> None:
    for block in model.transformer.h:
        block.attn.out_proj.register_forward_pre_hook(lambda _, args: (args[0].roll(4, -1),))


def _no_projection(model: PreTrainedModel) -> None:
    del model.transformer.h[2].attn.v_proj
    model.transformer.h[2].attn.v_proj = lambda given: given


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [
        (_gate, "something beside attn.out_proj.gate that reads its heads"),
        (_mix, "something else than weighted means of values before its output projection"),
        (_no_projection, "no attn.v_proj in layer 2, as in layer 0"),
    ],
)
def test_what_is_not_heads_side_by_side_is_refused(spoil: Any, missing: str) -> None:
    model = tiny("gptj", torch.float32)
    spoil(model)
    with pytest.raises(UnsupportedModel, match=f"'gptj' has {re.escape(missing)}"):
        probe(model)
    with pytest.raises(UnsupportedModel, match=f"transformers' interface; and hooks .*{re.escape(missing)}"):
        exact_or_slow(model)


def test_attention_that_looks_ahead_is_refused() -> None:
    model = tiny("gpt_neo", torch.float32)
    for block in model.transformer.h:
        block.attn.attention.bias = torch.ones_like(block.attn.attention.bias)
    model.config._attn_implementation = "sdpa"  # whose mask is left to the kernel
    with pytest.raises(UnsupportedModel, match="attention that is not causal"):
        probe(model)


def test_a_leak_between_the_layers_is_found_by_the_checks() -> None:
    model = tiny("gptj", torch.float32)
    model.transformer.wte.register_forward_hook(lambda *args: args[2] + 0.01 * args[2].mean(1, keepdim=True))
    with pytest.raises((EngineMismatch, UnsupportedModel)):
        check(BruteForce(model), prompts(5, 9))


def test_the_exact_engine_and_the_screen_say_that_they_cannot() -> None:
    model = tiny("bloom", torch.float32)
    with pytest.raises(UnsupportedModel, match="'bloom' does not compute attention through transformers' interface"):
        Engine(model)
    with pytest.raises(AttributionError, match=r"head 3\.0 is not in the model"):
        each(BruteForce(model), prompts(3), Ablation(), (HeadId(3, 0),))
