"""Causal language models from a folder: loaded, told apart by a hash, and asked how many passages fit their context."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rag.prompting import messages
from rag.types import Document, Evidence, KnowledgeError

PLAIN_TEMPLATE = (  # for models without one: no special token but the one that ends the model's turn
    "{% for message in messages %}{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% elif not loop.last or add_generation_prompt %}"
    "{{ '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)
_UNKNOWN_LENGTH = 1_000_000  # a tokenizer that names a greater one knows none


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal language model and its tokenizer, from a folder.

    Attributes:
        path: the folder.
        sha256: names weights, configuration and tokenizer.
        model: in evaluation mode.
        tokenizer: it has a chat template and an end-of-sequence token.
    """

    path: Path
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """How many tokens it reads and writes, at most.

        Raises:
            KnowledgeError: neither its configuration nor its tokenizer says so.
        """
        known = [getattr(self.model.config, "max_position_embeddings", None), self.tokenizer.model_max_length]
        found = [length for length in known if isinstance(length, int) and 0 < length < _UNKNOWN_LENGTH]
        if not found:
            raise KnowledgeError(
                f"language model {self.path}: neither `max_position_embeddings` in config.json nor `model_max_length` "
                "in tokenizer_config.json says how many tokens it reads; add one"
            )
        return min(found)

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer: the tokenizer's, and those that the model's own settings name."""
        named = self.model.generation_config.eos_token_id if self.model.generation_config else None
        more = [] if named is None else [named] if isinstance(named, int) else named
        return frozenset([int(self.tokenizer.eos_token_id), *more])

    def tokens(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a chat; of one that does not end with the model's turn, up to where it is to write."""
        found: Any = self.tokenizer.apply_chat_template(
            [dict(message) for message in chat],
            add_generation_prompt=chat[-1]["role"] != "assistant",
            tokenize=True,
            return_dict=False,
        )
        return [int(token) for token in found]

    def speaks(self, text: str) -> bool:
        """Whether a text holds one of the tokenizer's special tokens, which the model would take for its own."""
        return any(token in text for token in self.tokenizer.all_special_tokens)


def load_language_model(folder: Path, *, template: str | None = None) -> LanguageModel:
    """Load a causal language model from a folder; never from a hub, no code of its own, weights in safetensors only.

    Args:
        folder: as transformers saves it.
        template: a chat template in Jinja, in the place of the tokenizer's own.

    Raises:
        KnowledgeError: the folder holds no such model, or not all its weights, or there is no chat template.
    """
    sha256 = fingerprint(folder)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    show_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype="auto", output_loading_info=True, **options
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError, ImportError) as exc:
        raise KnowledgeError(
            f"language model {folder} cannot be loaded: {exc}; give a folder that transformers saved, in safetensors, "
            "of a model that needs no code of its own"
        ) from exc
    finally:
        if show_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        raise KnowledgeError(
            f"language model {folder} is a {type(model).__name__} whose attention looks ahead: an encoder; give a "
            "causal language model"
        )
    if missing := sorted(report["missing_keys"]):
        raise KnowledgeError(
            f"language model {folder} lacks {len(missing)} weights, {missing[0]} among them: they would be random; is "
            "it a causal language model, and is the download whole?"
        )
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise KnowledgeError(
            f"language model {folder}: its tokenizer has no chat template; give one with --chat-template FILE, or take "
            "the simple one with --chat-template plain"
        )
    if tokenizer.eos_token_id is None:
        raise KnowledgeError(
            f"language model {folder}: its tokenizer has no end-of-sequence token, and would never stop; name "
            "`eos_token` in tokenizer_config.json"
        )
    model.eval().requires_grad_(False)
    found = LanguageModel(folder, sha256, model, tokenizer)
    try:
        found.tokens(messages("", (), {}))
    except (TemplateError, ValueError, TypeError) as exc:
        raise KnowledgeError(
            f"language model {folder}: its chat template does not take a system and a user message ({exc}); give "
            "another one with --chat-template FILE"
        ) from exc
    return found


def fingerprint(folder: Path) -> str:
    """A hash over weights, configuration and tokenizer of a language model, in hex; not over its chat template.

    Raises:
        KnowledgeError: something of it is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise KnowledgeError(
            f"language model {folder}: no weights in safetensors there; give a folder that transformers saved"
        )
    names = [path.name for path in weights]
    found = hashlib.sha256()
    for name in [*names, "config.json", "tokenizer.json"]:
        try:
            with (folder / name).open("rb") as file:
                found.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        except OSError as exc:
            raise KnowledgeError(f"language model {folder}: {name} cannot be read ({exc.strerror})") from exc
    return found.hexdigest()


def fitted(
    base: LanguageModel, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document], room: int
) -> tuple[list[int], Sequence[Evidence]] | None:
    """The prompt's tokens with as many of the best passages as there is room for, and those passages.

    The question is never cut. A passage with one of the tokenizer's special tokens in it is left out.

    Args:
        base: whose tokens are counted.
        question: as the user put it.
        evidence: passages, best first.
        documents: by id; those that the evidence comes from.
        room: tokens, at most.

    Returns:
        None if not even one passage fits, or the question has a special token in it.
    """
    plain = [item for item in evidence if not base.speaks(item.passage.text)]
    if base.speaks(question):
        return None
    for count in range(len(plain), 0, -1):
        tokens = base.tokens(messages(question, plain[:count], documents))
        if len(tokens) <= room:
            return tokens, plain[:count]
    return None
