"""Attention heads of stock transformers models: seeing every call of attention, and computing it.

Works through the registered attention interface, so after rotary positions, query norms and fused projections, and for
each *query* head also where heads share keys. The model's weights are never touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attribution.types import Ablation, AttributionError, HeadId, UnsupportedModel

# What some families hand to attention beside queries, keys and values, and what this module does not compute.
_REFUSED = ("s_aux", "sinks", "position_bias", "head_mask", "alibi")
_names = itertools.count()


class Call:
    """One call of attention by one layer, its heads computed on demand.

    Attributes:
        module: The attention module that calls; its `layer_idx` is the layer.
        query: (batch, heads, queries, d_head).
        key: (batch, heads or fewer, keys, d_head); `value` likewise.
        mask: Boolean, True where a query may look, broadcastable to (batch, 1, queries, keys); None is plainly causal.
    """

    __slots__ = ("dropout", "key", "mask", "module", "query", "scaling", "softcap", "value")

    def __init__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        softcap: float | None = None,
        **more: object,
    ) -> None:
        if present := [name for name in _REFUSED if more.get(name) is not None]:
            raise UnsupportedModel(
                f"attention of {type(module).__name__} has {', '.join(present)}, which ablation does not compute"
            )
        if getattr(module, "is_causal", True) is False:
            raise UnsupportedModel(f"attention of {type(module).__name__} is not causal; audit a causal language model")
        if mask is not None and mask.shape[1] != 1:
            raise UnsupportedModel(
                f"attention of {type(module).__name__} has a mask for each head, which ablation does not compute"
            )
        self.module, self.query, self.key, self.value, self.mask = module, query, key, value, mask
        self.scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        self.dropout, self.softcap = dropout, softcap

    @property
    def layer(self) -> int:
        """Number of the layer."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]

    def heads(self) -> Tensor:
        """Outputs of all heads before the output projection, (batch, heads, queries, d_head)."""
        return self._attend(self.query, torch.arange(self.query.shape[1], device=self.query.device))

    def _attend(self, query: Tensor, heads: Tensor) -> Tensor:
        """Outputs of these queries in the places of these heads."""
        key, value = self.key, self.value
        if self.query.shape[1] != key.shape[1] or len(heads) != key.shape[1]:
            shared = heads // (self.query.shape[1] // key.shape[1])
            key, value = key[:, shared], value[:, shared]
        queries, keys = query.shape[2], key.shape[2]
        mask = self.mask
        if mask is None and 1 < queries < keys:
            mask = query.new_ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if self.softcap is None:
            return scaled_dot_product_attention(
                query,
                key,
                value,
                mask,
                dropout_p=self.dropout,
                is_causal=mask is None and queries > 1,
                scale=self.scaling,
            )
        if mask is None:
            mask = query.new_ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        scores = torch.tanh(query @ key.mT * (self.scaling / self.softcap)) * self.softcap
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
        return drop(weights, self.dropout, training=self.dropout > 0) @ value

    def ablated(self, heads: Sequence[int], ablation: Ablation, stock: Tensor) -> Tensor:
        """What stands in the place of `heads`, (batch, len(heads), queries, d_head).

        Args:
            heads: Query heads of this layer.
            ablation: How they are taken out.
            stock: Outputs of all heads of this call, as `heads()` gives them.
        """
        if ablation.method == "value":
            return ablation.epsilon * stock[:, list(heads)]
        if ablation.method == "mean":
            return stock.mean(dim=1, keepdim=True).expand(-1, len(heads), -1, -1)
        index = torch.as_tensor(heads, device=stock.device)
        if ablation.method == "mean_query":
            return self._attend(self.query.mean(dim=1, keepdim=True).expand(-1, len(index), -1, -1), index)
        return self._attend(self.query[:, index] * ablation.epsilon, index)  # scaled keys would give the same scores

    def without(self, heads: Sequence[int], ablation: Ablation, stock: Tensor) -> Tensor:
        """Outputs of all heads with those of `heads` ablated, (batch, heads, queries, d_head); see `ablated`."""
        if not heads:
            return stock
        index = torch.as_tensor(heads, device=stock.device)
        return stock.index_copy(1, index, self.ablated(heads, ablation, stock).contiguous())


Attend = Callable[[Call], Tensor]


@contextmanager
def attention(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Let `attend` compute attention while the block lasts, also backwards and in training.

    Args:
        model: A stock causal language model.
        attend: From a call to all heads' outputs, (batch, heads, queries, d_head).

    Raises:
        UnsupportedModel: the family does not use the attention interface of transformers.
    """
    if not getattr(model, "_supports_attention_backend", False):
        family = getattr(model.config, "model_type", type(model).__name__)
        raise UnsupportedModel(f"model type {family!r} does not compute attention through transformers' interface")

    def compute(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **more: Any,  # noqa: ANN401 (what the family hands over)
    ) -> tuple[Tensor, None]:
        call = Call(module, query, key, value, attention_mask, **more)
        return attend(call).transpose(1, 2).contiguous(), None

    name = f"airlock_{next(_names)}"
    found = (getattr(module, "config", None) for module in model.modules())
    configs: dict[int, Any] = {id(config): config for config in found if hasattr(config, "_attn_implementation")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS.register(name, compute)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, _mask)
    try:
        for config in configs.values():
            config._attn_implementation = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        for registered in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
            registered._global_mapping.pop(name)  # there is no public way to take a name back


def _mask(*, batch_size: int, attention_mask: Tensor | None = None, **more: Any) -> Tensor | None:  # noqa: ANN401
    """One mask for the whole batch where nothing in it is padding."""
    return sdpa_mask(batch_size if attention_mask is not None else 1, attention_mask=attention_mask, **more)


def shape(model: PreTrainedModel) -> tuple[int, int]:
    """Layers and query heads a layer."""
    config = model.config.get_text_config(decoder=True)
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    if not isinstance(layers, int) or not isinstance(heads, int):
        raise UnsupportedModel(
            f"model type {config.model_type!r} does not have the same number of attention heads in every layer"
        )
    return layers, heads


def decoder(model: PreTrainedModel) -> nn.Module:
    """What takes token ids and gives the states after the final norm, without the model's language head.

    Raises:
        UnsupportedModel: a model that does not keep the two apart.
    """
    found = model.get_decoder()  # type: ignore[no-untyped-call]
    if found is model:
        found = getattr(model, "model", model)
    if found is model or not isinstance(found, nn.Module):
        raise UnsupportedModel(f"model type {model.config.model_type!r} has no decoder apart from its language head")
    return found


def all_heads(model: PreTrainedModel) -> list[HeadId]:
    """Every query head, in order."""
    layers, heads = shape(model)
    return [HeadId(layer, head) for layer in range(layers) for head in range(heads)]


def check_evaluation(model: PreTrainedModel) -> None:
    """Refuse a model in training mode.

    Raises:
        AttributionError: it is.
    """
    if model.training:
        raise AttributionError("the model is in training mode, where dropout makes scores random; call model.eval()")


def check_heads(model: PreTrainedModel, heads: Collection[HeadId]) -> None:
    """Refuse heads that the model does not have.

    Raises:
        AttributionError: a head that is not there.
    """
    layers, count = shape(model)
    for head in heads:
        if not (0 <= head.layer < layers and 0 <= head.head < count):
            raise AttributionError(
                f"head {head} is not in the model: it has {layers} layers of {count} heads, from 0.0"
            )
