"""Running only a part of a stock decoder: single modules compute something else while a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from attribution.heads import Call, decoder
from attribution.types import UnsupportedModel


class Enough(Exception):
    """Raised inside a stock module to end it early."""


class Recorder(DynamicCache):
    """An empty cache that writes down, by layer, what is put into it: not always what attention looks at (MLA)."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[int, tuple[Tensor, Tensor]] = {}

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a mask covers, and where they start."""
        return query_length, 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """What came in."""
        self.keys[layer_idx] = (key_states, value_states)
        return self.keys[layer_idx]


class Prefix(DynamicCache):
    """Keys and values of what prompts begin with, by layer (heads, kv heads, tokens, d_head), each for many rows."""

    def __init__(self, layers: Mapping[int, tuple[Tensor, Tensor]], length: int) -> None:
        super().__init__()
        self._given, self._length = layers, length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that came before."""
        return self._length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a mask covers, and where they start."""
        return self._length + query_length, 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the beginning and of the rest; nothing is kept."""
        given = self._given[layer_idx]
        return self._join(given[0], key_states), self._join(given[1], value_states)

    def _join(self, before: Tensor, new: Tensor) -> Tensor:
        rows, heads, tokens, width = new.shape
        joined = new.new_empty(rows, heads, self._length + tokens, width)
        shared = joined.view(len(before), rows // len(before), heads, -1, width)
        shared[..., : self._length, :] = before[:, None]
        joined[..., self._length :, :] = new
        return joined


class LastPosition:
    """A last layer's `forward` that computes keys and values of all positions, and the rest at the last one only."""

    def __init__(self, layer: nn.Module, last: Tensor, attend: Callable[[Call], Tensor]) -> None:
        self.stock, self.last, self._attend = layer.forward, last, attend
        self._seen: Call | None = None
        self._inside = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the family hands its layers)
        """What the stock layer gives, with one position a row."""
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        self._inside = True
        try:
            self.stock(*args, **kwargs)
        except Enough:
            pass
        cut = [self._cut(given, hidden.shape[1]) for given in args]
        return self.stock(*cut, **{name: self._cut(given, hidden.shape[1]) for name, given in kwargs.items()})

    def attend(self, call: Call) -> Tensor:
        """Attention of all layers: the usual, but for the last one."""
        if not self._inside:
            return self._attend(call)
        if self._seen is None:
            self._seen = call
            raise Enough
        call.key, call.value, call.mask = self._seen.key, self._seen.value, self._mask(self._seen)
        return self._attend(call)

    def _mask(self, seen: Call) -> Tensor:
        """Where the last positions may look, (rows, 1, 1, keys)."""
        keys, queries = seen.key.shape[2], seen.query.shape[2]
        if seen.mask is None:
            reach = self.last + (keys - queries)
            return (torch.arange(keys, device=reach.device) <= reach[:, None])[:, None, None]
        mask = seen.mask.expand(len(self.last), -1, -1, -1)
        return mask[torch.arange(len(self.last), device=mask.device), :, self.last][:, :, None]

    def _cut(self, given: Any, tokens: int) -> Any:  # noqa: ANN401
        """The last positions of what has a position for each token; a cache has been read already."""
        if isinstance(given, Cache):
            return None
        if isinstance(given, tuple):
            return tuple(self._cut(part, tokens) for part in given)
        if not isinstance(given, Tensor) or given.dim() not in (2, 3) or given.shape[1] != tokens:
            return given
        rows = given.expand(len(self.last), *given.shape[1:])
        return rows[torch.arange(len(self.last), device=rows.device), self.last][:, None]


@contextmanager
def forward(module: nn.Module, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else while the block lasts."""
    before = module.__dict__.get("forward")
    module.forward = replacement
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def final_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Next-token logits (…, vocabulary) of states after the final norm (…, width), by the model's own head."""
    flat = states.reshape(-1, 1, states.shape[-1])
    asked = 0

    def give(*_: object, **__: object) -> _States:
        nonlocal asked
        asked += 1
        return _States(last_hidden_state=flat)

    with forward(decoder(model), give):
        ids = torch.zeros(len(flat), 1, dtype=torch.long, device=flat.device)
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    if asked != 1:
        raise UnsupportedModel(
            f"model type {model.config.model_type!r} has a language head that is not one map of states"
        )
    return logits.view(*states.shape[:-1], -1)


class _States(BaseModelOutputWithPast):
    """Final states as a decoder gives them; what else a family asks for (a router's logits, …) is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
