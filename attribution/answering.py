"""A causal language model on this machine as a responder: left-padded batches, greedy or sampled."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from attribution.behaviour import Answer
from attribution.checkpoint import is_out_of_memory
from attribution.prompts import Template, beginning, encode
from attribution.sampling import GREEDY, Sampling
from attribution.types import AttributionError, Prompt, PromptError


class LocalResponder:
    """Asks a model in this process; under `attribution.ablate.ablate` it answers without those heads.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        identity: names the weights, such as their SHA-256.
        template: how a prompt is put to the model.
        system: the system prompt, for the template `chat`.
        sampling: how answers are written.
        batch: rows in memory at once.
        without: what is ablated, ready for JSON; only written down.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        identity: str,
        template: Template = "chat",
        system: str | None = None,
        sampling: Sampling = GREEDY,
        batch: int = 8,
        without: Mapping[str, Any] | None = None,
    ) -> None:
        if batch < 1:
            raise AttributionError(f"batch {batch} leaves no rows; give 1 or more")
        self._model = model
        self._tokenizer = tokenizer
        self._identity = identity
        self._template = template
        self._system = system
        self._sampling = sampling
        self._batch = batch
        self._without = dict(without or {})
        self._ends = _ends(model, tokenizer)

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the answers depend on; not the batch, which changes roundings only."""
        return {
            "model_sha256": self._identity,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "template": self._template,
            "system": self._system,
            **asdict(self._sampling),
            "ablated": self._without,
        }

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Refuse at once what `answer` would refuse later.

        Raises:
            PromptError: a prompt cannot be rendered, or is too long for the model.
        """
        self._encoded(prompts)

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Sequence[Answer]]]:
        """The place of each prompt and its answers, longest prompts first.

        Raises:
            PromptError: a prompt cannot be rendered, or is too long for the model.
            AttributionError: the memory is too small for a batch, or the model computes no numbers.
        """
        encoded = self._encoded(prompts)
        count = self._sampling.samples
        order = sorted(range(len(prompts)), key=lambda place: -len(encoded[place]))
        rows = [(place, sample) for place in order for sample in range(count)]
        said: dict[int, dict[int, Answer]] = defaultdict(dict)
        for start in range(0, len(rows), self._batch):
            chosen = rows[start : start + self._batch]
            seeds = [self._seed(prompts[place].text, sample) for place, sample in chosen]
            for (place, sample), answer in zip(
                chosen, self._write([encoded[place] for place, _ in chosen], seeds), strict=True
            ):
                said[place][sample] = answer
                if len(said[place]) == count:
                    found = said.pop(place)
                    yield place, [found[each] for each in range(count)]

    def _write(self, rows: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        width = max(map(len, rows))
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else min(self._ends, default=0)
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        how = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self._sampling.max_new_tokens,
            do_sample=False,  # draws are made by `_Choose`
            pad_token_id=pad,
            eos_token_id=sorted(self._ends) or None,
        )
        choose = _Choose(self._sampling, seeds)
        try:
            with torch.inference_mode(), _own_settings(self._model, how):
                found = self._model.generate(  # type: ignore[operator]
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=how,
                    logits_processor=LogitsProcessorList([choose]),
                )
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            raise AttributionError(
                f"batch {len(rows)}: there is not enough memory for it; give a smaller one, or fewer max_new_tokens"
            ) from exc
        return [self._read(row[width:].tolist()) for row in found]

    def _read(self, written: Sequence[int]) -> Answer:
        end = next((place for place, token in enumerate(written) if token in self._ends), None)
        text = str(self._tokenizer.decode(list(written[:end]), skip_special_tokens=True)).strip()
        return Answer(text, "length" if end is None else "stop")

    def _seed(self, text: str, sample: int) -> int:
        name = f"{self._sampling.seed}\0{sample}\0{text}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1

    def _encoded(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt, with room for an answer."""
        encoded = encode(self._tokenizer, prompts, self._template, self._system)
        room = getattr(self._model.config, "max_position_embeddings", None)
        for place, ids in enumerate(encoded, 1):
            if isinstance(room, int) and len(ids) + self._sampling.max_new_tokens > room:
                raise PromptError(
                    f"prompt {place} has {len(ids)} tokens and its answer up to {self._sampling.max_new_tokens}, but "
                    f"the model holds {room}; shorten the prompt ({beginning(prompts[place - 1].text)}), or give fewer "
                    "max_new_tokens"
                )
        return encoded


class _Choose(LogitsProcessor):
    """Makes the likeliest token the one that is drawn: Gumbel noise on the top k, from each row's own generator."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._sampling = sampling
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of shape (rows, vocabulary), of which the greatest is the token to take."""
        if torch.isnan(scores).any():
            raise AttributionError("the model computes NaN in the place of logits; check its weights, or take float32")
        if self._sampling.temperature == 0.0:
            return scores
        vocabulary = scores.shape[-1]
        top = min(self._sampling.top_k or vocabulary, vocabulary)
        values, places = torch.topk(scores.float(), top, dim=-1)
        noise = torch.stack([torch.empty(top).exponential_(generator=each) for each in self._generators])
        drawn = values / self._sampling.temperature - noise.log().to(values.device)
        chosen = torch.full_like(scores, -torch.inf, dtype=drawn.dtype)
        return chosen.scatter(-1, places, drawn)  # type: ignore[return-value]


@contextmanager
def _own_settings(model: PreTrainedModel, how: GenerationConfig) -> Iterator[None]:
    """Keep what the checkpoint says of generation, such as penalties, out of the answers while the block lasts."""
    saved = model.generation_config
    model.generation_config = how
    try:
        yield
    finally:
        model.generation_config = saved


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those that the model's own settings name."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    more = [] if named is None else [named] if isinstance(named, int) else named
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return frozenset([*own, *more])
