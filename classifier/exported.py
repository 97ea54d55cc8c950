"""Exported models on disk: where they are, what they were made from, and whether they may be served.

A cache holds a folder for each model, named by a hash of what the model consists of. In it are ``inputs`` (tokenizer
and embedding table, which all its runtimes read) and a folder for each runtime: ``onnx-fp32``, ``openvino-int8``. Each
has a JSON file that lists the SHA-256 of its other files (the size of the embedding table, whose rows have checksums of
their own) and, for a runtime, how far it drifts from PyTorch. That finds
damage and what does not belong together; it does not keep out somebody who may write to the cache.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from classifier.processor import features, multiplies_bf16
from classifier.types import ClassifierError
from classifier.weights import file_sha256, user_cache

Kind = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: Mapping[Kind, tuple[Precision, ...]] = {"onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}
LIBRARY: Mapping[Kind, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
MAX_DRIFT = 0.02
MAX_TIERS_CHANGED = 0.005
EXPORT_AGAIN = "run `airlock export` again"
INPUTS = "inputs"
EMBEDDINGS = "embeddings.npy"  # hundreds of megabytes of which a text needs kilobytes: checked row by row when read
MANIFEST = "export.json"
_FORMAT = 2
_MODEL = ("adapter_model.safetensors", "adapter_config.json", "head.safetensors", "classifier.json")


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the verdicts of a runtime are from those of PyTorch, over the same texts.

    Attributes:
        texts: how many.
        largest: largest change of the probability of a category.
        p99: of the largest change in a text, the 99th percentile over texts.
        mean: and the mean.
        tiers_changed: share of texts with another tier.
    """

    texts: int
    largest: float
    p99: float
    mean: float
    tiers_changed: float

    @property
    def bearable(self) -> bool:
        """Whether a runtime that drifts so far may be served; one that yields NaN may not."""
        return self.largest <= MAX_DRIFT and self.tiers_changed <= MAX_TIERS_CHANGED

    def __str__(self) -> str:
        return (
            f"of {self.texts} texts {self.tiers_changed:.2%} change their tier (bearable: {MAX_TIERS_CHANGED:.1%}), "
            f"probabilities move by up to {self.largest:.4f} (bearable: {MAX_DRIFT})"
        )


@dataclass(frozen=True, slots=True)
class RuntimeManifest:
    """What is known of an exported runtime.

    Attributes:
        kind: which library runs it.
        precision: of its matrix products.
        method: how it was made.
        drift: from PyTorch.
        milliseconds: for a text of 30 tokens where it was exported; the fastest of several runs.
        threads: it was measured with.
        processor: whose instructions it was proved with (`classifier.processor.features`).
    """

    kind: Kind
    precision: Precision
    method: str
    drift: Drift
    milliseconds: float
    threads: int
    processor: Sequence[str]

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.kind}-{self.precision}"


