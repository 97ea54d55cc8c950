"""Weights of a checkpoint folder, tensor by tensor, without building a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribution.types import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_VOLATILE = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "_attn_implementation",
        "_attn_implementation_autoset",
    }
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a checkpoint folder.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    if not path.is_dir():
        raise CheckpointError(f"model {path} is not a folder; give one as save_pretrained writes it")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        hint = "an adapter: merge it into its base first" if (path / "adapter_config.json").exists() else "no model"
        raise CheckpointError(f"model {path} has no config.json: {hint}") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"model {path}: config.json cannot be read: {first_line(exc)}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"model {path}: config.json holds no settings; is the download whole?")
    return config


def first_line(exc: BaseException) -> str:
    """The first line of an error's message."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0][:300]


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part that describes the decoder."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def tensors(path: Path, config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor by its name, in order of the names, one in memory at a time.

    A head that is tied to the embeddings is left out, for not every copy stores it.

    Raises:
        CheckpointError: there are no weights in safetensors, or they cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    files = weight_files(path)
    try:
        where: dict[str, Path] = {}
        for file in files:
            with safe_open(file, framework="pt") as opened:
                where |= dict.fromkeys(opened.keys(), file)
        names = sorted(where)
        if text_config(config).get("tie_word_embeddings", config.get("tie_word_embeddings", False)):
            embedded = any(name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight")) for name in names)
            names = [n for n in names if not (embedded and n.endswith(("lm_head.weight", "embed_out.weight")))]
        for name in names:
            with safe_open(where[name], framework="pt") as opened:
                yield name, opened.get_tensor(name)
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"model {path}: its weights cannot be read: {str(exc)[:200]}; copy them anew") from exc


def config_sha256(config: dict[str, Any]) -> str:
    """SHA-256 of what of a configuration changes what is computed, in hex."""

    def kept(value: object) -> object:
        if isinstance(value, dict):
            return {key: kept(inner) for key, inner in value.items() if key not in _VOLATILE}
        return value

    return _sha256(kept(config))


def tokenizer_sha256(path: Path) -> str | None:
    """SHA-256 of vocabulary, rules and chat template, in hex; None if the folder has no tokenizer."""
    found: dict[str, object] = {}
    for name in _TOKENIZER:
        if not (path / name).is_file():
            continue
        content = _json(path / name) if name.endswith(".json") else (path / name).read_text("utf-8", errors="replace")
        if name == "tokenizer.json" and isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
        found[name] = content
    settings = _json(path / "tokenizer_config.json")
    if isinstance(settings, dict) and "chat_template" in settings and "chat_template.jinja" not in found:
        found["chat_template.jinja"] = settings["chat_template"]
    return _sha256(found) if found else None


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, in order of their names.

    Raises:
        CheckpointError: there are none in safetensors.
    """
    index = _json(path / "model.safetensors.index.json")
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(mapped, dict):
        names = sorted({Path(str(name)).name for name in mapped.values()})
        return [path / name for name in names]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if files := sorted(path.glob("*.safetensors")):
        return files
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"model {path} has its weights in {pickles[0]}, a pickle, which can run code and is not opened; convert it "
            "to safetensors where it can do no harm"
        )
    raise CheckpointError(f"model {path} has no *.safetensors")


def weights_sha256(files: list[Path]) -> str:
    """SHA-256 of the names and bytes of weight files, in hex."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(f"{file.name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """What a file holds; None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()
