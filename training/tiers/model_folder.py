"""Model folders of classifiers: loaded, checked for what is missing, their version, and what they say of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from classifier.settings import ClassifierSettings, described
from classifier.taxonomy import TAXONOMY, Taxonomy
from classifier.types import ClassifierError
from training.datasets import TrainingError
from training.manifest import file_sha256

if TYPE_CHECKING:
    from classifier.encoder import Encoder
    from classifier.model import TierClassifier

CARD, HASHES, ADAPTER_CONFIG = "README.md", "hashes.json", "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "head.safetensors")
NEEDED = (CARD, ADAPTER_CONFIG, *WEIGHTS, "classifier.json", "manifest.json", TAXONOMY)
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
_NETWORK = (*WEIGHTS, TAXONOMY)
_ACTS = (*_NETWORK, "classifier.json")
_FIGURES = ("macro_f1", "risk_recall", "unsafe_recall", "safe_flagged", "safe_refused", "ece")


def load_classifier(folder: Path) -> TierClassifier:
    """The classifier in a folder, on the encoder that it names."""
    return load_with_encoder(folder)[0]


def load_with_encoder(folder: Path) -> tuple[TierClassifier, Encoder]:
    """The same, and the encoder."""
    from classifier.encoder import load_encoder
    from classifier.model import TierClassifier

    encoder = load_encoder(ClassifierSettings.load(folder).encoder)
    return TierClassifier.load(folder, encoder), encoder


def named_taxonomy(folder: Path) -> tuple[str, Taxonomy]:
    """The name and the taxonomy of the classifier of texts in a folder; no weights are read."""
    named = ClassifierSettings.load(folder)
    settings, taxonomy = described(folder, named.encoder, named.encoder_sha256)
    return f"{settings.name}@{taxonomy.version}", taxonomy


def version(folder: Path) -> str:
    """First 12 hex digits of a hash over all that a verdict depends on: weights, settings, taxonomy.

    What the adapter's configuration calls its base is not part of it: a hub has other names than a machine.

    Raises:
        TrainingError: a file is missing or malformed.
    """
    return _version(folder, _ACTS)


def network_version(folder: Path) -> str:
    """The same over what the logits of tokens depend on: weights and taxonomy, but no settings such as thresholds.

    Raises:
        TrainingError: as of `version`.
    """
    return _version(folder, _NETWORK)


def _version(folder: Path, files: Sequence[str]) -> str:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        config.pop("base_model_name_or_path", None)
        hashes = {name: file_sha256(folder / name) for name in files}
    except (OSError, ValueError, AttributeError) as exc:
        raise TrainingError(f"{folder} is no whole model: {exc}; give a folder that `airlock train` wrote") from exc
    canonical = json.dumps([config, hashes], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def faults(folder: Path) -> list[str]:
    """What keeps a folder from being used elsewhere, in words; none for a whole one."""
    return list(_faults(folder))


def check(folder: Path) -> None:
    """Raise TrainingError where a folder has faults."""
    found = faults(folder)
    if found:
        raise TrainingError(f"{folder} is no whole model: {'; '.join(found)}")


def describe(folder: Path) -> dict[str, Any]:
    """Name, version, base, taxonomy, thresholds, figures and faults of a model, ready for JSON.

    `figures_at` is the earlier point of which the figures are, where the model was calibrated since; else None.

    Raises:
        TrainingError: it is no folder of a classifier.
    """
    try:
        settings = ClassifierSettings.load(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ClassifierError as exc:
        raise TrainingError(str(exc)) from exc
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{folder}: its manifest cannot be read ({exc}); train it anew") from exc
    figures = manifest.get("figures", {})
    return {
        "name": settings.name,
        "version": version(folder),
        "encoder": settings.encoder,
        "encoder_sha256": settings.encoder_sha256,
        "taxonomy": settings.taxonomy_version,
        "operating_point": manifest.get("operating_point"),
        "rows": manifest.get("rows", {}).get("train"),
        "measured_on": manifest.get("measured_on"),
        "figures_at": manifest.get("figures_at"),
        "figures": {name: figures[name] for name in _FIGURES if name in figures},
        "commit": manifest.get("commit"),
        "time": manifest.get("time"),
        "faults": faults(folder),
    }


def find(places: Sequence[Path]) -> list[Path]:
    """The model folders among some folders and what is directly in them, by name."""
    found = {each for place in places for each in (place, *_folders(place)) if (each / "classifier.json").is_file()}
    return sorted(found)


def write_hashes(folder: Path) -> dict[str, str]:
    """Write ``hashes.json``: the SHA-256 of every other file; these hashes."""
    found = {path.name: file_sha256(path) for path in _files(folder) if path.name != HASHES}
    (folder / HASHES).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def check_hashes(folder: Path) -> None:
    """Raise TrainingError where a file is not the one that ``hashes.json`` names, is missing, or is not named."""
    try:
        named = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        said = {str(name): str(value) for name, value in named.items()}
    except (OSError, ValueError, AttributeError) as exc:
        raise TrainingError(f"{folder} has no sound {HASHES} ({exc}); push it with `airlock model push`") from exc
    there = {path.name for path in _files(folder)} - {HASHES}
    wrong = sorted(name for name in said.keys() & there if file_sha256(folder / name) != said[name])
    wrong += sorted(said.keys() ^ there)
    if wrong:
        raise TrainingError(f"{', '.join(wrong)}: not what {HASHES} names; fetch the model again, or do not trust it")


def _faults(folder: Path) -> Iterator[str]:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        yield f"{', '.join(missing)} missing"
        return
    pickles = sorted(path.name for path in folder.rglob("*") if path.suffix in PICKLES)
    if pickles:
        yield f"{', '.join(pickles)}: pickles can hold programs, so no model has them; remove them"
    for name in WEIGHTS:
        try:
            with safe_open(folder / name, framework="np") as file:
                file.keys()
        except (OSError, SafetensorError) as exc:
            yield f"{name} is no safetensors file ({exc})"
    try:
        settings, taxonomy = ClassifierSettings.load(folder), Taxonomy.load(folder / TAXONOMY)
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ClassifierError, ValueError, AttributeError) as exc:
        yield str(exc)
        return
    if settings.taxonomy_version != taxonomy.version:
        yield f"{TAXONOMY} is not the one that the weights were trained with"
    if not base:
        yield f"{ADAPTER_CONFIG} does not say `base_model_name_or_path`"
    if not (folder / CARD).read_text(encoding="utf-8", errors="replace").startswith("---\n"):
        yield f"{CARD} has no metadata"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
