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
_INDEX = "model.safetensors.index.json"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_TOKENIZER = (
    *("tokenizer*", "*vocab*", "merges*", "*.model", "*.tiktoken", "*.spm", "tekken.json", "emoji.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template*", "additional_chat_templates/*.jinja"),
)
_PLACES = ("name_or_path", "special_tokens_map_file", "transformers_version", "is_local", "local_files_only")
_SAYS_NOTHING = {"tokenizer.json": ("truncation", "padding"), "tokenizer_config.json": _PLACES}


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a checkpoint folder.

    Raises:
        CheckpointError: there is none, it cannot be read, or the weights that it goes with are not those of
            `weight_files` alone.
    """
    if not path.is_dir():
        raise CheckpointError(f"model {path} is not a folder; give one as save_pretrained writes it")
    if (path / "adapter_config.json").exists():
        raise CheckpointError(
            f"model {path} has an adapter_config.json: an adapter, which would be applied unseen; merge it into its "
            "base first, or remove it"
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CheckpointError(f"model {path} has no config.json: no model") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise CheckpointError(f"model {path}: config.json cannot be read: {first_line(exc)}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"model {path}: config.json holds no settings; is the download whole?")
    if (named := config.get("transformers_weights")) is not None:
        raise CheckpointError(
            f"model {path}: transformers_weights = {str(named)[:100]!r} in config.json has other weights loaded than "
            "model.safetensors; save the model anew without it"
        )
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

    A head that is tied to the embeddings and equals them is left out, for not every copy stores it. One that differs is
    not tied when it is loaded.

    Raises:
        CheckpointError: there are no weights in safetensors, or they cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    from attribution.sketch import tensor_sha256

    files = weight_files(path)
    where: dict[str, Path] = {}

    def read(name: str) -> Tensor:
        with safe_open(where[name], framework="pt") as opened:
            found: Tensor = opened.get_tensor(name)
        return found

    try:
        for file in files:
            with safe_open(file, framework="pt") as opened:
                where |= dict.fromkeys(opened.keys(), file)
        names = sorted(where)
        heads = [name for name in names if name.endswith(_HEADS)]
        if heads and text_config(config).get("tie_word_embeddings", config.get("tie_word_embeddings", False)):
            embeddings = {tensor_sha256(read(name)) for name in names if name.endswith(_EMBEDDINGS)}
            tied = {name for name in heads if tensor_sha256(read(name)) in embeddings}
            names = [name for name in names if name not in tied]
        for name in names:
            yield name, read(name)
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
    """SHA-256 of vocabulary, rules, special tokens, settings and chat templates, in hex.

    Whether the chat template stands in a file of its own does not matter, nor by what and where the files were written.

    Returns:
        None if the folder has no tokenizer.

    Raises:
        CheckpointError: a file cannot be read.
    """
    files = [file for pattern in _TOKENIZER for file in path.glob(pattern) if file.is_file()]
    try:
        found = {file.relative_to(path).as_posix(): _content(file) for file in files}
    except OSError as exc:
        raise CheckpointError(f"model {path}: its tokenizer cannot be read: {first_line(exc)}") from exc
    for name, keys in _SAYS_NOTHING.items():
        if isinstance(content := found.get(name), dict):
            found[name] = {key: value for key, value in content.items() if key not in keys}
    settings = found.get("tokenizer_config.json")
    if isinstance(settings, dict) and "chat_template" in settings:
        found.setdefault("chat_template.jinja", settings["chat_template"])
        del settings["chat_template"]
    return _sha256(found) if found else None


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, in order of their names.

    Raises:
        CheckpointError: there are none in safetensors, or others beside them, which might be loaded in their place.
    """
    there = sorted(path.glob("*.safetensors"))
    index = _json(path / _INDEX)
    mapped = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(mapped, dict):
        names = sorted({str(name) for name in mapped.values()})
        if elsewhere := [name for name in names if Path(name).name != name]:
            raise CheckpointError(
                f"model {path}: {_INDEX} names {elsewhere[0][:100]!r}, which is not in the folder itself; move the "
                "weights there and name them by their file names"
            )
        files = [path / name for name in names]
    else:
        files = [file for file in there if file.name == "model.safetensors"] or there
    if beside := [file.name for file in there if file not in files]:
        told = _INDEX if isinstance(mapped, dict) else "model.safetensors"
        raise CheckpointError(
            f"model {path} has weights in {beside[0]} beside those of {told}: which of them are loaded is not certain; "
            f"remove {beside[0]}, or {told} with what belongs to it"
        )
    if files:
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


def _content(file: Path) -> object:
    """What a file of a tokenizer holds: JSON, a template's text, or the SHA-256 of anything else."""
    if file.suffix == ".json" and (content := _json(file)) is not None:
        return content
    if file.suffix == ".jinja":
        return file.read_text("utf-8", errors="replace")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON
    """What a file holds; None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()
