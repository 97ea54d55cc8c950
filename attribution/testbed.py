"""The test bed that ships: a small aligned causal model, trained by this project on text that it wrote."""

from __future__ import annotations

from pathlib import Path

from attribution.types import CheckpointError

_FOLDER = Path(__file__).parent / "assets" / "testbed"


def path() -> Path:
    """Folder of the model, with tokenizer and chat template.

    Raises:
        CheckpointError: it is not there.
    """
    if not (_FOLDER / "model.safetensors").is_file():
        raise CheckpointError(f"the test bed is not in {_FOLDER}; make one with `airlock audit testbed --out DIR`")
    return _FOLDER
