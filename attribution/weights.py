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
_TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a checkpoint folder.

    Raises:
        CheckpointError: there is none.
    """
    config = _json(path / "config.json") if path.is_dir() else None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"model {path} is no folder with a config.json that can be read; give one as save_pretrained writes it"
        )
    return config


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

    files = _files(path)
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


def _files(path: Path) -> list[Path]:
    index = _json(path / "model.safetensors.index.json")
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(mapped, dict):
        names = sorted({Path(str(name)).name for name in mapped.values()})
        return [path / name for name in names]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if files := sorted(path.glob("*.safetensors")):
        return files
    raise CheckpointError(f"model {path} has no *.safetensors; convert its weights where that can do no harm")


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """What a file holds; None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()
