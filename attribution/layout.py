"""Where a stock decoder keeps its layers, attention modules and output projections, found by watching it run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
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
    attentions: list[nn.Module] = []
    merged: list[Tensor] = []
    mapped: defaultdict[int, list[tuple[nn.Module, Tensor]]] = defaultdict(list)
    outputs: dict[int, nn.Linear | Conv1D] = {}
    widths: set[int] = set()
    final: list[tuple[nn.Module, Tensor]] = []
    entering: dict[int, object] = {}

    def attend(call: Call) -> Tensor:
        attentions.append(call.module)
        heads = call.heads()
        widths.add(heads.shape[3])
        merged.append(heads.transpose(1, 2).flatten(2))
        return heads

    def seen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if merged and args and args[0].shape == merged[-1].shape and torch.equal(args[0], merged[-1]):
            mapped[len(merged) - 1].append((module, output))

    def left(module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        if not attentions or module is not attentions[-1] or not isinstance(output, tuple):
            return
        for linear, mine in mapped[len(merged) - 1]:
            if torch.equal(mine, output[0]):
                outputs[len(merged) - 1] = linear  # type: ignore[assignment]

    def passed(module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            final.append((module, output))

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering[id(module)] = args[0] if args else kwargs.get("hidden_states")

    with ExitStack() as stack:
        for holder in model.modules():
            if isinstance(holder, nn.ModuleList):
                for item in holder:
                    stack.callback(item.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for child in decoder(model).children():
            stack.callback(child.register_forward_hook(passed).remove)
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D):
                stack.callback(module.register_forward_hook(seen).remove)
            if hasattr(module, "layer_idx"):
                stack.callback(module.register_forward_hook(left).remove)
        states = _watched(model, attend)

    layers, heads = shape(model)
    if len(widths) > 1:
        raise UnsupportedModel(f"model type {family!r} has layers of unequal heads: {sorted(widths)} wide{_BRUTE}")
    if sorted(outputs) != list(range(layers)):
        raise UnsupportedModel(
            f"model type {family!r} has something between its heads and a plain linear output projection, as quantized "
            f"or gated attention has; load it in float32{_BRUTE}"
        )
    if getattr(model.config.get_text_config(decoder=True), "num_kv_shared_layers", 0):
        raise UnsupportedModel(f"model type {family!r} has layers that read the keys of other layers{_BRUTE}")
    norms = [module for module, output in final if torch.equal(output, states)]
    if not norms or Counter(id(module) for module, _ in final)[id(norms[-1])] != 1:
        raise UnsupportedModel(f"model type {family!r} does not end in one norm of its own after its layers{_BRUTE}")
    found = _layers(model, attentions, family)
    if not all(isinstance(given := entering[id(layer)], Tensor) and given.shape == states.shape for layer in found):
        raise UnsupportedModel(f"model type {family!r} has more than one residual stream between its layers{_BRUTE}")
    return Layout(
        tuple(found),
        tuple(attentions),
        tuple(outputs[layer] for layer in range(layers)),
        norms[-1],
        heads,
        widths.pop(),
    )


def _layers(model: PreTrainedModel, attentions: list[nn.Module], family: str) -> list[nn.Module]:
    """The modules of the list that holds the attention modules, one each."""
    names = {id(module): name for name, module in model.named_modules()}
    for name, holder in model.named_modules():
        if isinstance(holder, nn.ModuleList) and len(holder) == len(attentions):
            inside = [names[id(module)].startswith(f"{name}.{index}.") for index, module in enumerate(attentions)]
            if all(inside):
                return list(holder)
    raise UnsupportedModel(f"model type {family!r} does not keep its layers in one list, one attention each{_BRUTE}")
