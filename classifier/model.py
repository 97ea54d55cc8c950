"""The tier classifier: a shared encoder, a LoRA adapter and a category head; a tier is the sum of its categories."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from classifier.normalize import invisible
from classifier.pace import pause
from classifier.readings import Reading, readings
from classifier.runtime import Runtime, Tokenizer
from classifier.settings import ClassifierSettings, OperatingPoint, Reads, described
from classifier.taxonomy import Taxonomy, tier_sums
from classifier.types import ClassifierError, Coverage, Span, TextTooLong, Verdict
from classifier.windows import Window, windows

if TYPE_CHECKING:
    from classifier.encoder import Encoder

SLICE_TOKENS = 512  # some whole windows: a short text waits half a second for a long one, at most
_MOST_CHARACTERS = 20  # in a token; a longer text is refused before it costs anything

Windowed = tuple[list[Window], Coverage]
"""The windows of one text, and how much of it they hold."""


class TierClassifier:
    """Texts in, verdicts out.

    A text is normalized and read in windows, every token of it; one with emoji between its words is also read without
    them, and what stands encoded in it (`classifier.decoding`) is read too, as windows over the whole text. The
    window of the highest tier decides; among windows of that tier, the one that is surest, or, when all are Safe, the
    one that is least sure.

    Args:
        runtime: encoder, adapter and head.
        tokenizer: reads the texts; that of the encoder.
        taxonomy: gives the outputs their meaning, in order.
        settings: windows and operating point.
        max_tokens: tokens read in one call; more raise TextTooLong. None reads any number.
        batch: windows run at once; more needs memory and gains little on a CPU.
        slice_tokens: tokens, padding included, run at once; between two such slices other callers may come first
            (`classifier.pace`).

    Attributes:
        room: tokens of a window beside the special ones.
    """

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: Tokenizer,
        taxonomy: Taxonomy,
        settings: ClassifierSettings,
        *,
        max_tokens: int | None = None,
        batch: int = 16,
        slice_tokens: int = SLICE_TOKENS,
    ) -> None:
        if runtime.categories != len(taxonomy.categories):
            raise ClassifierError(
                f"the head has {runtime.categories} outputs, taxonomy {taxonomy.name!r} has "
                f"{len(taxonomy.categories)} categories; use the taxonomy that the model was trained with"
            )
        self.runtime = runtime
        self.taxonomy = taxonomy
        self.settings = settings
        self.tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._batch = batch
        self._slice_tokens = slice_tokens
        self._name = f"{settings.name}@{taxonomy.version}"
        self.room = settings.window - len(tokenizer.before) - len(tokenizer.after)
        longest = runtime.longest
        if (longest and settings.window > longest) or not 0 <= settings.overlap < self.room:
            raise ClassifierError(
                f"classifier model {settings.name!r}: windows of {settings.window} tokens with an overlap of "
                f"{settings.overlap}; encoder {tokenizer.name!r} reads up to {longest}, the overlap must be shorter"
            )

    @classmethod
    def load(
        cls, folder: Path, encoder: Encoder, *, max_tokens: int | None = None, reads: Reads = "texts"
    ) -> TierClassifier:
        """Load a model folder onto an encoder, to run in PyTorch.

        Raises:
            ClassifierError: a file is missing or broken, or the adapter was trained on another encoder, or to read
                something else.
        """
        from classifier.network import TierModel, TorchRuntime

        settings, taxonomy = described(folder, encoder.name, encoder.sha256, reads)
        model = TierModel.load(folder, encoder, len(taxonomy.categories))
        return cls(TorchRuntime(model, encoder), encoder, taxonomy, settings, max_tokens=max_tokens)

    def at(self, point: OperatingPoint) -> TierClassifier:
        """The same model, which judges at another operating point."""
        other = copy.copy(self)
        other.settings = replace(self.settings, operating_point=point)
        return other

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text, in order.

        Raises:
            TextTooLong: the texts together have more than `max_tokens` tokens; none is judged.
        """
        return self.judge(self.read(texts))

    def judge(self, windowed: Sequence[Windowed]) -> list[Verdict]:
        """One verdict for each text that was read, in order.

        Raises:
            TextTooLong: they have more than `max_tokens` tokens; none is judged.
        """
        return [self._decide(found, logits, coverage) for found, logits, coverage in self._judge(windowed)]

    def logits(self, texts: Sequence[str]) -> list[NDArray[np.float64]]:
        """Category logits of each text's windows, as the network gives them: shape ``(windows, categories)`` each.

        Raises:
            TextTooLong: as of `classify`.
        """
        return [logits for _, logits, _ in self._judge(self.read(texts))]

    def read(self, texts: Sequence[str], before: Sequence[tuple[int, ...]] | None = None) -> list[Windowed]:
        """The windows of each text, normalized, and of what stands encoded in it.

        Args:
            texts: as written.
            before: for each text the token ids that its windows begin with, fewer than `room`; spans do not count them.

        Raises:
            TextTooLong: they have more characters than `max_tokens` tokens could hold; none is read.
        """
        self.check_characters(texts)
        return [self._read(text, start) for text, start in zip(texts, before or [()] * len(texts), strict=True)]

    def check_characters(self, texts: Sequence[str]) -> None:
        """Refuse texts that no call could read, before anything is done with them.

        Raises:
            TextTooLong: they have more characters than `max_tokens` tokens could hold.
        """
        self._check_length("characters", sum(map(len, texts)), _MOST_CHARACTERS)

    def _judge(self, windowed: Sequence[Windowed]) -> Iterator[tuple[list[Window], NDArray[np.float64], Coverage]]:
        self._check_length("tokens", sum(coverage.tokens for _, coverage in windowed), 1)
        logits = self._logits([window for found, _ in windowed for window in found])
        start = 0
        for found, coverage in windowed:
            yield found, logits[start : start + len(found)], coverage
            start += len(found)

    def _check_length(self, what: str, found: int, each: int) -> None:
        if self._max_tokens is not None and found > each * self._max_tokens:
            raise TextTooLong(
                f"the text has {found} {what}, more than the {each * self._max_tokens} that `classifier.max_tokens` = "
                f"{self._max_tokens} allows; shorten it, or raise the setting"
            )

    def _read(self, text: str, before: tuple[int, ...]) -> Windowed:
        hidden = invisible(text)
        first, *others = readings(text, self.tokenizer.split)
        plain, tokens = first.text, len(first.ids)
        found = self._windows(first.ids, first.offsets, before)
        for reading in others:
            offsets = [(0, len(plain))] * len(reading.ids) if reading.encoded else reading.offsets
            found += self._windows(reading.ids, offsets, before)
            tokens += len(reading.ids) if reading.encoded else 0
        unknown = self.tokenizer.unknown
        pairs = zip(first.ids, first.offsets, strict=True)
        read = _visible("".join(plain[start:end] for token, (start, end) in pairs if token != unknown))
        total = _visible(plain)
        total += max(0, hidden - total - 16)  # more hidden than seen is not decoration: it counts as unread
        return found, Coverage(tokens=tokens, windows=len(found), read=min(1.0, read / total) if total else 1.0)

    def _windows(self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], before: tuple[int, ...]) -> list[Window]:
        size = self.room - len(before)
        overlap = self.settings.overlap if not before else min(self.settings.overlap, size // 2)
        return [
            Window(before + each.ids, each.span, each.start) if before else each
            for each in windows(ids, offsets, size=size, overlap=overlap)
        ]

    def _logits(self, found: Sequence[Window]) -> NDArray[np.float64]:
        """Category logits of each window, in order; windows of like length share a slice."""
        results = np.full((len(found), len(self.taxonomy.categories)), np.nan)
        done = 0
        for indices in self._slices([len(window.ids) for window in found]):
            if done:
                pause(1.0 - done / len(found))
            results[indices] = self.runtime.logits([found[index].ids for index in indices])
            done += len(indices)
        if not np.isfinite(results).all():
            broken = int((~np.isfinite(results)).any(-1).sum())
            raise ClassifierError(
                f"classifier model {self._name!r} gave logits that are no numbers in {broken} of {len(found)} windows: "
                "its weights or its runtime are broken; train or export it again"
            )
        return results

    def probabilities(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Category probabilities, shape ``(rows, categories)``, of rows of token ids, each no longer than a window."""
        found = [Window(tuple(row), Span(0, 0)) for row in rows]
        return self.settings.calibration.probabilities(self._logits(found))

    def windows_at(self, text: str, span: Span) -> list[tuple[Reading, Window]]:
        """The windows of a text that lie at a span of the normalized text, each with the reading that it is from."""
        every = list(readings(text, self.tokenizer.split))
        whole = Span(0, len(every[0].text))
        return [
            (reading, window)
            for reading in every
            for window in windows(reading.ids, reading.offsets, size=self.room, overlap=self.settings.overlap)
            if span == (whole if reading.encoded and reading.ids else window.span)
        ]

    def _slices(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of windows that run at once, the shortest first: within `batch` and `slice_tokens`, at least one."""
        special = self.settings.window - self.room
        indices: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            tokens = (len(indices) + 1) * (lengths[index] + special)
            if indices and (len(indices) == self._batch or tokens > self._slice_tokens):
                yield indices
                indices = []
            indices.append(index)
        if indices:
            yield indices

    def _decide(self, found: Sequence[Window], logits: NDArray[np.float64], coverage: Coverage) -> Verdict:
        judged = self.settings.calibration.probabilities(logits).tolist()
        sums = [tier_sums(probabilities, self.taxonomy) for probabilities in judged]
        at, tier, sure = self.settings.operating_point.decide(sums, several=any(window.start for window in found))
        probabilities = judged[at]
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
            tiers=sums[at],
            probability=probability,
            window=found[at].span,
            coverage=coverage,
            model=self._name,
            categories=dict(zip(self.taxonomy.ids, probabilities, strict=True)),
            sure=sure,
        )


def _visible(text: str) -> int:
    return sum(not char.isspace() for char in text)
