"""Begin with what a trained model learnt."""

from __future__ import annotations

import torch

from classifier.network import TierModel
from rag.pairs import PairModel
from training.datasets import TrainingError


@torch.no_grad()
def take_over(model: TierModel | PairModel, trained: TierModel | PairModel, name: str, *, head: bool = True) -> None:
    """Copy the adapter, and the head, of a trained model into one that is to be trained.

    Layers that were frozen then and are not now begin at nothing.

    Args:
        model: freshly made.
        trained: of the same class and encoder.
        name: of the trained model.
        head: whether its head is taken over, too.

    Raises:
        TrainingError: its adapter is of another rank or kind, or sits on layers that are to stay frozen.
    """
    learnt = {key: value for key, value in model.named_parameters() if value.requires_grad}
    known = dict(trained.named_parameters())
    adapter = {key for key in known if "lora_" in key}
    ours, theirs = (each.encoder.active_peft_config for each in (model, trained))
    taken = learnt.keys() & known.keys() if head else adapter
    same = adapter <= learnt.keys() and (ours.use_rslora, ours.use_dora) == (theirs.use_rslora, theirs.use_dora)
    if not same or any(known[key].shape != learnt[key].shape for key in taken):
        raise TrainingError(f"{name} has another kind of adapter; give its rank and kind, and no more frozen layers")
    for key in taken:
        learnt[key].copy_(known[key])
