"""Last-position states of a stock decoder without each of its heads: exact, and far cheaper than a run a head.

Heads × prompts form one batch. For a head of layer l, the layers below are not run again (the residual stream that
enters l is recorded); in l the attention output is changed through the linear output projection,
`attn + (h'_i - h_i) W_o[i]`, and only what follows is computed; the last layer is run at the last position alone.
What all prompts begin with is run once a head. All of it is the stock modules' own code: the engine replaces the
`forward` of single modules while it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from attribution.heads import Call, attention, check_heads
from attribution.layout import Layout, read_layout
from attribution.replay import Enough, LastPosition, Prefix, final_logits, forward
from attribution.types import Ablation, AttributionError, HeadId

Ids = Sequence[Sequence[int]]
_SHARED = 8  # tokens: a shorter beginning is not worth a run of its own


@dataclass(frozen=True, slots=True)
class Batch:
    """States of some prompts without some heads of a layer, one head at a time.

    Attributes:
        layer: The layer.
        heads: Heads of it.
        prompts: Their places in the given order.
        states: After the final norm, last position, (heads, prompts, width).
    """

    layer: int
    heads: tuple[int, ...]
    prompts: tuple[int, ...]
    states: Tensor


@dataclass(slots=True)
class _Trace:
    """What one unablated run (or one without the group) leaves behind, by layer.

    `entering` (prompts, tokens, width) comes into a layer, `attended` (prompts, tokens, width) out of its attention,
    `change` (prompts, heads, tokens, d_head) is h' - h, `keys` what its attention looked at.
    """

    ids: Tensor
    last: Tensor
    entering: list[Tensor]
    attended: list[Tensor]
    change: list[Tensor]
    keys: list[tuple[Tensor, Tensor]]


class Engine:
    """Runs a stock causal language model without single heads, many of them at once.

    Args:
        model: In evaluation mode. Its weights are never changed, and its modules are as before after every call.
        batch_tokens: Tokens computed at once, heads × prompts × length: what memory and cache allow.
        shared_prefix: Run what all prompts begin with once a head.

    Raises:
        UnsupportedModel: the model's layout is not one that the engine computes exactly.
        AttributionError: the model is in training mode.
    """

    def __init__(self, model: PreTrainedModel, *, batch_tokens: int = 4096, shared_prefix: bool = True) -> None:
        if model.training:
            raise AttributionError(
                "the model is in training mode, where dropout makes scores random; call model.eval()"
            )
        self.model, self.batch_tokens, self.shared_prefix = model, batch_tokens, shared_prefix
        self.layout: Layout = read_layout(model)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads a layer."""
        return len(self.layout.layers), self.layout.heads

    @torch.inference_mode()
    def states(self, ids: Ids, *, without: Collection[HeadId] = (), ablation: Ablation | None = None) -> Tensor:
        """States after the final norm at the last position, (prompts, width), without a group of heads.

        Args:
            ids: Prompts as token ids, of any lengths.
            without: Heads that are all out together.
            ablation: How they are taken out.
        """
        check_heads(self.model, without)
        how, rows = ablation or Ablation(), torch.empty(0)
        for places, part in self._parts(ids):
            trace_of, prefix = self._traces(part, frozenset(without), how)
            final = self._finish(trace_of, prefix, frozenset(without), how)
            rows = rows if len(rows) else final.new_empty(len(ids), final.shape[1])
            rows[list(places)] = final
        return rows

    @torch.inference_mode()
    def without_each(
        self,
        ids: Ids,
        ablation: Ablation | None = None,
        *,
        group: Collection[HeadId] = (),
        heads: Collection[HeadId] | None = None,
    ) -> Iterator[Batch]:
        """States without each head, one at a time.

        Args:
            ids: Prompts as token ids, of any lengths.
            ablation: How a head is taken out.
            group: Heads that are out in every case.
            heads: These only; all but the group's by default.
        """
        how, gone = ablation or Ablation(), frozenset(group)
        check_heads(self.model, [*gone, *(heads or ())])
        wanted = self._wanted(heads, gone)
        for places, part in self._parts(ids):
            traces, prefix = self._traces(part, gone, how)
            tokens = traces[-1].ids.numel() + (traces[0].ids.numel() if prefix else 0)
            at_once = max(1, self.batch_tokens // tokens)
            for layer, numbers in wanted.items():
                for start in range(0, len(numbers), at_once):
                    some = tuple(numbers[start : start + at_once])
                    states = self._ablated(traces, prefix, layer, some, gone, how)
                    yield Batch(layer, some, places, states.view(len(some), len(part), -1))

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (…, vocabulary) of states (…, width), by the model's own head."""
        return final_logits(self.model, states)

    def _wanted(self, heads: Collection[HeadId] | None, gone: frozenset[HeadId]) -> dict[int, list[int]]:
        layers = range(len(self.layout.layers))
        given = (
            [HeadId(layer, head) for layer in layers for head in range(self.layout.heads)] if heads is None else heads
        )
        wanted: dict[int, list[int]] = {}
        for layer, head in sorted(set(given) - gone):
            wanted.setdefault(layer, []).append(head)
        return wanted

    def _parts(self, ids: Ids) -> Iterator[tuple[tuple[int, ...], list[list[int]]]]:
        """Prompts of like length, so many that one head fits `batch_tokens`."""
        if not ids or not all(ids):
            raise AttributionError("a prompt without tokens has no last position; give at least one token each")
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        part: list[int] = []
        for place in order:
            if part and (len(part) + 1) * len(ids[place]) > self.batch_tokens:
                yield tuple(part), [list(ids[at]) for at in part]
                part = []
            part.append(place)
        yield tuple(part), [list(ids[at]) for at in part]

    def _traces(
        self, part: list[list[int]], gone: frozenset[HeadId], how: Ablation
    ) -> tuple[list[_Trace], list[tuple[Tensor, Tensor]] | None]:
        """One trace of whole prompts, or one of what they share and one of the rest with the shared keys and values."""
        shared = _shared(part) if self.shared_prefix and len(part) > 1 else 0
        shared = min(shared, min(map(len, part)) - 1)
        if shared < _SHARED:
            return [self._trace(part, gone, how)], None
        first = self._trace([part[0][:shared]], gone, how)
        rest = self._trace([prompt[shared:] for prompt in part], gone, how, Prefix(first.keys, shared))
        return [first, rest], first.keys

    def _trace(
        self, part: list[list[int]], gone: frozenset[HeadId], how: Ablation, prefix: Prefix | None = None
    ) -> _Trace:
        """Run the stock layers up to the last one's attention, and write down what enters and leaves."""
        ids, last = self._pad(part)
        trace = _Trace(ids, last, [], [], [], [])

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            trace.entering.append(args[0] if args else kwargs["hidden_states"])

        def leave(_: nn.Module, __: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            trace.attended.append(output[0])
            if len(trace.attended) == len(self.layout.layers):
                raise Enough

        def attend(call: Call) -> Tensor:
            stock = call.heads()
            trace.change.append(call.ablated(range(self.layout.heads), how, stock) - stock)
            trace.keys.append((call.key, call.value))
            return _group(call, stock, gone, how)

        with ExitStack() as stack:
            for layer, module in zip(self.layout.layers, self.layout.attentions, strict=True):
                stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            stack.enter_context(attention(self.model, attend))
            self._run(ids, prefix)
        return trace

    def _finish(
        self,
        traces: list[_Trace],
        prefix: list[tuple[Tensor, Tensor]] | None,
        gone: frozenset[HeadId],
        how: Ablation,
    ) -> Tensor:
        """Final states of the traced run itself."""
        trace, layer = traces[-1], len(self.layout.layers) - 1
        return self._from(layer, trace, trace.attended[layer], trace.entering[layer], None, gone, how)

    def _ablated(
        self,
        traces: list[_Trace],
        prefix: list[tuple[Tensor, Tensor]] | None,
        layer: int,
        heads: tuple[int, ...],
        gone: frozenset[HeadId],
        how: Ablation,
    ) -> Tensor:
        """Final states without each of some heads of a layer, (heads × prompts, width)."""
        weight = self.layout.output_weight(layer)[list(heads)]
        cache = None
        for trace in traces:
            change = trace.change[layer][:, list(heads)].transpose(0, 1)  # (heads, prompts, tokens, d_head)
            moved = torch.matmul(change, weight[:, None]) + trace.attended[layer]
            entering = trace.entering[layer].expand(len(heads), *trace.entering[layer].shape)
            if prefix is not None and trace is traces[0]:
                cache = self._prefix(layer, trace, moved.flatten(0, 1), entering.flatten(0, 1), gone, how)
                continue
            final = self._from(layer, trace, moved.flatten(0, 1), entering.flatten(0, 1), cache, gone, how)
        return final

    def _prefix(
        self, layer: int, trace: _Trace, attended: Tensor, entering: Tensor, gone: frozenset[HeadId], how: Ablation
    ) -> Prefix:
        """Keys and values of the shared beginning in the layers above an ablated one."""
        keys: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layout.layers)
        top = len(self.layout.layers) - 1

        def attend(call: Call) -> Tensor:
            keys[call.layer] = (call.key, call.value)
            if call.layer == top:
                raise Enough
            return _group(call, call.heads(), gone, how)

        if layer < top:
            with self._entered(layer, attended, entering), attention(self.model, attend):
                self._run(trace.ids.expand(len(entering), -1), None)
        return Prefix(keys, trace.ids.shape[1])

    def _from(
        self,
        layer: int,
        trace: _Trace,
        attended: Tensor,
        entering: Tensor,
        cache: Prefix | None,
        gone: frozenset[HeadId],
        how: Ablation,
    ) -> Tensor:
        """Final states of rows whose layer `layer` gets `entering` and whose attention there gave `attended`."""
        times = len(entering) // len(trace.ids)
        last = trace.last.repeat(times)
        top = len(self.layout.layers) - 1
        ids = trace.ids.repeat(times, 1)
        if layer == top:
            rows = torch.arange(len(ids), device=ids.device)
            with self._entered(layer, attended[rows, last][:, None], entering[rows, last][:, None]):
                return self._run(ids[:, :1], None)[:, 0]
        last_layer = LastPosition(self.layout.layers[top], last, lambda call: _group(call, call.heads(), gone, how))
        with (
            self._entered(layer, attended, entering),
            attention(self.model, last_layer.attend),
            forward(self.layout.layers[top], last_layer),
        ):
            return self._run(ids, cache)[:, 0]

    @contextmanager
    def _entered(self, layer: int, attended: Tensor, entering: Tensor) -> Iterator[None]:
        """Skip the layers below, and give this one its input and its attention's output."""
        module = self.layout.layers[layer]
        stock = module.forward

        def enter(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the family hands its layers)
            return stock(
                entering, *args[1:], **{name: given for name, given in kwargs.items() if name != "hidden_states"}
            )

        with ExitStack() as stack:
            for below in self.layout.layers[:layer]:
                stack.enter_context(
                    forward(below, lambda *args, **kwargs: args[0] if args else kwargs["hidden_states"])
                )
            stack.enter_context(forward(module, enter))
            stack.enter_context(forward(self.layout.attentions[layer], lambda *_, **__: (attended, None)))
            yield

    def _run(self, ids: Tensor, cache: Cache | None) -> Tensor:
        """The stock decoder until its final norm or until enough is seen; what the norm gave, (rows, positions, width).

        There is no padding mask, since what comes later changes nothing before.
        """
        states: list[Tensor] = []

        def end(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            states.append(output)
            raise Enough

        handle = self.layout.norm.register_forward_hook(end)
        try:
            self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=False)
        except Enough:
            pass
        finally:
            handle.remove()
        return states[0] if states else torch.empty(0)

    def _pad(self, part: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids padded on the right, and the last real position of each."""
        longest = max(map(len, part))
        rows = [prompt + [prompt[-1]] * (longest - len(prompt)) for prompt in part]
        last = [len(prompt) - 1 for prompt in part]
        return torch.tensor(rows, device=self.model.device), torch.tensor(last, device=self.model.device)


def _shared(part: list[list[int]]) -> int:
    """How many tokens all prompts begin with."""
    first, last = min(part), max(part)  # what these two share, all between them share
    return next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def _group(call: Call, stock: Tensor, gone: frozenset[HeadId], how: Ablation) -> Tensor:
    """All heads' outputs with the group's taken out."""
    if not (mine := [head for layer, head in sorted(gone) if layer == call.layer]):
        return stock
    index = torch.tensor(mine, device=stock.device)
    return stock.index_copy(1, index, call.ablated(mine, how, stock).contiguous())
