"""Which recipe trains a classifier: `full` for many rows, `few` for a few hundred; what the command line may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from training.datasets import TrainingError

if TYPE_CHECKING:
    from training.tiers.settings import TrainSettings

FEW_ROWS = 1000
"""Rows of split `train` below which the recipe `few` is taken."""
Recipe = Literal["auto", "few", "full"]


def chosen(recipe: Recipe, rows: int, only_full: Sequence[str]) -> bool:
    """Whether few rows are trained with the recipe `few`.

    Args:
        recipe: what was asked for.
        rows: of split `train`.
        only_full: options that were given and that only the recipe `full` knows.

    Raises:
        TrainingError: `few` was asked for together with such an option.
    """
    if recipe == "few" and only_full:
        raise TrainingError(f"{only_full[0]} and --recipe few: only the recipe `full` knows it; leave one of them out")
    return recipe == "few" or (recipe == "auto" and rows < FEW_ROWS and not only_full)


def settings_for(encoder_name: str, *, few: bool, given: Mapping[str, Any], **others: Any) -> TrainSettings:  # noqa: ANN401
    """The settings of a recipe.

    Args:
        encoder_name: as for `classifier.encoder.load_encoder`.
        few: whether it is the recipe `few`.
        given: settings that a recipe has a value of its own for; None keeps that.
        others: the other settings.

    Raises:
        TrainingError: `folds` is given for the recipe `full`, which does not cross-validate.
    """
    if given.get("folds") and not few:
        raise TrainingError(f"--folds {given['folds']}: only the recipe `few` cross-validates; add --recipe few")
    from classifier.encoder import load_encoder
    from training.tiers.settings import TrainSettings
    from training.tiers.train_few import recipe_of

    base = recipe_of(load_encoder(encoder_name)) if few else TrainSettings()
    return replace(base, **{name: value for name, value in given.items() if value is not None}, **others)