class ExportCache:
    """The exports of one model.

    Args:
        root: folder of the cache; None takes the user's.
        model: folder of the model.
        encoder_sha256: of the encoder's weights.
    """

    def __init__(self, root: Path | None, model: Path, encoder_sha256: str) -> None:
        self.made_from = {"encoder": encoder_sha256, **{name: _sha256(model / name) for name in _MODEL}}
        key = hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = (root or default_root()) / key

    def inputs(self) -> Path:
        """The folder with tokenizer and embeddings, checked.

        Raises:
            ClassifierError: it is missing, damaged, or of another version.
        """
        self._checked(INPUTS, ("tokenizers",))
        return self.folder / INPUTS

    def runtime(self, kind: Kind, precision: Precision) -> tuple[Path, RuntimeManifest]:
        """The folder of a runtime and what is known of it, checked.

        Raises:
            ClassifierError: it is missing, damaged, refused, or of another version.
        """
        name = f"{kind}-{precision}"
        manifest = self._manifest(name, self._checked(name, (LIBRARY[kind],)))
        if not manifest.drift.bearable:
            raise ClassifierError(
                f"runtime {name} of {self.folder} is not served: {manifest.drift}; set `classifier.runtime: auto`"
            )
        if precision == "bf16" and set(manifest.processor) != set(features()):
            raise ClassifierError(
                f"runtime {name} of {self.folder} is not served: it was proved on a processor with "
                f"{' '.join(manifest.processor)}, this one has {' '.join(features())}, so its products may round in "
                f"another way; {EXPORT_AGAIN}"
            )
        return self.folder / name, manifest

    def fastest(
        self, kinds: Sequence[Kind], precisions: Sequence[Precision]
    ) -> tuple[tuple[Path, RuntimeManifest] | None, str]:
        """The fastest runtime of those kinds that may be served, and why faster ones may not."""
        listed, faults = [], []
        for kind, precision in itertools.product(kinds, precisions):
            name = f"{kind}-{precision}"
            if not (self.folder / name).is_dir():
                continue
            try:
                listed.append(self._manifest(name, self._read(name)))
            except ClassifierError as exc:
                faults.append(str(exc))
        for manifest in sorted(listed, key=lambda manifest: manifest.milliseconds):
            try:
                return self.runtime(manifest.kind, manifest.precision), "; ".join(faults)
            except ClassifierError as exc:
                faults.append(str(exc))
        return None, "; ".join(faults)

    @contextmanager
    def writing(self, name: str, libraries: tuple[str, ...], said: dict[str, Any]) -> Iterator[Path]:
        """A new folder to fill; at the end it has its manifest and takes the place of the old one.

        Args:
            name: of the folder.
            libraries: whose versions its files depend on.
            said: goes into the manifest too; may still be added to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{name}-", ignore_cleanup_errors=True) as place:
            new = Path(place) / name
            new.mkdir()
            yield new
            manifest = {
                "format": _FORMAT,
                "made_from": self.made_from,
                "libraries": _versions(libraries),
                "files": {path.name: _fingerprint(path) for path in sorted(new.iterdir())},
                **said,
            }
            (new / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if (self.folder / name).exists():
                (self.folder / name).rename(Path(place) / "old")
            new.rename(self.folder / name)

    def remove(self, name: str) -> None:
        """Take one export away."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _checked(self, name: str, libraries: Sequence[str]) -> dict[str, Any]:
        """The manifest of an export whose files are as they were written, by and for what is here."""
        place, data = self.folder / name, self._read(name)
        try:
            expected = (_FORMAT, self.made_from, _versions(libraries))
            if (data["format"], data["made_from"], data["libraries"]) != expected:
                raise ClassifierError(
                    f"{place} was exported from another model or with other versions ({_told(data['libraries'])}; "
                    f"here are {_told(expected[2])}); {EXPORT_AGAIN}"
                )
            changed = [file for file, known in data["files"].items() if _fingerprint(place / file) != known]
        except (OSError, KeyError, TypeError, AttributeError) as exc:
            raise ClassifierError(f"{place} is damaged ({type(exc).__name__}: {exc}); {EXPORT_AGAIN}") from exc
        if changed:
            raise ClassifierError(f"{place / changed[0]} is damaged; {EXPORT_AGAIN}")
        return data

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name / MANIFEST
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as exc:
            raise ClassifierError(f"there is no {path}; run `airlock export`") from exc
        except (OSError, ValueError) as exc:
            raise ClassifierError(f"{path} is damaged ({type(exc).__name__}: {exc}); {EXPORT_AGAIN}") from exc
        return data

    def _manifest(self, name: str, data: Mapping[str, Any]) -> RuntimeManifest:
        try:
            fields = {key: data[key] for key in RuntimeManifest.__dataclass_fields__}
            manifest = RuntimeManifest(**{**fields, "drift": Drift(**data["drift"])})
        except (KeyError, TypeError) as exc:
            raise ClassifierError(f"{self.folder / name / MANIFEST} is damaged ({exc}); {EXPORT_AGAIN}") from exc
        if manifest.name != name:
            raise ClassifierError(f"{self.folder / name} holds {manifest.name}; {EXPORT_AGAIN}")
        return manifest


def installed(kind: Kind) -> bool:
    """Whether the library of a runtime is there."""
    return bool(_versions((LIBRARY[kind],))[LIBRARY[kind]])


def kinds() -> tuple[Kind, ...]:
    """Every kind of runtime that is installed."""
    return tuple(kind for kind in get_args(Kind) if installed(kind))


def precisions(kind: Kind) -> tuple[Precision, ...]:
    """The precisions that a kind of runtime has on this processor."""
    return tuple(each for each in PRECISIONS[kind] if each != "bf16" or multiplies_bf16())


def default_root() -> Path:
    """The user's cache of exports."""
    return user_cache("runtimes")


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    return {name: _version(name) for name in libraries}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _told(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in libraries.items())


def _fingerprint(path: Path) -> str:
    """What a file is known by when an export is opened."""
    return f"{path.stat().st_size} bytes" if path.name == EMBEDDINGS else _sha256(path)


def _sha256(path: Path) -> str:
    """SHA-256 of a file; empty where there is none."""
    return file_sha256(path) if path.is_file() else ""
