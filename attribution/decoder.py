"""A stock decoder run in part: what enters and leaves each layer, and the rest of a run from one layer on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attribution.heads import Call, attention, decoder
from attribution.layout import Layout, read_layout
from attribution.replay import Enough, LastPosition, Prefix, Recorder, forward
from attribution.types import Ablation, HeadId


@dataclass(frozen=True, slots=True)
class Cut:
    """Heads that are out in every case, and how."""

    gone: frozenset[HeadId]
    how: Ablation

    def attend(self, call: Call) -> Tensor:
        """Outputs of all heads of a layer, (batch, heads, queries, d_head)."""
        return self.apply(call, call.heads())

    def apply(self, call: Call, stock: Tensor) -> Tensor:
        """Stock outputs with those of the heads that are out replaced."""
        mine = [head for layer, head in sorted(self.gone) if layer == call.layer]
        return call.without(mine, self.how, stock)


@dataclass(slots=True)
class Trace:
    """What one run of some prompts left behind, by layer.

    Attributes:
        ids: Token ids padded on the right, (prompts, tokens).
        last: Last real position of each, (prompts).
        entering: What comes into the layer, (prompts, tokens, width).
        attended: What its attention gave, (prompts, tokens, width).
        change: h' - h of each head, (prompts, heads, tokens, d_head), if asked for.
    """

    ids: Tensor
    last: Tensor
    entering: list[Tensor]
    attended: list[Tensor]
    change: list[Tensor]


class Decoder:
    """A stock causal language model whose modules compute something else while a method runs.

    Args:
        model: In evaluation mode.

    Raises:
        UnsupportedModel: a layout that cannot be run in part exactly.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layout: Layout = read_layout(model)
        self.top = len(self.layout.layers) - 1

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        cut: Cut,
        cache: Prefix | Recorder | None = None,
        *,
        changes: bool = True,
    ) -> Trace:
        """Run the layers up to the last one's attention, and write down what enters and leaves each."""
        trace = Trace(*self._pad(prompts), [], [], [])

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            trace.entering.append(args[0] if args else kwargs["hidden_states"])

        def leave(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            trace.attended.append(output[0])
            if len(trace.attended) > self.top:
                raise Enough

        def attend(call: Call) -> Tensor:
            stock = call.heads()
            if changes:
                trace.change.append(call.ablated(range(self.layout.heads), cut.how, stock) - stock)
            return cut.apply(call, stock)

        with ExitStack() as stack:
            for layer, module in zip(self.layout.layers, self.layout.attentions, strict=True):
                stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            stack.enter_context(attention(self.model, attend))
            self._run(trace.ids, cache)
        return trace

    def finish(self, trace: Trace) -> Tensor:
        """Final states of the traced run itself, (prompts, width)."""
        return self._last_layer(trace.attended[self.top], trace.entering[self.top], trace.ids, trace.last)

    def without(self, trace: Trace, layer: int, heads: Sequence[int], cut: Cut, prefix: Prefix | None) -> Tensor:
        """Final states without each of some heads of a layer, (heads, prompts, width)."""
        attended, entering = self._changed(trace, layer, heads)
        ids, last = trace.ids.repeat(len(heads), 1), trace.last.repeat(len(heads))
        if layer == self.top:
            states = self._last_layer(attended, entering, ids, last)
        else:
            top = LastPosition(self.layout.layers[self.top], last, cut.attend)
            with (
                self._entered(layer, attended, entering),
                attention(self.model, top.attend),
                forward(self.layout.layers[self.top], top),
            ):
                states = self._run(ids, prefix)[:, 0]
        return states.view(len(heads), len(trace.ids), -1)

    def prefix_without(self, trace: Trace, layer: int, heads: Sequence[int], cut: Cut) -> Prefix:
        """Keys and values of a shared beginning, in the layers above, without each of some heads of a layer."""
        seen = Recorder()

        def attend(call: Call) -> Tensor:
            if call.layer == self.top:
                raise Enough
            return cut.attend(call)

        if layer < self.top:
            with self._entered(layer, *self._changed(trace, layer, heads)), attention(self.model, attend):
                self._run(trace.ids.expand(len(heads), -1), seen)
        return Prefix(seen.keys, trace.ids.shape[1])

    def _changed(self, trace: Trace, layer: int, heads: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Attention's output without each head, and what enters the layer, both (heads × prompts, tokens, width)."""
        weight = self.layout.output_weight(layer)[list(heads)]
        change = trace.change[layer][:, list(heads)].transpose(0, 1)  # (heads, prompts, tokens, d_head)
        attended = torch.matmul(change, weight[:, None]) + trace.attended[layer]
        return attended.flatten(0, 1), trace.entering[layer].expand_as(attended).flatten(0, 1)

    def _last_layer(self, attended: Tensor, entering: Tensor, ids: Tensor, last: Tensor) -> Tensor:
        """Final states from the last layer's attention on, at the last positions, (rows, width)."""
        rows = torch.arange(len(last), device=last.device)
        with self._entered(self.top, attended[rows, last][:, None], entering[rows, last][:, None]):
            return self._run(ids[rows, last][:, None], None)[:, 0]  # some layers look at the tokens (Gemma 4)

    @contextmanager
    def _entered(self, layer: int, attended: Tensor, entering: Tensor) -> Iterator[None]:
        """Skip the layers below, and give this one its input and its attention's output."""
        module = self.layout.layers[layer]
        stock = module.forward

        def skip(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the family hands its layers)
            return args[0] if args else kwargs["hidden_states"]

        def enter(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            kwargs.pop("hidden_states", None)
            return stock(entering, *args[1:], **kwargs)

        with ExitStack() as stack:
            for below in self.layout.layers[:layer]:
                stack.enter_context(forward(below, skip))
            stack.enter_context(forward(module, enter))
            stack.enter_context(forward(self.layout.attentions[layer], lambda *_, **__: (attended, None)))
            yield

    def _run(self, ids: Tensor, cache: Prefix | Recorder | None) -> Tensor:
        """The stock decoder until its final norm or until enough is seen; what the norm gave, (rows, positions, width).

        There is no padding mask, since what comes later changes nothing before.
        """
        states: list[Tensor] = []

        def end(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            states.append(output)
            raise Enough

        handle = self.layout.norm.register_forward_hook(end)
        try:
            decoder(self.model)(input_ids=ids, past_key_values=cache, use_cache=False)
        except Enough:
            pass
        finally:
            handle.remove()
        return states[0] if states else torch.empty(0)

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, prompts))
        rows = [[*prompt, *[prompt[-1]] * (longest - len(prompt))] for prompt in prompts]
        last = [len(prompt) - 1 for prompt in prompts]
        return torch.tensor(rows, device=self.model.device), torch.tensor(last, device=self.model.device)
