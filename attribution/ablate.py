"""Taking heads out of a stock model while a block lasts.

Where attention goes through transformers' interface, inside it. Elsewhere by hooks on the projections around it: a
head's query, or its slice of what the output projection reads, is changed. Both are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attribution.heads import Call, attention, check_heads
from attribution.layout import check_attention, check_interface
from attribution.probe import Projections, probe
from attribution.types import Ablation, HeadId, UnsupportedModel


@dataclass(frozen=True, slots=True)
class Way:
    """How heads of a model are taken out.

    Attributes:
        projections: Those that are hooked; None where heads are taken out inside transformers' interface.
    """

    projections: Projections | None


def way(model: PreTrainedModel, *, every: bool = False) -> Way:
    """Find the way for a model: the interface, or else hooks.

    Args:
        model: A stock causal language model.
        every: Whether every head shall be taken out in turn, so that all layers must be alike.

    Raises:
        UnsupportedModel: neither is exact.
    """
    try:
        (check_attention if every else check_interface)(model)
    except UnsupportedModel as without:
        try:
            return Way(probe(model))
        except UnsupportedModel as exc:
            raise UnsupportedModel(f"{without}; and hooks on its projections do not do: {exc}") from without
    return Way(None)


@contextmanager
def ablate(
    model: PreTrainedModel,
    heads: Collection[HeadId],
    ablation: Ablation | None = None,
    *,
    by: Way | None = None,
) -> Iterator[None]:
    """Take heads out of a stock model while the block lasts; of blocks inside one another only the inner one counts.

    Args:
        model: A stock causal language model; its weights stay untouched.
        heads: Query heads; none leaves the model as it is.
        ablation: How; undifferentiated queries by default.
        by: What `way` said of the model, where it was asked already.

    Raises:
        UnsupportedModel: the family's attention cannot be changed exactly. Also at the end of the block, if a layer
            whose heads should be out ran without attention.
        AttributionError: the model has no such head.
    """
    how = ablation or Ablation()
    check_heads(model, heads)
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, head in sorted(set(heads)):
        by_layer[layer].append(head)
    reached: set[int] = set()
    with _silent(model):
        found = (by or way(model)).projections
        with _hooked(model, found, by_layer, how, reached) if found else _attended(model, by_layer, how, reached):
            yield
    if reached and (missed := sorted(by_layer.keys() - reached)):
        raise UnsupportedModel(
            f"layers {', '.join(map(str, missed))} of model type {model.config.model_type!r} ran without attention, so "
            "their heads were not taken out; name heads of other layers"
        )


@contextmanager
def _attended(
    model: PreTrainedModel, by_layer: Mapping[int, Sequence[int]], how: Ablation, reached: set[int]
) -> Iterator[None]:
    """Change what the interface computes."""

    def attend(call: Call) -> Tensor:
        reached.add(call.layer)
        return call.without(by_layer.get(call.layer, ()), how, call.heads())

    with attention(model, attend):
        yield


@contextmanager
def _hooked(
    model: PreTrainedModel,
    found: Projections,
    by_layer: Mapping[int, Sequence[int]],
    how: Ablation,
    reached: set[int],
) -> Iterator[None]:
    """Change what the projections around attention give and get."""
    by_query = how.method in ("query", "key", "mean_query")
    if by_layer and by_query and found.unscalable:
        raise UnsupportedModel(
            f"model type {model.config.model_type!r} has {found.unscalable}, so method {how.method!r} is not exact; "
            "take value or mean"
        )
    with ExitStack() as stack:
        for layer, output in enumerate(found.outputs):
            out = by_layer.get(layer, ())
            hook = _Outputs(reached, layer, found.heads, () if by_query else out, how)
            stack.callback(output.register_forward_pre_hook(hook).remove)
            if by_query and out:
                places: dict[nn.Module, list[int]] = defaultdict(list)
                for projection, start in found.queries[layer]:
                    places[projection].append(start)
                if len(places) != 1:
                    raise UnsupportedModel(
                        f"model type {model.config.model_type!r} has queries of one layer in {len(places)} projections"
                    )
                ((projection, starts),) = places.items()
                change = _Queries([starts[head] for head in out], starts, found.d_head, how)
                stack.callback(projection.register_forward_hook(change).remove)
        yield


class _Change:
    """A hook of this module; an outer block's are silent within an inner one."""

    silent = False


class _Outputs(_Change):
    """Before an output projection: other numbers in the places of some heads."""

    def __init__(self, reached: set[int], layer: int, heads: int, out: Sequence[int], how: Ablation) -> None:
        self.reached, self.layer, self.heads, self.out, self.how = reached, layer, heads, list(out), how

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.silent:
            return None
        self.reached.add(self.layer)
        if not self.out:
            return None
        stock = args[0].reshape(*args[0].shape[:-1], self.heads, -1)
        index = torch.tensor(self.out, device=stock.device)
        if self.how.method == "value":
            other = self.how.epsilon * stock[..., self.out, :]
        else:
            other = stock.mean(dim=-2, keepdim=True).expand(*stock.shape[:-2], len(self.out), -1)
        return (stock.index_copy(-2, index, other.contiguous()).flatten(-2), *args[1:])


class _Queries(_Change):
    """After a query projection: smaller queries of some heads, or the mean of all heads' in their place."""

    def __init__(self, starts: Sequence[int], every: Sequence[int], d_head: int, how: Ablation) -> None:
        self.starts, self.every, self.d_head, self.how = starts, every, d_head, how

    def __call__(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.silent:
            return output
        changed = output.clone()
        blocks = [output[..., start : start + self.d_head] for start in self.every]
        mean = torch.stack(blocks).mean(dim=0) if self.how.method == "mean_query" else None
        for start in self.starts:
            mine = slice(start, start + self.d_head)
            changed[..., mine] = output[..., mine] * self.how.epsilon if mean is None else mean
        return changed


@contextmanager
def _silent(model: PreTrainedModel) -> Iterator[None]:
    """Silence the hooks of outer blocks."""
    every: list[object] = []
    for module in model.modules():
        every += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    outer = [hook for hook in every if isinstance(hook, _Change) and not hook.silent]
    for hook in outer:
        hook.silent = True
    try:
        yield
    finally:
        for hook in outer:
            hook.silent = False
