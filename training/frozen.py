"""Train the upper layers of an encoder only: what the frozen ones below make of a text is computed once and kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from classifier.encoder import Encoder
from classifier.network import TierModel
from rag.pairs import Base
from training.datasets import TrainingError

_MOST_KEPT = 4 << 30  # bytes of states
_AT_ONCE = 32  # texts
_LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.")
# Types of models that keep their layers in `encoder.layer`, above `embeddings`, with nothing else between or after; and
# whether a layer gives its states in a tuple.
SHAPES = {"bert": False, "camembert": False, "mpnet": True, "roberta": False, "xlm-roberta": False}


def adapted_modules(base: Base, frozen: int) -> dict[str, Any]:
    """Where adapters sit, for a `peft.LoraConfig`: on every linear layer above the frozen ones, but for a pooler.

    Raises:
        TrainingError: layers are frozen, and the encoder is of a type that is not known here or has none left to train.
    """
    if not frozen:
        pooler = any("pooler" in name for name, _ in base.model.named_modules())
        return {"target_modules": "all-linear", "exclude_modules": ".*pooler.*" if pooler else None}
    _check(base, frozen)
    below = tuple(f"encoder.layer.{layer}." for layer in range(frozen))
    linear = [name for name, module in base.model.named_modules() if isinstance(module, nn.Linear)]
    above = [name for name in linear if name.startswith("encoder.layer.") and not name.startswith(below)]
    return {"target_modules": above}


def lowest_adapted(encoder: nn.Module) -> int:
    """The lowest layer with an adapter on it; 0 where there are adapters outside of layers too, or only there."""
    places = {name: _LAYER.search(name) for name, _ in encoder.named_parameters() if "lora_" in name}
    return min((int(place[1]) if place else 0 for place in places.values()), default=0)


def freeze_adapters(encoder: nn.Module, base: Base, count: int) -> None:
    """Leave the adapters of the lowest layers as they are.

    Raises:
        TrainingError: as of `adapted_modules`.
    """
    if not count:
        return
    _check(base, count)
    for name, value in encoder.named_parameters():
        place = _LAYER.search(name)
        if "lora_" in name and (place is None or int(place[1]) < count):
            value.requires_grad_(False)


class FrozenLayers:
    """The embeddings and lowest layers of an encoder of BERT's shape, and the states they gave.

    Args:
        encoder: whose weights they share.
        count: of layers.

    Raises:
        TrainingError: the encoder is of a type that is not known here, or has no layer left to train.
    """

    def __init__(self, encoder: Encoder, count: int) -> None:
        _check(encoder, count)
        model: Any = encoder.lend()
        model.encoder.layer, model.pooler = model.encoder.layer[:count], None
        self._encoder = encoder
        self._count = count
        self._lower = model
        self._states: dict[tuple[int, ...], Tensor] = {}
        self._kept = 0

    def to(self, device: torch.device) -> None:
        """Compute there."""
        self._lower.to(device)

    @contextmanager
    def apart_from(self, model: TierModel) -> Iterator[None]:
        """While it lasts, `model` takes what `inputs` gives in the place of token ids."""
        above: Any = model.encoder.base_model.model
        embeddings, layers = above.embeddings, above.encoder.layer
        above.embeddings = _Given()
        skipped = [_Skipped(in_tuple=SHAPES[above.config.model_type]) for _ in range(self._count)]
        above.encoder.layer = nn.ModuleList([*skipped, *layers[self._count :]])
        try:
            yield
        finally:
            above.embeddings, above.encoder.layer = embeddings, layers

    def inputs(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token ids without special tokens → states ``(rows, longest, hidden)`` and mask, with the special ones."""
        states = self._of([tuple(row) for row in rows])
        mask = pad_sequence([torch.ones(len(each), dtype=torch.long) for each in states], batch_first=True)
        return {"inputs_embeds": pad_sequence(states, batch_first=True).to(self._lower.dtype), "attention_mask": mask}

    def _of(self, rows: Sequence[tuple[int, ...]]) -> list[Tensor]:
        found = {row: self._states[row] for row in rows if row in self._states}
        missing = sorted({*rows} - found.keys(), key=lambda row: (len(row), row))
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            found.update(zip(part, self._compute(part), strict=True))
        for row in missing:
            size = found[row].nbytes
            if self._kept + size <= _MOST_KEPT:
                self._states[row] = found[row]
                self._kept += size
        return [found[row] for row in rows]

    @torch.no_grad()
    def _compute(self, rows: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """States of each row in half precision: they differ from those of single precision by a thousandth at most."""
        inputs = {name: value.to(self._lower.device) for name, value in self._encoder.collate(rows).items()}
        states = self._lower(**inputs).last_hidden_state.half().cpu()
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [each[:length].clone() for each, length in zip(states, lengths, strict=True)]


class _Given(nn.Module):
    def forward(self, *, inputs_embeds: Tensor, **_: Any) -> Tensor:  # noqa: ANN401 - the model's own arguments
        return inputs_embeds


class _Skipped(nn.Module):
    def __init__(self, *, in_tuple: bool) -> None:
        super().__init__()
        self._in_tuple = in_tuple

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor]:  # noqa: ANN401 - the layer's
        return (hidden_states,) if self._in_tuple else hidden_states


def _check(base: Base, count: int) -> None:
    kind, layers = base.model.config.model_type, base.model.config.num_hidden_layers
    if kind not in SHAPES:
        raise TrainingError(
            f"frozen = {count}: {base.name} is a {kind} model; layers can be frozen of {', '.join(SHAPES)}, others are "
            "trained with frozen = 0"
        )
    if not 0 < count < layers:
        raise TrainingError(f"frozen = {count}: {base.name} has {layers} layers; leave one or more to train")
