"""Loading a checkpoint to be audited: a folder with a causal language model in safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attribution.types import CheckpointError
from attribution.weights import first_line, read_config, weight_files, weights_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16", "float16", "float64", "auto"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model ready to be audited.

    Attributes:
        model: In evaluation mode, its gradients off.
        tokenizer: Its own.
        path: The folder.
        sha256: Of the names and bytes of its weight files, in hex.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: Path
    sha256: str


def load(path: Path, *, device: str = "cpu", dtype: str = "float32") -> Checkpoint:
    """Load a causal language model and its tokenizer from a folder of safetensors.

    Args:
        path: A folder as `save_pretrained` writes it.
        device: `cpu`, `cuda`, `cuda:1`, …
        dtype: Of the weights in memory. float32 is exact and on most CPUs the fastest; `auto` is what the
            configuration says, or else as they are stored.

    Raises:
        CheckpointError: there is no such folder, it has no weights in safetensors, it is not a causal language model,
            it asks for code of its own, something of it is missing or broken, or a weight is not finite.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in get_args(Dtype):
        raise CheckpointError(f"dtype {dtype!r} is not known; one of {', '.join(get_args(Dtype))}")
    config = _config(path)
    weights = weight_files(path)
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as exc:
        raise CheckpointError(f"device {device!r} cannot be used: {first_line(exc)}; cpu always can") from exc
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as exc:
        raise CheckpointError(
            f"model {path}: its tokenizer cannot be loaded; copy tokenizer.json and what belongs to it there anew: "
            f"{first_line(exc)}"
        ) from exc
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        model, report = loaded[0].to(where), loaded[1]
    except (
        *(OSError, ValueError, RuntimeError, ImportError, LookupError, AttributeError, TypeError, MemoryError),
        SafetensorError,
    ) as exc:
        if is_out_of_memory(exc):
            raise CheckpointError(
                f"model {path} does not fit into the memory of {device} in {dtype}; take a smaller dtype, or "
                "another device"
            ) from exc
        kind = config.get("model_type", "none")
        raise CheckpointError(
            f"model {path} (model type {kind!r}) cannot be loaded as a causal language model: {first_line(exc)}"
        ) from exc
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        raise CheckpointError(
            f"model {path} is a {type(model).__name__} whose attention looks ahead: an encoder, not a causal "
            "language model"
        )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"model {path} lacks {len(missing)} weights, {missing[0]} among them: they would be random; is it a causal "
            "language model, and is the download whole?"
        )
    model.eval().requires_grad_(requires_grad=False)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"model {path}: weight {name} holds NaN or infinity in {dtype}; nothing is computed")
    return Checkpoint(model, tokenizer, path, weights_sha256(weights))


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on this machine."""
    import torch

    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(exc, RuntimeError) and "DefaultCPUAllocator" in str(exc)


def _config(path: Path) -> dict[str, Any]:
    config = read_config(path)
    if config.get("auto_map"):
        raise CheckpointError(f"model {path} asks for code of its own, which is not run; use a family of transformers")
    architectures = config.get("architectures") or []
    if architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        whole = str(architectures[0])
        if whole.endswith("ForConditionalGeneration") and "text_config" in config:  # else it encodes and decodes
            raise CheckpointError(
                f"model {path} is a {whole}, not a causal language model alone; save its language model as one "
                "(…ForCausalLM), with its tokenizer, in a folder of its own"
            )
        raise CheckpointError(f"model {path} is a {whole}, not a causal language model, and writes no text")
    return config
