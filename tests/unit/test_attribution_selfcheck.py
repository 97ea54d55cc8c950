"""The checks at the start of an audit: each of them can fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution.brute import BruteForce
from attribution.engine import Batch, Engine
from attribution.selfcheck import check
from attribution.types import Ablation, CheckpointError, EngineMismatch
from tests.attribution_cases import FAMILIES, prompts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

_IDS = prompts(5, 9, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_sound_engines_pass(name: str) -> None:
    found = check(Engine(tiny(name, torch.float32)), _IDS)
    assert max(found.base_difference, found.leak, found.head_difference) <= 1e-5
    assert found.effect > 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_and_the_slow_engine_pass(dtype: torch.dtype) -> None:
    model = tiny("llama", dtype)
    check(BruteForce(model), _IDS, Ablation("value"))
    check(Engine(model), _IDS, Ablation("mean"))
    check(Engine(model), [[5]])


class _Shifted(Engine):
    def states(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().states(*args, **kwargs) + 0.01


class _ShiftedSlow(BruteForce):
    def states(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().states(*args, **kwargs) + 0.01


class _WrongHead(Engine):
    def without_each(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        for batch in super().without_each(*args, **kwargs):
            yield Batch(batch.layer, batch.heads, batch.prompts, batch.states * 1.01)


def test_engines_that_are_off_are_found() -> None:
    model = tiny("llama", torch.float32)
    with pytest.raises(EngineMismatch, match=r"not the stock model's \(base 0\.\d+.*--engine brute"):
        check(_Shifted(model), _IDS)
    with pytest.raises(EngineMismatch, match="without a head"):
        check(_WrongHead(model), _IDS)
    with pytest.raises(EngineMismatch, match=r"allowed 0\.0001\); report the model type$"):
        check(_ShiftedSlow(model), _IDS)


def test_an_ablation_without_effect_is_found() -> None:
    model = tiny("llama", torch.float32)
    with pytest.raises(EngineMismatch, match=r"by value/1 changed nothing.*another method"):
        check(BruteForce(model), _IDS, Ablation("value", 1.0))


def test_a_later_token_that_leaks_is_found() -> None:
    model = tiny("llama", torch.float32)
    embed = model.get_input_embeddings()

    def leak(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return output + 0.01 * output.mean(1, keepdim=True)

    embed.register_forward_hook(leak)
    with pytest.raises(EngineMismatch, match="later token changes what comes before"):
        check(BruteForce(model), _IDS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = tiny("llama", torch.float32)
    engine = Engine(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = value
        model.model.layers[2].mlp.up_proj.weight[0, 0] = value
    with pytest.raises(
        CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"
    ):
        check(engine, _IDS)
