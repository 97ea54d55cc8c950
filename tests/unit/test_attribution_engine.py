"""The engine against one stock forward a head and prompt, on all families; what it leaves behind; what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attribution import engine as engine_module
from attribution.brute import BruteForce
from attribution.engine import Engine
from attribution.heads import decoder
from attribution.types import Ablation, AttributionError, HeadId, UnsupportedModel
from tests.attribution_cases import FAMILIES, GROUP, MORE, SHARED, build, each, prompts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

_CASES = [
    (Ablation("query"), ()),
    (Ablation("key", 0.3), GROUP),
    (Ablation("value"), GROUP),
    (Ablation("mean"), GROUP),
    (Ablation("mean_query"), ()),
]


def _close(found: Tensor, expected: Tensor) -> None:
    tolerance = 1e-9 if expected.dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0, equal_nan=True)


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if name == "mixtral" else torch.float64  # its experts route in float32


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_and_method_equals_brute_force(name: str) -> None:
    model = tiny(name, _dtype(name))
    oracle, ids = BruteForce(model), prompts(4, 1, 9)
    engines = [Engine(model, batch_tokens=1), Engine(model)]
    stock = torch.stack([model(torch.tensor([prompt])).logits[0, -1] for prompt in ids])
    found = engines[0].logits(engines[0].states(ids))
    torch.testing.assert_close(found, stock, atol=2e-5, rtol=0)  # eager attention softmaxes in float32
    for number, (how, group) in enumerate(_CASES):
        expected = each(oracle, ids, how, group)
        _close(each(engines[number % 2], ids, how, group), expected)
        _close(engines[0].states(ids, without=group, ablation=how), oracle.states(ids, without=group, ablation=how))
        whole = oracle.states(ids)
        assert ((expected - whole)[:, :, 2].abs().amax(-1).nan_to_num(1.0) > 1e-4).all()  # each head does something


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shared_beginning_changes_nothing(name: str) -> None:
    model = tiny(name, _dtype(name))
    oracle, ids = BruteForce(model), [*prompts(1, 6, shared=True), [*SHARED[:9], 3, 4]]
    for how, group in ((Ablation("query"), GROUP), (Ablation("mean"), ())):
        expected = each(oracle, ids, how, group)
        _close(each(Engine(model, batch_tokens=30), ids, how, group), expected)
        _close(each(Engine(model, shared_prefix=False), ids, how, group), expected)


def test_a_prompt_that_all_others_begin_with_keeps_a_token_of_its_own() -> None:
    model = tiny("llama")
    whole, longer, twin = SHARED, [*SHARED, 3, 4], list(SHARED)
    for ids in ([whole, longer], [whole, twin]):
        _close(each(Engine(model), ids, Ablation()), each(BruteForce(model), ids, Ablation()))


@pytest.mark.parametrize("name", MORE)
def test_families_that_are_exact_beyond_the_list(name: str) -> None:
    model = tiny(name, torch.float32)
    ids = prompts(4, 9, shared=True)
    stock = torch.stack([model(torch.tensor([prompt])).logits[0, -1] for prompt in ids])
    engine = Engine(model)
    torch.testing.assert_close(engine.logits(engine.states(ids)), stock, atol=1e-4, rtol=0)
    found, expected = (each(runner, ids, Ablation("query")) for runner in (engine, BruteForce(model)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected - engine.states(ids)).abs().max() > 1e-2


def test_one_prompt_one_token_one_head() -> None:
    model = tiny("llama")
    engine, oracle = Engine(model), BruteForce(model)
    _close(each(engine, [[5]], Ablation("value")), each(oracle, [[5]], Ablation("value")))
    assert torch.equal(each(engine, [[5]], Ablation("query"))[0, 0], engine.states([[5]]))  # one key: nothing to change
    (batch,) = engine.without_each([[5, 6, 7]], heads=[HeadId(1, 2)])
    assert (batch.layer, batch.heads, batch.prompts) == (1, (2,), (0,))
    assert list(engine.without_each([[5]], heads=[])) == []


def test_many_prompts_are_traced_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    ids = prompts(3, 7, 4, 3, 9, 2)
    monkeypatch.setattr(engine_module, "_HELD", 1)
    engine = Engine(model, batch_tokens=8)
    assert len(list(engine._blocks(ids, engine_module.Cut(frozenset(), Ablation())))) > 1
    _close(each(engine, ids, Ablation()), each(BruteForce(model), ids, Ablation()))


def _snapshot(model: PreTrainedModel) -> tuple[Any, ...]:
    modules = list(model.modules())
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    names = {*ALL_ATTENTION_FUNCTIONS.valid_keys(), *ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()}
    forwards = ["forward" in module.__dict__ for module in modules]
    kinds = [module.config._attn_implementation for module in modules if hasattr(module, "config")]
    return hooks, forwards, kinds, names, [(name, value.clone()) for name, value in model.state_dict().items()]


def _same(model: PreTrainedModel, before: tuple[Any, ...]) -> None:
    after = _snapshot(model)
    assert after[:4] == before[:4]
    for (name, old), (_, new) in zip(before[4], after[4], strict=True):
        assert torch.equal(old, new), name


def test_the_model_is_as_before_also_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny("qwen3"), prompts(4, 9, shared=True)
    before = _snapshot(model)
    stock = model(torch.tensor([ids[0]])).logits
    engine = Engine(model)
    engine.logits(each(engine, ids, Ablation(), GROUP))
    _same(model, before)
    generator = engine.without_each(ids)
    next(generator)
    generator.close()
    _same(model, before)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    for part in (model.model.layers[1].mlp, model.model.layers[2].self_attn.o_proj, model.model.norm):
        with monkeypatch.context() as patch:
            patch.setattr(part, "forward", fail)
            with pytest.raises(MemoryError):
                each(engine, ids, Ablation())
        part.__dict__.pop("forward", None)  # monkeypatch puts the bound method back
        _same(model, before)
    assert torch.equal(model(torch.tensor([ids[0]])).logits, stock)


class _Quantized(nn.Module):
    """A projection that is no `nn.Linear`."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = nn.Parameter(inner.weight)

    def forward(self, given: Tensor) -> Tensor:
        return given @ self.inner.T


