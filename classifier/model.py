"""The tier classifier: a shared encoder, a LoRA adapter and a category head; a tier is the sum of its categories."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classifier.decoding import decoded
from classifier.encoder import Encoder
from classifier.normalize import decorated, invisible, is_symbol, normalize
from classifier.pace import pause
from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy, tier_sums
from classifier.types import ClassifierError, Coverage, TextTooLong, Tier, Verdict
from classifier.windows import Window, windows

SLICE_TOKENS = 512  # two whole windows: a short text waits half a second for a long one, at most
DEFAULT_MODEL = SHIPPED_MODEL
_MOST_CHARACTERS = 20  # in a token; a longer text is refused before it costs anything
_ADAPTER = "adapter_model.safetensors"
_HEAD = "head.safetensors"
_SETTINGS = "classifier.json"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where probabilities become a tier; part of the model's folder, chosen on data that training did not see.

    A window is Unsafe from `unsafe` on; else not Safe from `risk` on, where risk is the sum over the tiers but Safe,
    and then the likelier of Conditionally Safe and Focused Attention: what is not sure enough to be refused is still
    not passed on.
    """

    risk: float = 0.5
    unsafe: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("risk", self.risk), ("unsafe", self.unsafe)):
            if not 0.0 < value <= 1.0:
                raise ClassifierError(f"operating point {name} = {value}: need a probability above 0, at most 1")

    def tier(self, tiers: Mapping[Tier, float]) -> Tier:
        """The tier of one window."""
        if tiers[Tier.UNSAFE] >= self.unsafe:
            return Tier.UNSAFE
        if 1.0 - tiers[Tier.SAFE] < self.risk:
            return Tier.SAFE
        return max((Tier.CONDITIONALLY_SAFE, Tier.FOCUSED_ATTENTION), key=lambda t: tiers[t])


class TierModel(nn.Module):
    """Encoder with a LoRA adapter, mean pooling over tokens, and one linear layer to the categories.

    Forward: mask and ids of shape ``(batch, tokens)``, or in place of the ids what else the encoder reads → logits of
    shape ``(batch, categories)``.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: PeftModel, categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, categories)
        self.register_buffer("centre", torch.zeros(encoder.config.hidden_size), persistent=False)
        self.register_buffer("spread", torch.ones(encoder.config.hidden_size), persistent=False)

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Category logits."""
        pooled = (self.pool(attention_mask, **inputs) - self.centre) / self.spread
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def pool(self, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """The mean of the states of a text's tokens: ``(batch, hidden)``."""
        states: Tensor = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    @torch.no_grad()
    def standardize(self, centre: Tensor, spread: Tensor) -> None:
        """Let the head read pooled states around `centre` in units of `spread`, and compute what it did before.

        Some encoders put all texts into one narrow cone; a head on raw states then hardly learns. Zero and one take
        the standardization back, which is how a model is saved.
        """
        raw = self.head.weight / self.spread
        self.head.bias.add_(raw @ (centre - self.centre))
        self.head.weight.copy_(raw * spread)
        self.centre.copy_(centre)
        self.spread.copy_(spread)

    @classmethod
    def untrained(cls, encoder: Encoder, categories: int, lora: LoraConfig) -> TierModel:
        """A fresh adapter and head on a shared encoder."""
        with _without_future_warnings():
            adapted = get_peft_model(encoder.lend(), lora)
        adapted.active_peft_config.base_model_name_or_path = encoder.name  # not the folder of this machine
        return cls(adapted, categories)

    def save(self, folder: Path) -> None:
        """Write adapter and head as safetensors, in half precision: they were trained far above its resolution."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        adapter = folder / _ADAPTER
        save_file({name: value.half() for name, value in load_file(adapter).items()}, adapter)
        head = {name: value.detach().half().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / _HEAD)
        for path in (adapter, folder / _HEAD):
            path.chmod(0o644)  # safetensors writes for the owner only


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """What a model folder says of itself beside its weights (``classifier.json``)."""

    name: str
    encoder: str
    encoder_sha256: str
    taxonomy_version: str
    window: int = 256
    overlap: int = 64
    operating_point: OperatingPoint = OperatingPoint()

    def __post_init__(self) -> None:
        if not (isinstance(self.window, int) and isinstance(self.overlap, int)):
            raise TypeError(f"window {self.window!r} and overlap {self.overlap!r} must be whole numbers")
        if not isinstance(self.encoder, str):
            raise TypeError(f"encoder {self.encoder!r} must be a name")

    def save(self, folder: Path) -> None:
        """Write ``classifier.json``."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "operating_point"}
        data["operating_point"] = {"risk": self.operating_point.risk, "unsafe": self.operating_point.unsafe}
        (folder / _SETTINGS).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ClassifierSettings:
        """Read ``classifier.json``.

        Raises:
            ClassifierError: it is missing or malformed.
        """
        path = folder / _SETTINGS
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**data, "operating_point": OperatingPoint(**data.pop("operating_point", {}))})
        except FileNotFoundError as exc:
            raise ClassifierError(
                f"classifier model {folder} has no {_SETTINGS}; give the folder that `airlock train classifier` wrote"
            ) from exc
        except (ValueError, TypeError, AttributeError) as exc:
            raise ClassifierError(f"classifier model {folder}: {_SETTINGS} is malformed: {exc}; train again") from exc


