"""A compact signature of a checkpoint, and whether a checkpoint still is what its signature says."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attribution import statistics
from attribution.report import SHA256, AuditReport, Count, Grid, Head, Natural, Part, read_part
from attribution.types import CheckpointError, ReportError
from attribution.weights import (
    config_sha256,
    read_config,
    tensors,
    text_config,
    tokenizer_sha256,
    weight_files,
    weights_sha256,
)

VERSION = 2  # 1 hashed only a part of the tokenizer
TOP = 5


class TensorPrint(Part):
    """One tensor: its hash, and `attribution.sketch.Sketch` of it."""

    dtype: str
    shape: tuple[Natural, ...]
    sha256: SHA256
    role: Literal["embedding", "output", "writer", "query", "other"]
    norm: float | None = Field(description="Null where it is not finite.")
    precision: str
    gridded: bool
    head_norms: tuple[float | None, ...] = ()
    sketch: str = Field(description="float32, little-endian, base64, 16 rows")

    def values(self) -> NDArray[np.float64]:
        """The sketch, (16, at most 8)."""
        return np.frombuffer(base64.b64decode(self.sketch), dtype="<f4").astype(np.float64).reshape(16, -1)


class Profile(Part):
    """Ships of the model's heads, from a report."""

    method: str
    epsilon: float | None
    prompts_sha256: SHA256
    template: str
    mean: Grid
    top: tuple[Head, ...]


class Fingerprint(Part):
    """A compact signature.

    Attributes:
        root: Hash of all tensors: dtype, shape and values by name; how they lie in files does not matter.
        config_sha256: Of the configuration, without what says nothing of the computation.
        tokenizer_sha256: Of vocabulary, rules, special tokens, settings and chat templates; null without a tokenizer.
    """

    schema_version: Literal[2] = 2
    name: str
    family: str
    heads: Count
    seed: int
    root: SHA256
    config_sha256: SHA256
    tokenizer_sha256: SHA256 | None
    tensors: dict[str, TensorPrint]
    profile: Profile | None = None


class Identity(Part):
    """The hashes alone, which say whether anything changed."""

    root: SHA256
    config_sha256: SHA256
    tokenizer_sha256: SHA256 | None


def fingerprint(path: Path, report: AuditReport | None = None, *, seed: int = 0) -> Fingerprint:
    """Read a checkpoint's weights once and sign them; no model is built.

    Args:
        path: A folder as `save_pretrained` writes it.
        report: An audit of this checkpoint, whose Ships become a part of the signature.
        seed: Of the projections.

    Raises:
        CheckpointError: the folder cannot be read.
        ReportError: the report is of other weights.
    """
    from attribution.sketch import Shape, role, sketch, tensor_sha256

    config = read_config(path)
    shape = Shape(str(config.get("model_type", "")), _heads(path, config))
    profile = None if report is None else profile_at(path, report)
    found = {}
    for name, tensor in tensors(path, config):
        drawn = sketch(name, tensor, shape, seed=seed)
        found[name] = TensorPrint(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            sha256=tensor_sha256(tensor),
            role=role(name),
            norm=drawn.norm if np.isfinite(drawn.norm) else None,
            precision=drawn.precision,
            gridded=drawn.gridded,
            head_norms=tuple(norm if np.isfinite(norm) else None for norm in drawn.head_norms),
            sketch=base64.b64encode(drawn.values.astype("<f4").tobytes()).decode("ascii"),
        )
    return Fingerprint(
        name=path.resolve().name,
        family=shape.family,
        heads=shape.heads,
        seed=seed,
        root=_root({name: tensor.sha256 for name, tensor in found.items()}),
        config_sha256=config_sha256(config),
        tokenizer_sha256=tokenizer_sha256(path),
        tensors=found,
        profile=profile,
    )


def identity(path: Path) -> Identity:
    """The hashes of a checkpoint alone, which is quicker.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    from attribution.sketch import tensor_sha256

    config = read_config(path)
    hashes = {name: tensor_sha256(tensor) for name, tensor in tensors(path, config)}
    return Identity(root=_root(hashes), config_sha256=config_sha256(config), tokenizer_sha256=tokenizer_sha256(path))


def load_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint.

    Raises:
        ReportError: there is none, or it is damaged.
    """
    print_ = read_part(path, Fingerprint, "fingerprint", "write one with `airlock audit fingerprint`", VERSION)
    if print_.root != _root({name: tensor.sha256 for name, tensor in print_.tensors.items()}):
        raise ReportError(f"fingerprint {path} was changed: its root is not that of its tensors; write it anew")
    return print_


def profile_of(report: AuditReport) -> Profile:
    """What of a report belongs to a fingerprint."""
    return Profile(
        method=report.settings.method,
        epsilon=report.settings.epsilon,
        prompts_sha256=report.prompts.sha256,
        template=report.prompts.template,
        mean=tuple(tuple(None if v is None else float(f"{v:.6g}") for v in row) for row in report.ships.mean),
        top=tuple(report.top(TOP)),
    )


def profile_at(path: Path, report: AuditReport) -> Profile:
    """What of a checkpoint's report belongs to its fingerprint.

    Raises:
        CheckpointError: the folder cannot be read.
        ReportError: the report is of other weights than the folder holds.
    """
    if weights_sha256(weight_files(path)) != report.model.weights_sha256:
        raise ReportError(f"the report is of other weights than model {path} has; audit this one")
    return profile_of(report)


def agreement(one: Profile, other: Profile) -> tuple[float, float]:
    """Rank correlation of two profiles' Ships, and the share of their top heads that both name.

    Raises:
        ReportError: they were made in other ways.
    """
    for name in ("method", "epsilon", "prompts_sha256", "template"):
        if getattr(one, name) != getattr(other, name):
            raise ReportError(
                f"the fingerprint's Ships have {name} {getattr(one, name)!r}, the report's {getattr(other, name)!r}; "
                "audit with the same settings and prompts"
            )
    if [len(row) for row in one.mean] != [len(row) for row in other.mean]:
        raise ReportError("the report is of a model with other layers and heads than the fingerprint; audit this one")
    both = [np.array(each.mean, dtype=np.float64) for each in (one, other)]  # None becomes NaN
    return statistics.spearman(*both), len(set(one.top) & set(other.top)) / max(1, len(one.top))


def _heads(path: Path, config: dict[str, object]) -> int:
    inner = text_config(config)
    heads = inner.get("num_attention_heads", inner.get("n_head"))
    if not isinstance(heads, int) or heads < 1:
        raise CheckpointError(f"model {path}: its config.json names no num_attention_heads; is it a language model?")
    return heads


def _root(hashes: dict[str, str]) -> str:
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()
