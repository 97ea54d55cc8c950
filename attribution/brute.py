"""One stock forward pass for each head and prompt: the oracle of the engine, and the slow way where it cannot go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attribution.ablate import ablate, way
from attribution.engine import Batch, Engine, Ids
from attribution.heads import all_heads, check_evaluation, check_heads, decoder, shape
from attribution.replay import final_logits
from attribution.types import Ablation, HeadId, UnsupportedModel


def exact_or_slow(
    model: PreTrainedModel, *, batch_tokens: int = 2048, told: Callable[[str], None] | None = None
) -> Engine | BruteForce:
    """What runs a model: the exact engine, or where it cannot go the slow way.

    Args:
        model: In evaluation mode.
        batch_tokens: Of the engine.
        told: Hears why the slow way is taken.

    Raises:
        UnsupportedModel: not even the slow way is exact.
    """
    try:
        return Engine(model, batch_tokens=batch_tokens)
    except UnsupportedModel as exc:
        if told:
            told(f"the slow way, one forward pass for each head and prompt: {exc}")
        return BruteForce(model)


class BruteForce:
    """Runs the whole stock model for each head and prompt.

    Args:
        model: In evaluation mode.

    Raises:
        UnsupportedModel: a model whose layers do not each call attention once, through the interface or between
            projections that can be hooked.
        AttributionError: the model is in training mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        check_evaluation(model)
        self.model, self._way = model, way(model, every=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and query heads a layer."""
        return shape(self.model)

    @torch.inference_mode()
    def states(self, ids: Ids, *, without: Collection[HeadId] = (), ablation: Ablation | None = None) -> Tensor:
        """Last-position states after the final norm, (prompts, width)."""
        with ablate(self.model, without, ablation, by=self._way):
            return torch.stack([self._state(prompt) for prompt in ids])

    @torch.inference_mode()
    def without_each(
        self,
        ids: Ids,
        ablation: Ablation | None = None,
        *,
        group: Collection[HeadId] = (),
        heads: Collection[HeadId] | None = None,
    ) -> Iterator[Batch]:
        """The same without each head in turn, and without the group in every case."""
        check_heads(self.model, [*group, *(heads or ())])
        for layer, head in sorted(set(all_heads(self.model) if heads is None else heads) - set(group)):
            for place, prompt in enumerate(ids):
                with ablate(self.model, [HeadId(layer, head), *group], ablation, by=self._way):
                    yield Batch(layer, (head,), (place,), self._state(prompt)[None, None])

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (…, vocabulary) of states (…, width)."""
        return final_logits(self.model, states)

    def _state(self, prompt: Sequence[int]) -> Tensor:
        ids = torch.tensor([list(prompt)], device=self.model.device)
        state: Tensor = decoder(self.model)(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        return state
