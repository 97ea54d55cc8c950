"""Where a stock decoder keeps its layers, attention modules and output projections, found by watching it run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.heads import Call, attention, decoder, shape
from attribution.types import UnsupportedModel

_BRUTE = "; the slow exact engine can run it: --engine brute"


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a decoder that the engine replaces or reads.

    Attributes:
        layers: Decoder layers, in order.
        attentions: Their attention modules.
        outputs: Their output projections W_o: linear maps from the heads' outputs, side by side, to the residual width.
        norm: The final norm, whose output are the states.
        heads: Query heads a layer.
        d_head: Width of a head.
    """

    layers: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    outputs: tuple[nn.Linear | Conv1D, ...]
    norm: nn.Module
    heads: int
    d_head: int

    def output_weight(self, layer: int) -> Tensor:
        """W_o by head, (heads, d_head, width)."""
        weight = self.outputs[layer].weight
        columns = weight if isinstance(self.outputs[layer], Conv1D) else weight.T
        return columns.reshape(self.heads, self.d_head, -1)


def check_attention(model: PreTrainedModel) -> None:
    """Refuse a model of which some layer does not call attention exactly once, with the configured number of heads.

    Raises:
        UnsupportedModel: such a model, one that is not causal, or one that does not use transformers' interface.
    """
    widths: list[int] = []
    called: list[int] = []

    def attend(call: Call) -> Tensor:
        heads = call.heads()
        called.append(call.layer)
        widths.append(heads.shape[1])
        return heads

    _watched(model, attend)
    layers, heads = shape(model)
    family = model.config.model_type
    if called != list(range(layers)):
        raise UnsupportedModel(
            f"model type {family!r} calls attention {len(called)} times for {layers} layers; each must call it once"
        )
    if set(widths) != {heads}:
        raise UnsupportedModel(f"model type {family!r} has layers of {sorted(set(widths))} heads, not of {heads} each")


def check_interface(model: PreTrainedModel) -> None:
    """Refuse a model whose attention cannot be computed through transformers' interface.

    Raises:
        UnsupportedModel: such a model, or one that is not causal.
    """
    _watched(model, Call.heads)


def _watched(model: PreTrainedModel, attend: Callable[[Call], Tensor]) -> Tensor:
    """Final states of one short run, (1, tokens, width), with attention computed by `attend`."""
    ids = torch.tensor([[0, 1, 2]], device=model.device)
    run = decoder(model)
    with attention(model, attend), torch.inference_mode():
        try:
            states: Tensor = run(input_ids=ids, use_cache=False).last_hidden_state
        except (RuntimeError, TypeError, ValueError, AttributeError) as exc:  # what the family itself makes of it
            raise UnsupportedModel(
                f"model type {model.config.model_type!r} does not run with attention of the interface: {exc}"
            ) from exc
    return states


def read_layout(model: PreTrainedModel) -> Layout:
    """Find a model's layout by one short run.

    Raises:
        UnsupportedModel: attention does not go through transformers' interface, or something stands between the heads
            and a plain linear output projection, or a layer is not one attention in one module of a list.
    """
    check_attention(model)
    family = model.config.model_type
    seen = _Seen()
    with seen.hooked(model):
        states = _watched(model, seen.attend)

    layers, heads = shape(model)
    if len(seen.widths) > 1:
        raise UnsupportedModel(f"model type {family!r} has layers of unequal heads: {sorted(seen.widths)} wide{_BRUTE}")
    if sorted(seen.outputs) != list(range(layers)):
        raise UnsupportedModel(
            f"model type {family!r} has something between its heads and a plain linear output projection, as quantized "
            f"or gated attention has; load it in float32{_BRUTE}"
        )
    if getattr(model.config.get_text_config(decoder=True), "num_kv_shared_layers", 0):
        raise UnsupportedModel(f"model type {family!r} has layers that read the keys of other layers{_BRUTE}")
    if any(hasattr(module, "indexer") for module in seen.attentions):
        raise UnsupportedModel(f"model type {family!r} chooses by an indexer which keys attention sees{_BRUTE}")
    norms = [module for module, output in seen.parts if torch.equal(output, states)]
    if not norms or Counter(id(module) for module, _ in seen.parts)[id(norms[-1])] != 1:
        raise UnsupportedModel(f"model type {family!r} does not end in one norm of its own after its layers{_BRUTE}")
    found = _layers(model, seen.attentions, family)
    if not all(isinstance(given := seen.entered[id(each)], Tensor) and given.shape == states.shape for each in found):
        raise UnsupportedModel(f"model type {family!r} has more than one residual stream between its layers{_BRUTE}")
    outputs = tuple(seen.outputs[layer] for layer in range(layers))
    return Layout(tuple(found), tuple(seen.attentions), outputs, norms[-1], heads, seen.widths.pop())


