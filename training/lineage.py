"""What a trained model says of itself, and of the models it went on from."""

from __future__ import annotations

import json
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
    return {"without": [], "limit": None, "devices": 1, **manifest, "adapter_sha256": digest}


def lineage(folder: Path) -> dict[str, Any]:
    """What a model was made from, and those it went on from."""
    manifest = read_manifest(folder)
    seeds = {"seeds": [run["seed"] for run in manifest["averaged"]]} if "averaged" in manifest else {}
    return {key: manifest[key] for key in ("adapter_sha256", *_LINEAGE)} | seeds
