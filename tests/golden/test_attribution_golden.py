"""Ships and Sahara against numbers of the paper's reference implementation."""

from __future__ import annotations

import pytest
import torch

from attribution.brute import BruteForce
from attribution.engine import Engine
from attribution.sahara import sahara
from attribution.ships import generalized_ships, ships
from attribution.types import Ablation, Method
from tests.attribution_cases import golden, golden_model

pytestmark = pytest.mark.usefixtures("one_thread")

_SCALED: dict[str, Method] = {"q": "query", "k": "key", "v": "value"}
_MEANS: dict[str, Method] = {"q": "mean_query", "v": "mean"}


def _ablation(name: str) -> Ablation:
    part, mask, factor = name.split("/")
    return Ablation(_MEANS[part]) if mask == "mean_mask" else Ablation(_SCALED[part], float(factor))


@pytest.mark.parametrize("name", ["mha", "gqa"])
def test_ships_are_the_reference_s(name: str) -> None:
    numbers = golden(name)
    engine = Engine(golden_model(numbers))
    ids = numbers["input_ids"]
    torch.testing.assert_close(
        engine.logits(engine.states(ids))[:, :8], torch.tensor(numbers["base_last_logits"]), atol=1e-5, rtol=0
    )
    found = {case: ships(engine, ids, _ablation(case)) for case in numbers["ships"]}
    for case, expected in numbers["ships"].items():
        torch.testing.assert_close(found[case], torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)
    others = found["v/scale_mask/1e-05"] - found["q/scale_mask/1e-05"]
    assert others.abs().max() > 0.1  # the tolerance tells one ablation from another


@pytest.mark.parametrize("name", ["mha", "gqa"])
def test_sahara_picks_what_the_reference_picks(name: str) -> None:
    numbers = golden(name)
    engine = Engine(golden_model(numbers))
    for case, expected in numbers["sahara"].items():
        steps = sahara(engine, numbers["input_ids"], _ablation(case))
        assert [str(step.head) for step in steps] == [".".join(map(str, _pair(head))) for head in expected["selected"]]
        for step, shifts in zip(steps, expected["shifts_degrees"], strict=True):
            assert len(shifts) == int((~step.degrees.isnan()).sum())
            for head, degrees in shifts.items():
                assert float(step.degrees[_pair(head)]) == pytest.approx(degrees, abs=5e-3)


def test_engine_equals_a_brute_force_in_float64() -> None:
    numbers = golden("gqa")
    model = golden_model(numbers).double()
    ids = numbers["input_ids"][:4]
    engine, oracle = Engine(model), BruteForce(model)
    how = Ablation("query")
    torch.testing.assert_close(ships(engine, ids, how), ships(oracle, ids, how), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        generalized_ships(engine, ids, how, r_main=2), generalized_ships(oracle, ids, how, r_main=2), atol=1e-6, rtol=0
    )


def _pair(head: str | list[int]) -> tuple[int, int]:
    layer, number = head.split("-") if isinstance(head, str) else head
    return int(layer), int(number)
