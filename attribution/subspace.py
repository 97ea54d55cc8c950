"""How far the leading directions of a set of states turn (arXiv 2410.13708, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from attribution.types import AttributionError


def left_directions(states: Tensor, rank: int) -> Tensor:
    """Leading left singular directions of M = UΣVᵀ, uncentred, (…, prompts, rank), in float64.

    Args:
        states: M, (…, prompts, width), a prompt a row.
        rank: How many, at most the prompts and the width.

    Raises:
        AttributionError: a rank that M cannot have.
    """
    prompts, width = states.shape[-2:]
    if not 1 <= rank <= min(prompts, width):
        raise AttributionError(
            f"r_main {rank} is not between 1 and {min(prompts, width)}: there are {prompts} prompts of width {width}"
        )
    matrix = states.double()
    if prompts <= width:  # MMᵀ = UΣ²Uᵀ
        left: Tensor = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[..., -rank:].flip(-1)
        return left
    right = torch.linalg.eigh(matrix.mT @ matrix).eigenvectors[..., -rank:].flip(-1)
    left = torch.linalg.qr(matrix @ right).Q
    return left


def turned(before: Tensor, after: Tensor) -> Tensor:
    """Σ over r of the r-th (largest) principal angle between the leading r directions, in degrees.

    By atan2 of sine and cosine, which is exact at small angles where arccos is not.

    Args:
        before: (…, prompts, r_main), orthonormal, as `left_directions` gives them.
        after: Likewise; leading dimensions broadcast.

    Returns:
        Degrees, (…): 0 to 90 for each of the r_main directions.
    """
    total = torch.zeros((), dtype=torch.float64, device=after.device)
    for rank in range(1, before.shape[-1] + 1):
        old, new = before[..., :rank], after[..., :rank]
        shared = old.mT @ new
        cosine = torch.linalg.matrix_norm(shared, ord=-2)
        sine = torch.linalg.matrix_norm(new - old @ shared, ord=2)
        total = total + torch.rad2deg(torch.atan2(sine, cosine))
    return total
