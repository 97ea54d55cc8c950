"""Heads taken out of stock models by a context manager."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attribution.ablate import ablate
from attribution.heads import all_heads
from attribution.types import METHODS, Ablation, AttributionError, HeadId, UnsupportedModel
from tests.attribution_cases import FAMILIES, GROUP, prompts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def _logits(model: PreTrainedModel, ids: list[list[int]], mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.tensor(ids), attention_mask=mask).logits
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_out_is_the_stock_model_and_a_head_out_is_not(name: str) -> None:
    model, ids = tiny(name, torch.float32), prompts(11, 11)
    mask = torch.ones(2, 11, dtype=torch.long)
    mask[0, :4] = 0
    stock, padded = _logits(model, ids), _logits(model, ids, mask)
    near = 2e-5
    with ablate(model, []):
        torch.testing.assert_close(_logits(model, ids), stock, atol=near, rtol=0)
        torch.testing.assert_close(_logits(model, ids, mask)[:, 4:], padded[:, 4:], atol=near, rtol=0)
    for how in map(Ablation, METHODS):
        with ablate(model, [HeadId(1, 2)], how):
            assert (_logits(model, ids) - stock).abs().max() > 1e-4, str(how)
    assert torch.equal(_logits(model, ids), stock)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_later_token_changes_no_earlier_logit(name: str, implementation: str) -> None:
    model = tiny(name, torch.float32)
    if name == "gemma2" and implementation == "sdpa":
        pytest.skip("Gemma 2 has no such attention: its scores are capped")
    model.set_attn_implementation(implementation)
    (one,) = prompts(9)
    with ablate(model, [HeadId(0, 1), *GROUP]):
        first, second = _logits(model, [one])[0], _logits(model, [[*one[:-1], one[-1] ^ 1]])[0]
    torch.testing.assert_close(first[:-1], second[:-1], atol=1e-6, rtol=0)
    assert (first[-1] - second[-1]).abs().max() > 1e-3  # the token does change its own


def test_methods_are_what_the_paper_defines() -> None:
    model = tiny("gpt2")
    seen: dict[str, Tensor] = {}
    projection = model.transformer.h[1].attn.c_proj
    handle = projection.register_forward_pre_hook(lambda _, args: seen.__setitem__("in", args[0].detach()))
    qkv = model.transformer.h[1].attn.c_attn.register_forward_hook(lambda *args: seen.__setitem__("qkv", args[2]))
    ids = prompts(7)

    def run(how: Ablation, heads: list[HeadId]) -> Tensor:
        with ablate(model, heads, how):
            _logits(model, ids)
        return seen["in"][0].view(7, 4, 8)

    stock = run(Ablation(), [])
    value = seen["qkv"][0].split(32, dim=-1)[2].view(7, 4, 8)
    running = value.cumsum(0) / torch.arange(1, 8)[:, None, None]
    out = [HeadId(1, 0), HeadId(1, 3)]
    for how, expected in (
        (Ablation("query", 0.0), running),
        (Ablation("key", 0.0), running),
        (Ablation("value", 0.25), stock * 0.25),
        (Ablation("mean"), stock.mean(1, keepdim=True).expand_as(stock)),  # of the heads before either is replaced
    ):
        found = run(how, out)
        torch.testing.assert_close(found[:, [0, 3]], expected[:, [0, 3]], atol=1e-12, rtol=0)
        assert torch.equal(found[:, [1, 2]], stock[:, [1, 2]])
    handle.remove()
    qkv.remove()


def test_contexts_nest_and_the_inner_one_rules() -> None:
    model, ids = tiny("llama"), prompts(8)
    stock = _logits(model, ids)
    with ablate(model, [HeadId(0, 0)]):
        outer = _logits(model, ids)
        with ablate(model, [HeadId(2, 1)], Ablation("value")):
            inner = _logits(model, ids)
        assert torch.equal(_logits(model, ids), outer)
    with ablate(model, [HeadId(2, 1)], Ablation("value")):
        assert torch.equal(_logits(model, ids), inner)
    assert torch.equal(_logits(model, ids), stock)
    assert not torch.equal(outer, inner)


def test_the_model_is_as_before_after_an_exception() -> None:
    model, ids = tiny("gemma2"), prompts(8)
    stock, names = _logits(model, ids), set(ALL_ATTENTION_FUNCTIONS.valid_keys())
    with pytest.raises(ZeroDivisionError), ablate(model, GROUP):
        raise ZeroDivisionError
    assert model.config._attn_implementation == "eager"
    assert set(ALL_ATTENTION_FUNCTIONS.valid_keys()) == names
    assert torch.equal(_logits(model, ids), stock)


def test_models_in_threads_do_not_meet() -> None:
    ids = prompts(8)
    models = [tiny("llama", seed=seed) for seed in range(2)]
    cases = [(models[0], [HeadId(0, 0)]), (models[1], [HeadId(1, 1)])]
    alone = []
    for model, heads in cases:
        with ablate(model, heads):
            alone.append(_logits(model, ids))
    found: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(place: int) -> None:
        model, heads = cases[place]
        for _ in range(10):
            barrier.wait()
            with ablate(model, heads):
                found[place].append(_logits(model, ids))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in range(2):
        assert len(found[place]) == 10
        assert all(torch.equal(logits, alone[place]) for logits in found[place])


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3", "gpt_neox", "gpt2"])
def test_generation_with_a_cache_is_teacher_forced(name: str) -> None:
    model, ids = tiny(name), torch.tensor(prompts(6))
    settings = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    settings |= {"pad_token_id": 0, "eos_token_id": None}
    heads = [HeadId(1, 2), HeadId(0, 3)]
    for how in (Ablation("value"), Ablation("mean"), Ablation("query")):
        with ablate(model, heads, how):
            made = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
            forced = _logits(model, made.sequences.tolist())[:, ids.shape[1] - 1 : -1]
        torch.testing.assert_close(torch.stack(made.logits, 1), forced.float(), atol=1e-5, rtol=0)
        stock = _logits(model, made.sequences.tolist())[:, ids.shape[1] - 1 : -1]
        assert (forced - stock).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_on_the_left_changes_nothing(name: str) -> None:
    dtype = torch.float32 if name == "mixtral" else torch.float64
    model = tiny(name, dtype)
    (short,), (longer,) = prompts(5), prompts(9)
    rows = torch.tensor([[0] * 4 + short, longer])
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with ablate(model, GROUP, Ablation("query")), torch.no_grad():
        batch = model(rows, attention_mask=mask, position_ids=positions).logits[:, -1]
        alone = torch.stack([model(torch.tensor([prompt])).logits[0, -1] for prompt in (short, longer)])
    torch.testing.assert_close(batch, alone, atol=1e-9 if dtype == torch.float64 else 2e-5, rtol=0)


def test_bad_heads_and_methods_are_refused() -> None:
    model = tiny("llama")
    for head in (HeadId(3, 0), HeadId(0, 4), HeadId(-1, 0)):
        with pytest.raises(AttributionError, match="is not in the model"), ablate(model, [head]):
            pass
    with pytest.raises(AttributionError, match="method 'keys' is not known"):
        Ablation("keys")  # type: ignore[arg-type]
    with pytest.raises(AttributionError, match="epsilon 2"):
        Ablation("query", 2)
    with pytest.raises(AttributionError, match=r"'2-26' is not of the form layer\.head"):
        HeadId.parse("2-26")
    assert HeadId.parse(" 2.26 ") == HeadId(2, 26)
    assert len(all_heads(model)) == 12


def test_a_layer_without_attention_is_not_taken_for_an_ablated_one() -> None:
    model = tiny("llama")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with (
        pytest.raises(UnsupportedModel, match="layers 1 of model type 'llama' ran without attention"),
        ablate(model, [HeadId(1, 0), HeadId(0, 0)]),
    ):
        _logits(model, prompts(4))
    with ablate(model, [HeadId(0, 0)]):
        _logits(model, prompts(4))
