"""What commands that audit or harden a model share: what options need, and how errors and output read."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from attribution.prompts import read_prompts
from attribution.types import AttributionError, HeadId, Prompt, PromptError
from training.options import Need

EPSILON: Need = (
    ("--method query", "--method key", "--method value"),
    "a mean takes all of a head out",
    ("epsilon",),
)
_UNMASKED = "passing in an `attention_mask`"  # without padding there is nothing to mask


def heads_of(option: str, text: str) -> list[HeadId]:
    """Read heads with commas between.

    Raises:
        AttributionError: one is none, or is there twice.
    """
    heads = [HeadId.parse(part) for part in text.split(",")]
    if twice := [head for head in heads if heads.count(head) > 1]:
        raise AttributionError(f"{option} {text}: head {twice[0]} is there twice; name each head once")
    return heads


def read_kind(option: str, path: Path, column: str | None, *, harmful: bool) -> list[Prompt]:
    """The prompts of a file but those that it labels otherwise.

    Raises:
        PromptError: the file cannot be read as a set of prompts, or labels all of them otherwise.
    """
    rows = [row for row in read_prompts(path, column=column) if row.harmful in (None, harmful)]
    if not rows:
        label = str(not harmful).lower()
        raise PromptError(f"{option} {path}: every row says harmful: {label}; is it the other file?")
    return rows


def refuse_shared(named: str, prompts: Sequence[Prompt], beside: str, others: Sequence[Prompt]) -> None:
    """Refuse prompts that are there as harmful and as harmless.

    Args:
        named: Option and file of the harmful ones.
        prompts: These.
        beside: Option and file of the harmless ones.
        others: These.

    Raises:
        PromptError: some are in both.
    """
    both = len({prompt.text for prompt in prompts} & {prompt.text for prompt in others})
    if both:
        raise PromptError(
            f"{named} and {beside} have {both} prompt{'s' if both > 1 else ''} in both, as harmful and as harmless; "
            "leave each in one of them, or say `harmful` true or false in its row"
        )


def say_replaced(places: Mapping[str, Path | None]) -> None:
    """Say on stderr which result files, by option, are there already and are replaced."""
    for option, path in places.items():
        if path is not None and path.is_file():
            typer.echo(f"{option} {path} is there already: this run replaces it", err=True)


@contextlib.contextmanager
def named_as_options(names: Mapping[str, str]) -> Iterator[None]:
    """Name a setting, in errors of the library, as the option that sets it.

    Args:
        names: Option by setting.
    """
    try:
        yield
    except AttributionError as exc:
        said = str(exc)
        for setting, option in names.items():
            said = re.sub(rf"(?<![\w./-]){setting}(?= [\d.]+\b|[;,]|$)", option, said)
        if said == str(exc):
            raise
        raise type(exc)(said) from exc


def quiet_transformers() -> None:
    """Keep out of stderr what transformers says to those who call it; bars are for people at a terminal."""
    from transformers.utils.logging import disable_progress_bar

    logging.getLogger("transformers.modeling_utils").addFilter(_telling)
    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]


def _telling(record: logging.LogRecord) -> bool:
    return _UNMASKED not in str(record.msg)
