"""The test bed that ships: a small aligned causal model and sets of prompts, all written or trained by this project."""

from __future__ import annotations

from pathlib import Path

from attribution.types import CheckpointError

_ASSETS = Path(__file__).parent / "assets"
_FOLDER = _ASSETS / "testbed"


def path() -> Path:
    """Folder of the model, with tokenizer and chat template.

    Raises:
        CheckpointError: it is not there.
    """
    if not (_FOLDER / "model.safetensors").is_file():
        raise CheckpointError(f"the test bed is not in {_FOLDER}; make one with `airlock audit testbed --out DIR`")
    return _FOLDER


def prompts(*, harmful: bool) -> Path:
    """The authored prompts that an aligned model should refuse, or those that it should answer."""
    name = "harmful.jsonl" if harmful else "harmless.jsonl"
    packaged = _ASSETS / "prompts" / name  # in the wheel; in the repository they stand with the other data
    return packaged if packaged.is_file() else _ASSETS.parents[1] / "data" / "audit" / name
