"""Which runtime serves a model: the one that is asked for, or the fastest that was exported and verified."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from classifier.exported import PRECISIONS, ExportCache, Kind, Precision, RuntimeManifest, default_root, kinds
from classifier.graph import open_graph
from classifier.inputs import Embeddings, ExportedTokenizer
from classifier.model import TierClassifier
from classifier.settings import described
from classifier.types import ClassifierError
from classifier.weights import PINNED_SHA256

_log = logging.getLogger("airlock.classifier")
_ON_TORCH = (
    "classifier %s runs on torch: no verified runtime in %s; `airlock export` makes one; for a model of "
    "`classifier.languages` or `classifiers` give it --language or --classifier"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is asked of a runtime.

    Attributes:
        runtime: a kind, ``torch``, or ``auto`` for the fastest.
        precision: of an exported one; ``auto`` for the fastest.
        cache: folder of the exports; None for the user's.
        threads: that one call uses.
    """

    runtime: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    cache: Path | None = None
    threads: int = 1


def open_exported(
    model: Path, encoder: str, sha256: Callable[[], str], choice: Choice, *, max_tokens: int | None = None
) -> TierClassifier | None:
    """A classifier on an exported runtime, without PyTorch.

    Args:
        model: folder of the model.
        encoder: the encoder's setting.
        sha256: tells that of the encoder's weights; not asked where nothing was exported, nor where the encoder's name
            says it.
        choice: which runtime.
        max_tokens: tokens read in one call.

    Returns:
        None where PyTorch is asked for, or where `auto` finds nothing that may be served, which is logged.

    Raises:
        ClassifierError: the runtime asked for is not installed, not exported, damaged, or drifts; or the model is.
    """
    if choice.runtime == "torch":
        return None
    root = choice.cache or default_root()
    if choice.runtime == "auto" and not root.is_dir():
        _log.info(_ON_TORCH, model, root)
        return None
    encoder_sha256 = PINNED_SHA256.get(encoder) or sha256()  # an export holds what it needs of the encoder
    settings, taxonomy = described(model, encoder, encoder_sha256)
    cache = ExportCache(root, model, encoder_sha256)
    found, inputs = _find(cache, choice)
    if found is None:
        _log.info(_ON_TORCH, model, cache.folder)
        return None
    folder, manifest = found
    tokenizer = ExportedTokenizer.load(inputs, encoder)
    embeddings = Embeddings(inputs, tokenizer)
    runtime = open_graph(manifest.kind, manifest.precision, folder, embeddings, tokenizer.longest, choice.threads)
    _log.info(
        "classifier %s runs on %s (%s ms for 30 tokens when it was exported)",
        model,
        manifest.name,
        manifest.milliseconds,
    )
    return TierClassifier(runtime, tokenizer, taxonomy, settings, max_tokens=max_tokens)


def _find(cache: ExportCache, choice: Choice) -> tuple[tuple[Path, RuntimeManifest] | None, Path]:
    """The runtime that serves, with its folder, and the folder of what it reads."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8") if choice.precision == "auto" else (choice.precision,)
    if choice.runtime == "auto":
        return _fastest(cache, precisions)
    if choice.runtime not in kinds():
        raise ClassifierError(
            f"`classifier.runtime` = {choice.runtime} is not installed; run `pip install 'llm-airlock"
            f"[{choice.runtime}]'`, or set it to auto or torch"
        )
    kind: Kind = "onnx" if choice.runtime == "onnx" else "openvino"
    if not set(precisions) & set(PRECISIONS[kind]):
        raise ClassifierError(
            f"`classifier.runtime` = {kind}, `classifier.precision` = {choice.precision}: {kind} has no "
            f"{choice.precision}; it has {' and '.join(PRECISIONS[kind])}"
        )
    found, faults = cache.fastest((kind,), precisions)
    if found is None:
        raise ClassifierError(
            f"`classifier.runtime` = {kind}, `classifier.precision` = {choice.precision}: "
            f"{faults or f'nothing is exported to {cache.folder}'}; run `airlock export`, or set the runtime to auto "
            "or torch"
        )
    return found, cache.inputs()


def _fastest(cache: ExportCache, precisions: tuple[Precision, ...]) -> tuple[tuple[Path, RuntimeManifest] | None, Path]:
    found, faults = cache.fastest(kinds(), precisions)
    inputs = cache.folder
    try:
        if found:
            inputs = cache.inputs()
    except ClassifierError as exc:
        found, faults = None, f"{faults}; {exc}" if faults else str(exc)
    if faults:
        _log.warning("not served: %s", faults)
    return found, inputs