def test_a_projection_that_is_not_plain_is_refused_and_runs_slowly() -> None:
    model = tiny("llama")
    attention = model.model.layers[1].self_attn
    attention.o_proj = _Quantized(attention.o_proj)
    with pytest.raises(UnsupportedModel, match=r"'llama' has something between its heads.*--engine brute"):
        Engine(model)
    assert each(BruteForce(model), prompts(3), Ablation()).isfinite().all()
    plain = tiny("llama")
    gated = plain.model.layers[1].self_attn
    gate = nn.Linear(32, 32, bias=False, dtype=torch.float64)
    gated.register_module("gate", gate)
    gated.o_proj.register_forward_pre_hook(lambda _, args: (args[0] * gate(args[0]).sigmoid(),))
    with pytest.raises(UnsupportedModel, match="something between its heads"):
        Engine(plain)


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("DiffLlama", {}, "'diffllama' calls attention 6 times for 3 layers"),
        ("RecurrentGemma", {}, "'recurrent_gemma' calls attention 1 times for 3 layers"),
        ("Bert", {"is_decoder": False}, "not causal"),
        ("Doge", {"keep_window_size": 4}, "DogeAttention has a mask for each head"),
    ],
)
def test_what_neither_engine_can_do_is_refused_by_name(kind: str, values: dict[str, Any], reason: str) -> None:
    model = build(kind, torch.float32, **{**FAMILIES["llama"][1], **values})
    for runner in (Engine, BruteForce):
        with pytest.raises(UnsupportedModel, match=reason):
            runner(model)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("XLNet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}), ("Mamba", {"hidden_size": 32})],
)
def test_families_of_another_kind_are_refused_by_name(kind: str, values: dict[str, Any]) -> None:
    model = build(kind, torch.float32, vocab_size=97, **{"num_hidden_layers": 2, **values})
    for runner in (Engine, BruteForce):
        with pytest.raises(UnsupportedModel, match=rf"'{kind.lower()}' does not compute attention"):
            runner(model)


def test_sinks_are_left_to_the_slow_way() -> None:
    with pytest.raises(UnsupportedModel, match="has s_aux"):
        Engine(tiny("gpt_oss", torch.float32))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("NanoChat", FAMILIES["llama"][1]),
        ("BitNet", FAMILIES["llama"][1]),
        ("DeepseekV32", {**MORE["deepseek_v3"][1], "index_n_heads": 2, "index_head_dim": 16}),
        ("GlmMoeDsa", {**MORE["deepseek_v3"][1], "index_n_heads": 2, "index_head_dim": 16}),
    ],
)
def test_what_only_the_slow_engine_can_do_says_so(kind: str, values: dict[str, Any]) -> None:
    model = build(kind, torch.float32, **values)
    with pytest.raises(UnsupportedModel, match="--engine brute"):
        Engine(model)
    slow, ids = BruteForce(model), prompts(4)
    stock = model(torch.tensor(ids)).logits[0, -1]
    torch.testing.assert_close(slow.logits(slow.states(ids))[0], stock, atol=1e-4, rtol=0)


def test_bad_calls_name_the_setting() -> None:
    model = tiny("llama")
    with pytest.raises(AttributionError, match="batch_tokens 0"):
        Engine(model, batch_tokens=0)
    engine = Engine(model)
    with pytest.raises(AttributionError, match="without tokens"):
        engine.states([[1], []])
    with pytest.raises(AttributionError, match=r"head 3\.0 is not in the model: it has 3 layers of 4 heads"):
        engine.states([[1]], without=[HeadId(3, 0)])
    model.train()
    for runner in (Engine, BruteForce):
        with pytest.raises(AttributionError, match="training mode"):
            runner(model)


def test_a_head_that_is_not_one_map_of_states_is_refused() -> None:
    model = tiny("llama")
    run = decoder(model)
    states = Engine(model).states([[3, 4]])
    stock = model.forward
    model.forward = lambda *args, **kwargs: (run(input_ids=torch.tensor([[1]])), stock(*args, **kwargs))[1]
    with pytest.raises(UnsupportedModel, match="language head"):
        Engine(model).logits(states)
