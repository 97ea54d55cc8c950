"""Where a model that computes attention in its own way keeps its heads, found by what its projections do to each other.

In every layer the projections before attention are made to give drawn numbers, and what then arrives at the output
projection is looked at. Nothing is taken from names of modules or from the order in which a family packs queries, keys
and values, and what does not behave as heads side by side is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.heads import decoder, shape
from attribution.types import UnsupportedModel

_TOKENS = 3
_CLOSE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}  # of numbers near 1; 1e-3 in float32 and float64
_APART = 100.0  # × queries: whatever clamps or normalizes them shows


@dataclass(frozen=True, slots=True)
class Projections:
    """The projections around the attention of each layer.

    Attributes:
        outputs: W_o by layer; it reads the heads' outputs side by side.
        queries: By layer, of each head the projection that gives its query, and where in what it gives.
        heads: Query heads a layer.
        d_head: Width of a head.
        unscalable: Why queries cannot be scaled; empty if they can.
    """

    outputs: tuple[nn.Module, ...]
    queries: tuple[tuple[tuple[nn.Module, int], ...], ...]
    heads: int
    d_head: int
    unscalable: str


def probe(model: PreTrainedModel) -> Projections:
    """Find the projections, and prove that they are what they seem.

    Raises:
        UnsupportedModel: the family and what is missing.
    """
    layers, heads = shape(model)
    family = model.config.model_type
    try:
        with torch.inference_mode():
            return _Probe(model, layers, heads).found()
    except _Missing as exc:
        raise UnsupportedModel(f"model type {family!r} has {exc}") from None
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as exc:  # the family's own
        raise UnsupportedModel(f"model type {family!r} does not run with drawn projections: {exc}") from exc


class _Missing(Exception):
    """What a family does not have."""


class _Probe:
    """Runs a model with drawn numbers in place of what its projections give."""

    def __init__(self, model: PreTrainedModel, layers: int, heads: int) -> None:
        self.model, self.layers, self.heads = model, layers, heads
        self.tolerance = _CLOSE.get(model.dtype, 1e-3)
        self.random = torch.Generator().manual_seed(0)
        self.holders = self._layers()
        self.output, self.inputs, widths = self._paths()
        size = widths.pop(self.output)
        self.d_head, uneven = divmod(size, heads)
        if uneven or any(width % self.d_head for width in widths.values()):
            raise _Missing(f"projections of {list(widths.values())} and {size} that {heads} heads do not divide")
        #: Each projection in blocks as wide as a head.
        self.blocks = [(path, start) for path in self.inputs for start in range(0, widths[path], self.d_head)]

    def found(self) -> Projections:
        values = self._values()
        queries = self._queries()
        self._nothing_beside()
        return Projections(
            outputs=tuple(self._module(layer, self.output) for layer in range(self.layers)),
            queries=tuple(
                tuple((self._module(layer, self.blocks[block][0]), self.blocks[block][1]) for block in queries)
                for layer in range(self.layers)
            ),
            heads=self.heads,
            d_head=self.d_head,
            unscalable=self._unscalable(queries, sorted(set(values))),
        )

    def _layers(self) -> list[nn.Module]:
        for module in decoder(self.model).modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.layers:
                return list(module)
        raise _Missing(f"no list of {self.layers} layers")

    def _module(self, layer: int, path: str) -> nn.Module:
        try:
            return self.holders[layer].get_submodule(path)
        except AttributeError:
            raise _Missing(
                f"no {path} in layer {layer}, as in layer 0: not every layer is the same attention"
            ) from None

    def _paths(self) -> tuple[str, list[str], dict[str, int]]:
        """Of the first layer the first projection that sees other positions, those before it, and their widths."""
        seen: dict[str, list[Tensor]] = {}
        widths: dict[str, int] = {}

        def watch(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
                seen.setdefault(path, []).append(args[0])
                widths[path] = output.shape[-1]

            return hook

        with ExitStack() as stack:
            for path, module in self.holders[0].named_modules():
                if isinstance(module, nn.Linear | Conv1D):
                    stack.callback(module.register_forward_hook(watch(path)).remove)
            for first in (0, 3):
                self._run(torch.tensor([[first, 1, 2]]))
        before: list[str] = []
        for path, inputs in seen.items():
            if len(inputs) != 2 or inputs[0].dim() != 3 or inputs[0].shape[:2] != (1, _TOKENS):
                raise _Missing(f"{path}, which does not run once on every position")
            if not torch.equal(inputs[0][:, -1], inputs[1][:, -1]):
                return path, before, {one: widths[one] for one in before} | {path: inputs[0].shape[-1]}
            before.append(path)
        raise _Missing("no plain linear output projection of attention")

    def _run(self, ids: Tensor) -> Tensor:
        states: Tensor = decoder(self.model)(input_ids=ids.to(self.model.device), use_cache=False).last_hidden_state
        return states

    def _attended(
        self, given: Mapping[tuple[str, int], Tensor], rows: int, *, unread: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """What the heads of each layer give when the blocks are made to be `given`, and the final states.

        With `unread` the output projections give 0. Shapes: (rows, tokens, heads, d_head) each, (rows, tokens, width).
        """
        found: list[Tensor] = []

        def give(path: str) -> Callable[..., Tensor]:
            mine = torch.cat([given[block] for block in self.blocks if block[0] == path], dim=-1)

            def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
                return mine.to(output)

            return hook

        def take(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            found.append(args[0].view(*args[0].shape[:-1], self.heads, self.d_head).double().cpu())

        with ExitStack() as stack:
            for layer in range(self.layers):
                for path in self.inputs:
                    stack.callback(self._module(layer, path).register_forward_hook(give(path)).remove)
                output = self._module(layer, self.output)
                stack.callback(output.register_forward_pre_hook(take).remove)
                if unread:
                    stack.callback(output.register_forward_hook(lambda *args: torch.zeros_like(args[2])).remove)
            states = self._run(torch.tensor([list(range(_TOKENS))]).repeat(rows, 1))
        if len(found) != self.layers:
            raise _Missing(f"{self.output} that runs {len(found)} times in {self.layers} layers")
        return found, states.double().cpu()

    def _draw(self, *size: int) -> Tensor:
        return torch.randn(*size, self.d_head, generator=self.random, dtype=torch.float64)

    def _values(self) -> list[int]:
        """The block with the values of each head: where it is the same at all positions, so is the head's output.

        It may be smaller by one number for the whole head (attention sinks), but nothing else may stand between.
        """
        fixed = self._draw(len(self.blocks))
        given = {block: fixed[place].expand(1, _TOKENS, -1) for place, block in enumerate(self.blocks)}
        layers = [one[0].transpose(0, 1) for one in self._attended(given, 1)[0]]
        return _agreed(
            [[self._value(head, fixed) for head in layer] for layer in layers],
            "something else than weighted means of values before its output projection, as a gate or a norm gives",
        )

    def _value(self, outputs: Tensor, fixed: Tensor) -> int | None:
        """Of one head, from its outputs (tokens, d_head)."""
        for place, value in enumerate(fixed):
            share = (outputs @ value) / (value @ value)
            near = (outputs - share[:, None] * value).abs().max() < self.tolerance * value.abs().max()
            if near and bool(((share > self.tolerance) & (share < 1 + self.tolerance)).all()):
                return place
        return None

    def _queries(self) -> list[int]:
        """The block with the query of each head.

        Another number at the last position moves the output of that head alone; another one at the first position moves
        nothing that comes later, as keys and values would.
        """
        count = len(self.blocks)
        drawn, others = self._draw(count, 1, _TOKENS), self._draw(count)
        given = {}
        for place, block in enumerate(self.blocks):
            rows = drawn[place].repeat(2 * count + 1, 1, 1)
            rows[1 + place, -1] = rows[1 + count + place, 0] = others[place]
            given[block] = rows
        found = []
        for outputs in self._attended(given, 2 * count + 1)[0]:
            moved = ((outputs[1:] - outputs[0]).abs().amax(-1) > self.tolerance).view(2, count, _TOKENS, self.heads)
            if moved[0, :, :-1].any():
                raise _Missing("attention that is not causal")
            alone = moved[0, :, -1].sum(-1).eq(1) & ~moved[1, :, 1:].flatten(1).any(-1)
            owners: list[list[int]] = [[] for _ in range(self.heads)]
            for block in alone.nonzero().flatten().tolist():
                owners[int(moved[0, block, -1].nonzero())].append(block)
            found.append([own[0] if len(own) == 1 else None for own in owners])
        return _agreed(found, "heads whose queries are not blocks of a projection, one for each head")

    def _nothing_beside(self) -> None:
        """Refuse a model in which the heads' outputs go elsewhere than through the output projection."""
        given = {block: self._draw(2, _TOKENS) for block in self.blocks}
        _, states = self._attended(given, 2, unread=True)
        if (states[0] - states[1]).abs().max() > self.tolerance * states.abs().max():
            raise _Missing(f"something beside {self.output} that reads its heads")

    def _unscalable(self, queries: Sequence[int], values: Sequence[int]) -> str:
        """Why ε times a query is not ε times its products with keys; the position's own bias, if any, may stay."""
        scales = (1.0, 0.5, 0.0, 0.0)
        drawn = self._draw(2, len(self.blocks), _TOKENS)
        rows = len(scales) * _TOKENS
        given = {}
        for place, block in enumerate(self.blocks):
            if place in values:
                given[block] = torch.eye(_TOKENS, dtype=torch.float64)[..., None].repeat(len(scales), 1, self.d_head)
                continue
            draws = torch.stack([drawn[number, place] for number in (0, 0, 0, 1)])
            if place in queries:
                draws = draws * (torch.tensor(scales) * _APART)[:, None, None]
            else:
                draws = draws / _APART
            given[block] = draws.repeat_interleave(_TOKENS, dim=0)
        for outputs in self._attended(given, rows)[0]:
            weights = outputs[:, -1].mean(-1).view(len(scales), _TOKENS, self.heads)
            odds = (weights[:, :-1] / weights[:, -1:]).log()
            full, half, none, other = odds.where(odds.isfinite(), 0.0)  # a window may hide the first positions
            if ((none - other).abs() > self.tolerance).any():
                return "attention that depends on more than products of queries and keys"
            if ((full + none - 2 * half).abs() > self.tolerance * (1 + full.abs())).any():
                return "a norm or a clamp between its query projection and attention"
        return ""


def _agreed(by_layer: Sequence[Sequence[int | None]], missing: str) -> list[int]:
    """What all layers say of their heads."""
    first = by_layer[0]
    found = [block for block in first if block is not None]
    if len(found) != len(first) or any(list(other) != list(first) for other in by_layer):
        raise _Missing(missing)
    return found
