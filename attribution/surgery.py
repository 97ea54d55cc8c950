"""Taking heads out of a checkpoint for good: new weights that compute what the forward mask computes."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.ablate import ablate
from attribution.checkpoint import Checkpoint
from attribution.heads import Call, attention, check_heads, decoder
from attribution.layout import Layout, read_layout
from attribution.types import Ablation, EngineMismatch, HeadId, UnsupportedModel

NOTE = "surgery.json"
_NORMS = ("q_norm", "q_layernorm", "qk_norm")  # of queries
_CLOSE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}  # × the largest that attention gives; 1e-4 in float32 and float64


@torch.no_grad()
def remove(model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation | None = None) -> PreTrainedModel:
    """A copy of a model with heads taken out of its weights; the given one stays as it is.

    Args:
        model: A stock causal language model in evaluation mode.
        heads: Query heads.
        ablation: How: `value` scales the head's columns of W_o, `mean` hands them to all heads of the layer, `query`
            scales the head's part of the query projection.

    Raises:
        UnsupportedModel: the ablation has no form in this family's weights.
        EngineMismatch: the new weights do not compute what the forward mask computes.
        AttributionError: the model has no such head.
    """
    how = ablation or Ablation()
    check_heads(model, heads)
    stock = read_layout(model)
    cut, layout = copy.deepcopy((model, stock))
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, head in sorted(set(heads)):
        by_layer[layer].append(head)
    for layer, out in by_layer.items():
        if how.method == "query":
            for parameter, rows in _query(layout, layer, out, cut.config.model_type):
                parameter[rows] *= how.epsilon
        elif how.method in ("value", "mean"):
            _output(layout, layer, out, how)
        else:
            raise UnsupportedModel(
                f"method {how.method!r} has no form in the weights: keys are shared by query heads, and a mean of "
                "queries is taken after rotary positions; remove heads by value, mean or query"
            )
    _compare(model, stock, cut, layout, by_layer, how)
    return cut


def _compare(
    model: PreTrainedModel,
    stock: Layout,
    cut: PreTrainedModel,
    layout: Layout,
    by_layer: Mapping[int, Sequence[int]],
    how: Ablation,
) -> None:
    """Refuse a cut whose attention does not give, from the states of one short masked run, what the mask gives.

    Layer by layer, so that roundings do not add up, nor send tokens to other experts.
    """
    largest: dict[int, float] = {}  # of what the layer's attention gives with all heads

    def note_size(layer: int) -> Callable[..., None]:
        def see(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            largest[layer] = float(output[0].abs().max())

        return see

    def watch(layer: int) -> Callable[..., None]:
        def compare(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: tuple[Tensor, ...]) -> None:
            masked = output[0]
            apart = float((layout.attentions[layer](*args, **kwargs)[0] - masked).abs().max())
            allowed = _CLOSE.get(masked.dtype, 1e-4) * max(largest[layer], float(masked.abs().max()))
            if not apart <= allowed:
                named = ", ".join(str(HeadId(layer, head)) for head in by_layer[layer])
                raise EngineMismatch(
                    f"the weights of {model.config.model_type!r} without {named} by {how} do not compute what the "
                    f"forward mask does (apart {apart:.2g}, allowed {allowed:.2g}); remove heads by "
                    f"{'value or mean' if how.method == 'query' else 'another method'}, and report the model type"
                )

        return compare

    ids = torch.tensor([[0, 1, 2] * 3], device=model.device)
    heads = [HeadId(layer, head) for layer, out in by_layer.items() for head in out]
    with ExitStack() as stack:
        for layer in by_layer:
            stack.callback(stock.attentions[layer].register_forward_hook(note_size(layer)).remove)
        decoder(model)(input_ids=ids, use_cache=False)
    with ExitStack() as stack:
        stack.enter_context(ablate(model, heads, how))
        stack.enter_context(attention(cut, Call.heads))
        for layer in by_layer:
            hooked = stock.attentions[layer].register_forward_hook(watch(layer), with_kwargs=True)
            stack.callback(hooked.remove)
        decoder(model)(input_ids=ids, use_cache=False)


def _output(layout: Layout, layer: int, heads: list[int], how: Ablation) -> None:
    weight = layout.output_weight(layer).clone()  # (heads, d_head, width)
    if how.method == "value":
        weight[heads] *= how.epsilon
    else:
        shared = weight[heads].sum(0) / layout.heads
        weight[heads] = 0.0
        weight += shared
    flat = weight.reshape(-1, weight.shape[-1])
    layout.outputs[layer].weight.copy_(flat if isinstance(layout.outputs[layer], Conv1D) else flat.T)


def _query(
    layout: Layout, layer: int, heads: list[int], family: str
) -> Iterator[tuple[Tensor, Tensor | tuple[slice, Tensor]]]:
    """What makes the queries of these heads, parameter by parameter, and where in it."""
    module = layout.attentions[layer]
    d_head = getattr(module, "head_dim", layout.d_head)
    rows = torch.cat([torch.arange(head * d_head, (head + 1) * d_head) for head in heads])
    norm = next((part for name in _NORMS if (part := getattr(module, name, None)) is not None), None)
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        weight = getattr(norm, "weight", None)
        if weight is None or weight.shape != (layout.heads * d_head,):
            by = "no weights" if weight is None else "weights that all heads share"
            raise UnsupportedModel(
                f"model type {family!r} norms its queries by {by}, which undoes any scaling of one head's; remove "
                "heads by value or mean"
            )
        yield weight, rows
        if getattr(norm, "bias", None) is not None:
            yield norm.bias, rows  # type: ignore[misc]
        return
    if isinstance(projection := getattr(module, "q_proj", None), nn.Linear):
        if projection.out_features != layout.heads * d_head:
            raise UnsupportedModel(
                f"model type {family!r} has queries {projection.out_features} wide, not {layout.heads} heads of "
                f"{d_head}; remove heads by value or mean"
            )
        yield from _rows(projection, rows)
    elif isinstance(projection := getattr(module, "qkv_proj", None), nn.Linear) and family == "phi3":
        yield from _rows(projection, rows)  # queries of all heads come first
    elif isinstance(projection := getattr(module, "query_key_value", None), nn.Linear) and family == "gpt_neox":
        yield from _rows(
            projection, torch.cat([torch.arange(3 * head * d_head, (3 * head + 1) * d_head) for head in heads])
        )
    elif isinstance(projection := getattr(module, "c_attn", None), Conv1D) and family == "gpt2":
        yield projection.weight, (slice(None), rows)
        yield projection.bias, rows
    else:
        raise UnsupportedModel(
            f"model type {family!r} has no query projection of a form that is known; remove heads by value or mean"
        )


def _rows(projection: nn.Linear, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield projection.weight, rows
    if projection.bias is not None:
        yield projection.bias, rows


def note(source: Checkpoint, heads: Collection[HeadId], ablation: Ablation) -> dict[str, object]:
    """What was done, for a JSON file beside the new weights."""
    return {
        "heads": [str(head) for head in sorted(set(heads))],
        "ablation": str(ablation),
        "source": source.path.resolve().name,
        "source_sha256": source.sha256,
    }