class _Seen:
    """What one run of a model shows of its modules.

    Attributes:
        attentions: Modules that called attention, in order.
        widths: Of their heads.
        outputs: By the number of the call, the linear map from its heads, side by side, to what its module gives.
        parts: The decoder's own modules that give a tensor, each time with it.
        entered: What entered each item of a list of modules, by its id.
    """

    def __init__(self) -> None:
        self.attentions: list[nn.Module] = []
        self.widths: set[int] = set()
        self.outputs: dict[int, nn.Linear | Conv1D] = {}
        self.parts: list[tuple[nn.Module, Tensor]] = []
        self.entered: dict[int, object] = {}
        self._merged: list[Tensor] = []  # heads of each call, side by side
        self._mapped: defaultdict[int, list[tuple[nn.Linear | Conv1D, Tensor]]] = defaultdict(list)

    @contextmanager
    def hooked(self, model: PreTrainedModel) -> Iterator[None]:
        """Watch a model's modules while the block lasts."""
        with ExitStack() as stack:
            for module in model.modules():
                if isinstance(module, nn.ModuleList):
                    for item in module:
                        stack.callback(item.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                if isinstance(module, nn.Linear | Conv1D):
                    stack.callback(module.register_forward_hook(self._map).remove)
                if hasattr(module, "layer_idx"):
                    stack.callback(module.register_forward_hook(self._leave).remove)
            for child in decoder(model).children():
                stack.callback(child.register_forward_hook(self._pass).remove)
            yield

    def attend(self, call: Call) -> Tensor:
        """The usual attention."""
        self.attentions.append(call.module)
        heads = call.heads()
        self.widths.add(heads.shape[3])
        self._merged.append(heads.transpose(1, 2).flatten(2))
        return heads

    def _map(self, module: nn.Linear | Conv1D, args: tuple[Tensor, ...], output: Tensor) -> None:
        merged = self._merged
        if merged and args and args[0].shape == merged[-1].shape and torch.equal(args[0], merged[-1]):
            self._mapped[len(merged) - 1].append((module, output))

    def _leave(self, module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        if not self.attentions or module is not self.attentions[-1] or not isinstance(output, tuple):
            return
        call = len(self._merged) - 1
        for linear, mapped in self._mapped[call]:
            if torch.equal(mapped, output[0]):
                self.outputs[call] = linear

    def _pass(self, module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            self.parts.append((module, output))

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.entered[id(module)] = args[0] if args else kwargs.get("hidden_states")


def _layers(model: PreTrainedModel, attentions: list[nn.Module], family: str) -> list[nn.Module]:
    """The modules of the list that holds the attention modules, one each."""
    names = {id(module): name for name, module in model.named_modules()}
    for name, holder in model.named_modules():
        if isinstance(holder, nn.ModuleList) and len(holder) == len(attentions):
            inside = [names[id(module)].startswith(f"{name}.{index}.") for index, module in enumerate(attentions)]
            if all(inside):
                return list(holder)
    raise UnsupportedModel(f"model type {family!r} does not keep its layers in one list, one attention each{_BRUTE}")