class TierClassifier:
    """Texts in, verdicts out.

    A text is normalized and read in windows, every token of it; one with emoji between its words is also read without
    them, and what stands encoded in it (`classifier.decoding`) is read too, as windows over the whole text. The
    window of the highest tier decides; among windows of that tier, the one that is surest, or, when all are Safe, the
    one that is least sure.

    Args:
        model: encoder, adapter and head.
        encoder: the encoder the model sits on; its tokenizer reads the texts.
        taxonomy: gives the outputs their meaning, in order.
        settings: windows and operating point.
        max_tokens: tokens read in one call; more raise TextTooLong. None reads any number.
        batch: windows run at once; more needs memory and gains little on a CPU.
        slice_tokens: tokens, padding included, run at once; between two such slices other callers may come first
            (`classifier.pace`).
    """

    def __init__(
        self,
        model: TierModel,
        encoder: Encoder,
        taxonomy: Taxonomy,
        settings: ClassifierSettings,
        *,
        max_tokens: int | None = None,
        batch: int = 16,
        slice_tokens: int = SLICE_TOKENS,
    ) -> None:
        if model.head.out_features != len(taxonomy.categories):
            raise ClassifierError(
                f"the head has {model.head.out_features} outputs, taxonomy {taxonomy.name!r} has "
                f"{len(taxonomy.categories)} categories; use the taxonomy that the model was trained with"
            )
        self.model = model.eval()
        self.taxonomy = taxonomy
        self.settings = settings
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._batch = batch
        self._slice_tokens = slice_tokens
        self._name = f"{settings.name}@{taxonomy.version}"
        self._size = settings.window - len(encoder.before) - len(encoder.after)
        longest = getattr(encoder.model.config, "max_position_embeddings", settings.window)
        if settings.window > longest or not 0 <= settings.overlap < self._size:
            raise ClassifierError(
                f"classifier model {settings.name!r}: windows of {settings.window} tokens with an overlap of "
                f"{settings.overlap}; encoder {encoder.name!r} reads up to {longest}, the overlap must be shorter"
            )

    @classmethod
    def load(cls, folder: Path, encoder: Encoder, *, max_tokens: int | None = None) -> TierClassifier:
        """Load a model folder onto an encoder.

        Raises:
            ClassifierError: a file is missing or broken, or the adapter was trained on another encoder.
        """
        settings = ClassifierSettings.load(folder)
        if settings.encoder_sha256 != encoder.sha256:
            raise ClassifierError(
                f"classifier model {folder} was trained on encoder {settings.encoder!r} (SHA-256 "
                f"{settings.encoder_sha256[:12]}…), not on {encoder.name!r} ({encoder.sha256[:12]}…); set "
                "`classifier.encoder` to the one it was trained on"
            )
        taxonomy = Taxonomy.load(folder / TAXONOMY)
        if settings.taxonomy_version != taxonomy.version:
            raise ClassifierError(
                f"classifier model {folder}: {TAXONOMY} has version {taxonomy.version}, the weights were trained with "
                f"{settings.taxonomy_version}; restore the file or train again"
            )
        try:
            head, adapter = load_file(folder / _HEAD), load_file(folder / _ADAPTER)  # before peft tries a pickle
            with _without_future_warnings():
                adapted = PeftModel.from_pretrained(encoder.lend(), folder, local_files_only=True)
            if get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() != adapter.keys():
                raise ValueError(f"{_ADAPTER} does not hold the weights that adapter_config.json asks for")
            if not all(value.isfinite().all() for value in (*head.values(), *adapter.values())):
                raise ValueError("some weights are not finite")
            model = TierModel(adapted, len(taxonomy.categories))
            model.head.load_state_dict({name: value.float() for name, value in head.items()})
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as exc:
            raise ClassifierError(
                f"classifier model {folder} is damaged or incomplete ({type(exc).__name__}: {exc}); train it "
                "again or reinstall it"
            ) from exc
        model.float().requires_grad_(False)
        return cls(model, encoder, taxonomy, settings, max_tokens=max_tokens)

    def save(self, folder: Path) -> None:
        """Write weights, taxonomy and settings; `load` reads them back."""
        self.model.save(folder)
        self.taxonomy.save(folder / TAXONOMY)
        self.settings.save(folder)

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order.

        Raises:
            TextTooLong: the texts together have more than `max_tokens` tokens; none is judged.
        """
        self._check_length("characters", sum(map(len, texts)), _MOST_CHARACTERS)
        readings = [self._read(text) for text in texts]
        self._check_length("tokens", sum(coverage.tokens for _, coverage in readings), 1)
        flat = [window for reading in readings for window in reading[0]]
        probabilities = iter(self._probabilities(flat))
        return [
            self._decide([(window, next(probabilities)) for window in found], coverage) for found, coverage in readings
        ]

    def _check_length(self, what: str, found: int, each: int) -> None:
        if self._max_tokens is not None and found > each * self._max_tokens:
            raise TextTooLong(
                f"the text has {found} {what}, more than the {each * self._max_tokens} that `classifier.max_tokens` = "
                f"{self._max_tokens} allows; shorten it, or raise the setting"
            )

    def _read(self, text: str) -> tuple[list[Window], Coverage]:
        hidden, encoded = invisible(text), decoded(text)
        text = normalize(text)
        encoding = self._encoder.tokenize([text])
        ids, offsets = encoding["input_ids"][0], encoding["offset_mapping"][0]
        found = self._windows(ids, offsets)
        if decorated(text):  # read as it is and without its emoji; the riskier reading counts, as of any two windows
            words = [at for at, (start, end) in enumerate(offsets) if not is_symbol(text[start:end])]
            found += self._windows([ids[at] for at in words], [offsets[at] for at in words])
        tokens = len(ids)
        for reading in map(normalize, encoded):  # the riskiest of all readings counts
            other = self._encoder.tokenize([reading])["input_ids"][0]
            found += self._windows(other, [(0, len(text))] * len(other))
            tokens += len(other)
        unknown = self._encoder.tokenizer.unk_token_id
        known = [text[start:end] for token, (start, end) in zip(ids, offsets, strict=True) if token != unknown]
        read = _visible("".join(known))
        total = _visible(text)
        total += max(0, hidden - total - 16)  # more hidden than seen is not decoration: it counts as unread
        return found, Coverage(tokens=tokens, windows=len(found), read=min(1.0, read / total) if total else 1.0)

    def _windows(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[Window]:
        return list(windows(ids, offsets, size=self._size, overlap=self.settings.overlap))

    def _probabilities(self, found: Sequence[Window]) -> Iterator[list[float]]:
        """Category probabilities of each window, in order; windows of like length share a slice."""
        results: list[list[float]] = [[] for _ in found]
        done = 0
        for indices in self._slices([len(window.ids) for window in found]):
            if done:
                pause(1.0 - done / len(found))
            with torch.inference_mode():
                logits = self.model(**self._encoder.collate([found[index].ids for index in indices]))
            for index, row in zip(indices, logits.double().softmax(-1).tolist(), strict=True):
                results[index] = row
            done += len(indices)
        yield from results

    def _slices(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of windows that run at once, the shortest first: within `batch` and `slice_tokens`, at least one."""
        special = self.settings.window - self._size
        indices: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            tokens = (len(indices) + 1) * (lengths[index] + special)
            if indices and (len(indices) == self._batch or tokens > self._slice_tokens):
                yield indices
                indices = []
            indices.append(index)
        if indices:
            yield indices

    def _decide(self, scored: Sequence[tuple[Window, list[float]]], coverage: Coverage) -> Verdict:
        judged = []
        for window, probabilities in scored:
            tiers = tier_sums(probabilities, self.taxonomy)
            tier = self.settings.operating_point.tier(tiers)
            sureness = tiers[tier] if tier else -tiers[tier]
            judged.append((tier, sureness, window.span, tiers, probabilities))
        tier, _, span, tiers, probabilities = max(judged, key=lambda item: item[:2])
        probability, category = max(
            (
                (probability, category)
                for probability, category in zip(probabilities, self.taxonomy.categories, strict=True)
                if category.tier is tier
            ),
            key=lambda item: item[0],
        )
        return Verdict(
            tier=tier,
            category=category.id,
            handling=category.handling,
            tiers=tiers,
            probability=probability,
            window=span,
            coverage=coverage,
            model=self._name,
            categories=dict(zip(self.taxonomy.ids, probabilities, strict=True)),
        )


def _visible(text: str) -> int:
    return sum(not char.isspace() for char in text)


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Peft asks transformers for a name that a later release drops; nothing that a caller can do about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
