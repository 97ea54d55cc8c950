"""Taking heads out of a checkpoint for good: new weights that compute what the forward mask computes."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.checkpoint import Checkpoint
from attribution.heads import check_heads
from attribution.layout import Layout, read_layout
from attribution.types import Ablation, HeadId, UnsupportedModel

NOTE = "surgery.json"


@torch.no_grad()
def remove(model: PreTrainedModel, heads: Collection[HeadId], ablation: Ablation | None = None) -> PreTrainedModel:
    """A copy of a model with heads taken out of its weights; the given one stays as it is.

    Args:
        model: A stock causal language model in evaluation mode.
        heads: Query heads.
        ablation: How: `value` scales the head's rows of W_o, `mean` hands them to all heads of the layer, `query`
            scales the head's part of the query projection.

    Raises:
        UnsupportedModel: the ablation has no form in this family's weights.
        AttributionError: the model has no such head.
    """
    how = ablation or Ablation()
    check_heads(model, heads)
    cut = copy.deepcopy(model)
    layout = read_layout(cut)
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
    return cut


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
    norm = next((part for name in ("q_norm", "q_layernorm") if (part := getattr(module, name, None)) is not None), None)
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        weight = getattr(norm, "weight", None)
        if weight is None or weight.shape != (layout.heads * d_head,):
            raise UnsupportedModel(
                f"model type {family!r} norms its queries by weights that all heads share, which undoes any scaling of "
                "one head's; remove heads by value or mean"
            )
        yield weight, rows
        if getattr(norm, "bias", None) is not None:
            yield norm.bias, rows  # type: ignore[misc]
        return
    if isinstance(projection := getattr(module, "q_proj", None), nn.Linear):
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
