"""A generative interpreter: a causal language model on this machine, with a LoRA adapter, behind the strict prompt."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from rag.grounding import compose
from rag.language_model import LanguageModel, fingerprint, fitted, load_language_model
from rag.pairs import DAMAGE, load_adapter
from rag.prompting import read_answer
from rag.types import Document, Evidence, GroundedAnswer, KnowledgeError

TEMPLATE = "chat_template.jinja"
_SETTINGS = "model.json"
TASK = "interpreter"


@dataclass(frozen=True, slots=True)
class GenerativeSettings:
    """What a model folder says of itself beside its weights (``model.json``).

    Attributes:
        task: ``interpreter``.
        name: of the model.
        base: folder of the language model that the adapter was trained on.
        base_sha256: of its weights, configuration and tokenizer; see `rag.language_model.fingerprint`.
        max_length: tokens of the longest row that it was trained on, at most.
    """

    task: str
    name: str
    base: str
    base_sha256: str
    max_length: int

    def save(self, folder: Path) -> None:
        """Write ``model.json``."""
        (folder / _SETTINGS).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> GenerativeSettings:
        """Read ``model.json``.

        Raises:
            KnowledgeError: it is missing or malformed, or of another task.
        """
        try:
            data: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            if data.get("task") != TASK:
                raise KnowledgeError(
                    f"{folder} is no {TASK} model (its task is {data.get('task')!r}); give the folder that "
                    f"`airlock train {TASK}` wrote"
                )
            settings = cls(**data)
            if not all(isinstance(getattr(settings, key), str) for key in ("name", "base", "base_sha256")):
                raise ValueError("`name`, `base` and `base_sha256` must be texts")
            if not isinstance(settings.max_length, int) or settings.max_length < 1:
                raise ValueError(f"max_length {settings.max_length!r}: need a number of tokens")
        except FileNotFoundError as exc:
            raise KnowledgeError(
                f"{TASK} model {folder} has no {_SETTINGS}; give the folder that `airlock train {TASK}` wrote"
            ) from exc
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            raise KnowledgeError(f"{TASK} model {folder}: {_SETTINGS} is malformed: {exc}; train again") from exc
        return settings


class GenerativeInterpreter:
    """Writes an answer from the evidence, greedily; `rag.grounding.ground` takes out what the evidence does not prove.

    Prompt and reading are those of `rag.prompting`, as in training. Calls from several threads wait for each other.

    Args:
        base: the language model.
        model: the same, with an adapter.
        max_tokens: that it writes, at most.

    Raises:
        KnowledgeError: the model's context leaves no room for a prompt.
    """

    def __init__(
        self, base: LanguageModel, model: PreTrainedModel | PeftModel | None = None, *, max_tokens: int = 400
    ) -> None:
        if not 0 < max_tokens < base.context:
            raise KnowledgeError(
                f"max_tokens = {max_tokens}: need at least 1 and fewer than the {base.context} tokens that {base.path} "
                "reads and writes"
            )
        self._base = base
        self._model: Any = model or base.model
        self._room = base.context - max_tokens
        self._ends = base.ends
        self._how = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=min(self._ends),
        )
        base.model.generation_config = self._how  # a base's own may ask for sampling or penalties
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, folder: Path, *, threads: int = 1, max_tokens: int = 400, base: Path | None = None, adapted: bool = True
    ) -> Self:
        """Load what `airlock train interpreter` wrote.

        Args:
            folder: the model's.
            threads: of torch, in this process.
            max_tokens: that it writes, at most.
            base: where the language model is, if not where it was in training.
            adapted: with its adapter; without it, the base alone answers, for comparison.

        Raises:
            KnowledgeError: the folder holds no such model, or the adapter is of another base.
        """
        torch.set_num_threads(threads)
        settings = GenerativeSettings.load(folder)
        place = base or Path(settings.base)
        if fingerprint(place) != settings.base_sha256:
            raise KnowledgeError(
                f"{TASK} model {folder} was trained on another base than {place} (SHA-256 {settings.base_sha256}); "
                "give that base, or train again"
            )
        try:
            template = (folder / TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise KnowledgeError(f"{TASK} model {folder}: {TEMPLATE} cannot be read ({exc}); train again") from exc
        found = load_language_model(place, template=template)
        if not adapted:
            return cls(found, max_tokens=max_tokens)
        try:
            model = load_adapter(found.model, folder)
        except DAMAGE as exc:
            raise KnowledgeError(f"{TASK} model {folder}: its adapter cannot be loaded: {exc}; train again") from exc
        return cls(found, model.eval(), max_tokens=max_tokens)

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """What the model says, as a proposal for the citation gate; an abstention where no passage fits the context."""
        prompt = fitted(self._base, question, evidence, documents, self._room)
        if prompt is None:
            return compose((), evidence)
        tokens, shown = prompt
        text, cut = self._write(tokens)
        proposal = read_answer(text, question, shown, documents, cut=cut)
        return GroundedAnswer(proposal.answer, proposal.abstained, proposal.citations, tuple(evidence))

    def _write(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """What the model writes after a prompt, and whether it ended only because of the limit."""
        given = torch.tensor([tokens], device=self._model.device)
        with self._lock, torch.inference_mode():
            found = self._model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), generation_config=self._how
            )
        written = found[0, len(tokens) :].tolist()
        text = str(self._base.tokenizer.decode(written, skip_special_tokens=True))
        return text, not written or written[-1] not in self._ends
