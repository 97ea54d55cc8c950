"""Ships, generalized Ships and Sahara, against the same written out plainly."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attribution.ablate import ablate
from attribution.brute import BruteForce
from attribution.engine import Engine
from attribution.heads import all_heads
from attribution.sahara import sahara
from attribution.ships import divergence, generalized_ships, ships
from attribution.subspace import left_directions, turned
from attribution.types import Ablation, AttributionError, HeadId
from tests.attribution_cases import prompts, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

_IDS = prompts(7, 4, 9, 9)


def _probabilities(model: torch.nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits.double().softmax(-1)


def _angle(model: PreTrainedModel, heads: list[HeadId], r_main: int = 1) -> float:
    stock = BruteForce(model)
    before, after = (left_directions(stock.states(_IDS, without=gone), r_main) for gone in ([], heads))
    return float(turned(before, after))


@pytest.mark.parametrize("method", ["query", "value", "mean"])
def test_ships_is_the_divergence_without_the_head(method: str) -> None:
    model, how = tiny("llama"), Ablation(method)  # type: ignore[arg-type]
    found = ships(Engine(model), _IDS, how)
    assert found.shape == (4, *Engine(model).shape)
    for place, head in itertools.product(range(len(_IDS)), all_heads(model)):
        before = _probabilities(model, _IDS[place])
        with ablate(model, [head], how):
            after = _probabilities(model, _IDS[place])
        expected = (before * (before / after).log()).sum().item()
        assert found[place][head].item() == pytest.approx(expected, abs=1e-6)
    assert (found >= 0).all()
    assert found.max() > 1e-3


def test_ships_of_some_heads_leaves_the_others_out() -> None:
    model = tiny("llama")
    some = [HeadId(0, 1), HeadId(2, 3)]
    told: list[int] = []
    found = ships(Engine(model), _IDS, heads=some, progress=told.append)
    whole = ships(Engine(model), _IDS)
    known = ~found.isnan()
    assert {HeadId(*place) for place in known[0].nonzero().tolist()} == set(some)
    torch.testing.assert_close(found[known], whole[known])
    assert sum(told) == len(some) * len(_IDS)


def test_divergence_of_equal_and_of_far_logits() -> None:
    def one(base: Tensor, ablated: Tensor) -> Tensor:
        return divergence(base, ablated[None])[0]

    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert (one(logits, logits) == 0).all()
    assert (one(logits, logits + 7.0) < 1e-6).all()  # a constant changes no probability
    sure = torch.full((1, 4), -1e4)
    sure[0, 0] = 1e4
    assert one(sure, sure.flip(-1)).item() == pytest.approx(2e4, rel=1e-6)
    little = logits.clone()
    little[:, 0] += 0.3
    before, after = logits.double().softmax(-1), little.double().softmax(-1)
    expected = (before * (before / after).log()).sum(-1)
    torch.testing.assert_close(one(logits, little), expected, atol=1e-9, rtol=1e-2)


@pytest.mark.parametrize("r_main", [1, 3])
def test_generalized_ships_is_the_angle_without_the_head(r_main: int) -> None:
    model = tiny("llama")
    found = generalized_ships(Engine(model, batch_tokens=20), _IDS, r_main=r_main)
    for head in all_heads(model):
        assert found[head].item() == pytest.approx(_angle(model, [head], r_main), abs=1e-3)


def test_sahara_adds_the_head_that_turns_furthest_together_with_the_group() -> None:
    model = tiny("llama")
    steps = sahara(Engine(model), _IDS, size=3)
    group: list[HeadId] = []
    for step in steps:
        angles = {head: _angle(model, [*group, head]) for head in all_heads(model) if head not in group}
        assert step.head == max(angles, key=angles.__getitem__)
        assert step.score == pytest.approx(angles[step.head], abs=1e-3)
        assert all(step.degrees[head].isnan() for head in group)
        group.append(step.head)
    assert len(set(group)) == 3


def test_sahara_goes_on_from_finished_steps_and_keeps_to_its_candidates() -> None:
    engine = Engine(tiny("llama"))
    steps = sahara(engine, _IDS, size=3)
    told: list[HeadId] = []
    again = sahara(engine, _IDS, size=3, done=steps[:2], on_step=lambda step: told.append(step.head))
    assert [step.head for step in again] == [step.head for step in steps]
    assert told == [steps[2].head]
    few = [HeadId(1, 0), HeadId(2, 1)]
    assert {step.head for step in sahara(engine, _IDS, size=2, candidates=few)} == set(few)
    for size, candidates in ((0, None), (3, few)):
        with pytest.raises(AttributionError, match=f"group size {size}"):
            sahara(engine, _IDS, size=size, candidates=candidates)
