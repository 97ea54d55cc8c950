"""The response classifier: an answer is read with what was asked, and sorted into what it does with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.model import TierClassifier
from classifier.normalize import normalize
from classifier.runtime import Tokenizer
from classifier.settings import ClassifierSettings, OperatingPoint
from classifier.taxonomy import Taxonomy
from classifier.types import Exchange, Tier, Verdict

if TYPE_CHECKING:
    from classifier.encoder import Encoder

_SYSTEM, _PROMPT = 5, 4  # of a window's tokens, the system message gets a fifth, the prompt a quarter
_MOST_CHARACTERS = 4000  # of a prompt or a system message; what lies between its beginning and its end is cut anyway


class ResponseClassifier:
    """Exchanges in, verdicts out; the categories are those of the model's taxonomy.

    Every token of an answer is read, also what stands encoded in it, in windows that each begin with the system message
    and the prompt, so that a late part of a long answer is still held against what was asked. The window of the highest
    tier decides.

    Args:
        tiers: a model whose folder says that it reads exchanges.
    """

    def __init__(self, tiers: TierClassifier) -> None:
        self._tiers = tiers

    @classmethod
    def load(cls, folder: Path, encoder: Encoder, *, max_tokens: int | None = None) -> ResponseClassifier:
        """Load a model folder onto an encoder.

        Raises:
            ClassifierError: a file is missing or broken, the adapter was trained on another encoder, or to read texts.
        """
        return cls(TierClassifier.load(folder, encoder, max_tokens=max_tokens, reads="exchanges"))

    def at(self, point: OperatingPoint) -> ResponseClassifier:
        """The same model, which judges at another operating point."""
        return ResponseClassifier(self._tiers.at(point))

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels, each with its tier."""
        return self._tiers.taxonomy

    @property
    def labels(self) -> dict[str, bool]:
        """The labels, each with whether an output door may stop such an answer."""
        return {category.id: category.tier is Tier.UNSAFE for category in self.taxonomy.categories}

    @property
    def settings(self) -> ClassifierSettings:
        """Windows and operating point."""
        return self._tiers.settings

    def classify(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for each exchange, in order.

        Raises:
            TextTooLong: the answers together have more than `max_tokens` tokens; none is judged.
        """
        tokenizer, room = self._tiers.tokenizer, self._tiers.room
        before = [asked(tokenizer, exchange.prompt, exchange.system, room) for exchange in exchanges]
        return self._tiers.judge(self._tiers.read([exchange.answer for exchange in exchanges], before))


def asked(tokenizer: Tokenizer, prompt: str, system: str, room: int) -> tuple[int, ...]:
    """The token ids that stand before an answer in each window: system message and prompt, each with an end of its own.

    Args:
        tokenizer: reads them; what is written like a special token is text.
        prompt: what was asked; of a long one its beginning and its end are read.
        system: what the operator told the model beforehand; likewise.
        room: tokens of a window; less than half of them are taken.
    """
    texts = [normalize(_ends(text, _MOST_CHARACTERS)) for text in (system, prompt)]
    ids = [tokenizer.split(text)[0] for text in texts]
    end = list(tokenizer.after)
    return tuple(
        token
        for each, share in zip(ids, (_SYSTEM, _PROMPT), strict=True)
        for token in [*_cut(each, room // share), *end]
    )


def _ends(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most // 2] + text[-most // 2 :]


def _cut(ids: Sequence[int], most: int) -> Sequence[int]:
    return ids if len(ids) <= most else [*ids[: most // 2], *ids[len(ids) - (most - most // 2) :]]
