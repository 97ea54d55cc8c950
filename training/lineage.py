"""What a trained model says of itself, and of the models it went on from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.datasets import TrainingError
from training.manifest import adapter_sha256

_LINEAGE = ("name", "trained_on", "settings", "rows", "epochs", "seed", "data", "commit", "start")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a trained model says of itself, with the hash of its adapter.

    Raises:
        TrainingError: it is no folder of a model that was trained to the end, or does not say what it was made from.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        digest = adapter_sha256(folder)
    except FileNotFoundError as exc:
        raise TrainingError(f"{folder} holds no trained model ({exc.filename} is missing); give its folder") from exc
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{folder}: its manifest cannot be read ({exc}); train it anew") from exc
    if "task" in manifest:
        manifest.setdefault("start", None)  # models that read pairs have not always said it
    missing = [key for key in _LINEAGE if key not in manifest]
    if missing:
        raise TrainingError(f"{folder}: its manifest does not say {', '.join(missing)}; train it anew")
    unsaid = {"without": [], "unshared": False, "language": None, "limit": None, "devices": 1, "teachers": []}
    return {**unsaid, **manifest, "adapter_sha256": digest}


def lineage(folder: Path) -> dict[str, Any]:
    """What a model was made from, those it went on from, and those that taught it, if any."""
    manifest = read_manifest(folder)
    mean: dict[str, Any] = {}
    if start := start_averaged(manifest):
        mean = {"averaged_with": start}
    elif "averaged" in manifest:
        mean = {"seeds": [run["seed"] for run in manifest["averaged"]]}
    taught = {"teachers": manifest["teachers"]} if manifest["teachers"] else {}
    return {key: manifest[key] for key in ("adapter_sha256", *_LINEAGE)} | mean | taught


def start_averaged(manifest: Mapping[str, Any]) -> str | None:
    """The name of the model that a run went on from, where the weights are the mean of both."""
    start = (manifest["start"] or {}).get("adapter_sha256")
    return next((each["name"] for each in manifest.get("averaged", ()) if each["adapter_sha256"] == start), None)


def forebears(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The models that a model went on from or was taught by, and theirs, as far as the manifest tells."""
    start = manifest["start"]
    for each in [*([start] if start else ()), *manifest.get("teachers", ())]:
        yield each
        yield from forebears(each)
