"""What a tensor of weights looks like in a few numbers: by them later changes are told apart, not only noticed.

Z = S·W·Ω with seeded signs S and Ω keeps, in 16 × 8 numbers, how large a change is and whether it has rank one, also
across tensors: all that write the residual stream are turned so that S acts on its width, and share one S.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS, COLUMNS = 16, 8
Role = Literal["embedding", "output", "writer", "query", "other"]
_CHUNK = 1 << 24  # weights converted to float32 at once
_SAMPLE = 1 << 16
_LINES = 8
_BESIDE = 0.18  # of a step: root mean square distance from a grid, with room for values kept in bfloat16
_EMBEDDING = re.compile(r"(embed_tokens|embed_in|wte|tok_embeddings)\.weight$")
_OUTPUT = re.compile(r"((self_attn|attn|attention)\.(o_proj|out_proj|dense|c_proj)|attention\.wo)\.weight$")
_WRITER = re.compile(r"(down_proj|dense_4h_to_h|fc2|w2|mlp\.c_proj)(\.weight)?$")
_QUERY = re.compile(r"(self_attn|attn|attention)\.q_proj\.weight$")
_TRANSPOSED = frozenset({"gpt2"})  # keeps its linear maps as (in, out)


@dataclass(frozen=True, slots=True)
class Shape:
    """What must be known of an architecture: `family` is its `model_type`; heads are query heads a layer."""

    family: str
    heads: int


@dataclass(frozen=True, slots=True)
class Sketch:
    """A tensor in a few numbers.

    Attributes:
        norm: Frobenius norm.
        values: Z, float32, (16, at most 8).
        head_norms: Norm of each head's part, of `output` and `query`; else empty.
        precision: The narrowest of bfloat16, float16 and its own dtype that holds its values.
        gridded: Whether its values lie on a grid, as those of a quantized matrix do.
    """

    norm: float
    values: NDArray[np.float32]
    head_norms: tuple[float, ...]
    precision: str
    gridded: bool


def role(name: str) -> Role:
    """What a tensor is for, by its name."""
    if _EMBEDDING.search(name):
        return "embedding"
    if _OUTPUT.search(name):
        return "output"
    if _WRITER.search(name):
        return "writer"
    return "query" if _QUERY.search(name) else "other"


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and values, in hex."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sketch(name: str, tensor: Tensor, shape: Shape, *, seed: int = 0) -> Sketch:
    """Look at one tensor.

    Args:
        name: In its checkpoint.
        tensor: Of any dtype; integers are taken as numbers.
        shape: Of the architecture.
        seed: Of the signs.
    """
    what = role(name)
    matrix = _matrix(tensor, what, shape)
    rows, columns = matrix.shape
    left = torch.zeros(ROWS, columns, dtype=torch.float64)
    squared, signs = 0.0, _signs(seed, "rows", ROWS, rows)
    step = max(1, _CHUNK // max(1, columns))
    for start in range(0, rows, step):
        part = matrix[start : start + step].float()
        squared += float(part.double().square().sum())
        left += (signs[:, start : start + step] @ part).double()
    if columns > COLUMNS:
        left = left @ _signs(seed, "columns", COLUMNS, columns).double().T / COLUMNS**0.5
    return Sketch(
        norm=squared**0.5,
        values=(left / ROWS**0.5).float().numpy(),
        head_norms=_head_norms(matrix, what, shape),
        precision=_precision(tensor),
        gridded=tensor.ndim > 1 and _gridded(tensor.reshape(-1, tensor.shape[-1])),
    )


def _matrix(tensor: Tensor, what: Role, shape: Shape) -> Tensor:
    """As a matrix; of what writes the residual stream, the stream's width comes first."""
    if tensor.ndim < 2:
        return tensor.reshape(-1, 1)
    if what == "embedding":
        return tensor.T
    if what in ("output", "writer"):
        if tensor.ndim == 3:  # experts, width, inner
            return tensor.transpose(0, 1).reshape(tensor.shape[1], -1)
        return tensor.T if shape.family in _TRANSPOSED else tensor
    return tensor.reshape(-1, tensor.shape[-1])


@lru_cache(maxsize=64)
def _signs(seed: int, axis: str, lines: int, size: int) -> Tensor:
    """Signs (lines, size) that depend on nothing but these arguments, on no machine and no version."""
    bits = np.frombuffer(hashlib.shake_256(f"{seed}/{axis}/{size}".encode()).digest((lines * size + 7) // 8), np.uint8)
    return torch.from_numpy(np.unpackbits(bits)[: lines * size].reshape(lines, size).astype(np.float32) * 2 - 1)


def _head_norms(matrix: Tensor, what: Role, shape: Shape) -> tuple[float, ...]:
    """Norms by head: columns of W_o, rows of W_q."""
    lines = matrix.T if what == "output" else matrix
    if what not in ("output", "query") or lines.shape[0] % shape.heads:
        return ()
    blocks = lines.contiguous().reshape(shape.heads, -1, lines.shape[1])
    return tuple(float(block.double().square().sum().sqrt()) for block in blocks)


def _precision(tensor: Tensor) -> str:
    own = str(tensor.dtype).removeprefix("torch.")
    if own not in ("float32", "float64"):
        return own
    flat = tensor.reshape(-1)
    values = flat[:: max(1, flat.numel() // _SAMPLE)]
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(values.to(dtype).to(tensor.dtype), values):
            return str(dtype).removeprefix("torch.")
    return own


def _gridded(matrix: Tensor) -> bool:
    """Whether the values of some rows, spread over the matrix, lie on a grid."""
    if not matrix.is_floating_point():
        return True
    rows = matrix[:: max(1, len(matrix) // _LINES)][:_LINES].double()
    rows = rows[(rows != 0).double().mean(dim=1) > 0.5]
    if len(rows) == 0 or rows.shape[1] < 16:
        return False
    most = float(matrix.abs().max())
    found = [any(_on_grid(row, most, size) for size in dict.fromkeys((row.numel(), 128, 64, 32))) for row in rows]
    return sum(found) >= 0.9 * len(found)


def _on_grid(row: Tensor, most: float, size: int) -> bool:
    """Whether a row's groups hold few values, or multiples of a step that their largest, or the matrix's, gives."""
    if row.numel() % size or size < 16:
        return False
    groups = row.reshape(-1, size)
    if all(len(group.unique()) <= (255 if size >= 1024 else size // 4) for group in groups):
        return True
    widest = groups.abs().amax(dim=1, keepdim=True)
    least = groups.amin(dim=1, keepdim=True)
    spread = groups.amax(dim=1, keepdim=True) - least
    grids = (
        (127, 0.0, widest),
        (7, 0.0, widest),
        (127, 0.0, torch.full_like(widest, most)),
        (255, least, spread),
        (15, least, spread),
    )
    for levels, base, width in grids:
        steps = (groups - base) / width.clamp_min(1e-30) * levels
        beside = float((steps - steps.round()).square().mean().sqrt())
        if beside < _BESIDE and float(steps.std()) >= 1:  # of values strewn evenly it is 0.29
            return True
    return False
