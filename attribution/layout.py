"""Where a stock decoder keeps its layers, attention modules and output projections, found by watching it run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attribution.heads import Call, attention, shape
from attribution.types import UnsupportedModel


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


def read_layout(model: PreTrainedModel) -> Layout:
    """Find a model's layout by one short run.

    Raises:
        UnsupportedModel: attention does not go through transformers' interface, or something stands between the heads
            and a plain linear output projection, or a layer is not one attention in one module of a list.
    """
    family = model.config.model_type
    attentions: list[nn.Module] = []
    merged: list[Tensor] = []
    outputs: dict[int, nn.Linear | Conv1D] = {}
    widths: list[tuple[int, int]] = []
    final: list[tuple[nn.Module, Tensor]] = []

    def attend(call: Call) -> Tensor:
        attentions.append(call.module)
        heads = call.heads()
        widths.append((heads.shape[1], heads.shape[3]))
        merged.append(heads.transpose(1, 2).flatten(2))
        return heads

    def seen(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        mine = bool(merged) and module not in outputs.values()
        if mine and args and args[0].shape == merged[-1].shape and torch.equal(args[0], merged[-1]):
            outputs.setdefault(len(merged) - 1, module)  # type: ignore[arg-type]

    def passed(module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            final.append((module, output))

    with ExitStack() as stack:
        for child in model.base_model.children():
            stack.callback(child.register_forward_hook(passed).remove)
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D):
                stack.callback(module.register_forward_pre_hook(seen).remove)
        stack.enter_context(attention(model, attend))
        stack.enter_context(torch.inference_mode())
        ids = torch.tensor([[0, 1, 2]], device=model.device)
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    layers, heads = shape(model)
    if [getattr(module, "layer_idx", None) for module in attentions] != list(range(layers)):
        raise UnsupportedModel(
            f"model type {family!r} calls attention {len(attentions)} times for {layers} layers; each must call it once"
        )
    if set(widths) != {(heads, widths[0][1])}:
        raise UnsupportedModel(f"model type {family!r} has layers of unequal heads: {sorted(set(widths))}")
    if sorted(outputs) != list(range(layers)):
        raise UnsupportedModel(
            f"model type {family!r} has something between its heads and a plain linear output projection, as quantized "
            "or gated attention has; load it in float32, or use the exact slow engine: --engine brute"
        )
    norms = [module for module, output in final if torch.equal(output, states)]
    if not norms:
        raise UnsupportedModel(f"model type {family!r} does not end in one norm after its layers")
    return Layout(
        tuple(_layers(model, attentions, family)),
        tuple(attentions),
        tuple(outputs[layer] for layer in range(layers)),
        norms[-1],
        heads,
        widths[0][1],
    )


def _layers(model: PreTrainedModel, attentions: list[nn.Module], family: str) -> list[nn.Module]:
    """The modules of the list that holds the attention modules, one each."""
    names = {id(module): name for name, module in model.named_modules()}
    for name, holder in model.named_modules():
        if isinstance(holder, nn.ModuleList) and len(holder) == len(attentions):
            inside = [names[id(module)].startswith(f"{name}.{index}.") for index, module in enumerate(attentions)]
            if all(inside):
                return list(holder)
    raise UnsupportedModel(f"model type {family!r} does not keep its layers in one list, one attention each")
