"""Leading directions and how far they turn, against a plain SVD and angles that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attribution.subspace import left_directions, turned
from attribution.types import AttributionError


def _states(prompts: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(prompts, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _plane(degrees: float) -> Tensor:
    """A direction in the plane of the first two of four coordinates."""
    turn = math.radians(degrees)
    return torch.tensor([[math.cos(turn)], [math.sin(turn)], [0.0], [0.0]], dtype=torch.float64)


@pytest.mark.parametrize(("prompts", "width"), [(5, 12), (12, 5), (7, 7), (1, 4)])
def test_directions_are_those_of_an_svd(prompts: int, width: int) -> None:
    states = _states(prompts, width)
    rank = min(prompts, width, 3)
    found = left_directions(states, rank)
    expected = torch.linalg.svd(states, full_matrices=False).U[:, :rank]
    assert found.shape == (prompts, rank)
    signs = (found * expected).sum(dim=0).sign()
    torch.testing.assert_close(found * signs, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.mT @ found, torch.eye(rank, dtype=torch.float64), atol=1e-9, rtol=0)


def test_directions_of_many_sets_at_once() -> None:
    many = torch.stack([_states(6, 9, seed) for seed in range(4)])
    for row, states in zip(left_directions(many, 2), many, strict=True):
        torch.testing.assert_close(turned(row, left_directions(states, 2)).item(), 0.0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 1e-4, 0.3, 45.0, 89.9999, 90.0])
def test_one_direction_turns_by_its_angle_however_small(degrees: float) -> None:
    assert turned(_plane(20.0), _plane(20.0 + degrees)).item() == pytest.approx(degrees, abs=1e-9)
    assert turned(_plane(20.0), -_plane(20.0 + degrees)).item() == pytest.approx(degrees, abs=1e-9)  # a sign is no turn


def test_two_directions_add_the_first_angle_and_the_larger_one_of_both() -> None:
    before = torch.eye(4, dtype=torch.float64)[:, :2]
    within = torch.cat([_plane(30.0), _plane(120.0)], dim=1)  # turned within the same plane
    assert turned(before, within).item() == pytest.approx(30.0, abs=1e-9)
    out = torch.stack(
        [before[:, 0], torch.tensor([0.0, math.cos(0.5), math.sin(0.5), 0.0], dtype=torch.float64)], dim=1
    )
    assert turned(before, out).item() == pytest.approx(math.degrees(0.5), abs=1e-9)


def test_angles_are_broadcast() -> None:
    after = torch.stack([_plane(5.0), _plane(70.0)])
    torch.testing.assert_close(turned(_plane(0.0), after), torch.tensor([5.0, 70.0], dtype=torch.float64))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_rank_that_cannot_be_is_refused(rank: int) -> None:
    with pytest.raises(AttributionError, match=f"r_main {rank} is not between 1 and 3"):
        left_directions(_states(3, 8), rank)
