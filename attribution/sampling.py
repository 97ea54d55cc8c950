"""How a model writes its answers: greedy or sampled, how long, how many."""

from __future__ import annotations

from dataclasses import dataclass

from attribution.types import AttributionError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are written.

    Attributes:
        max_new_tokens: of an answer, at most.
        temperature: 0 always takes the likeliest token (greedy).
        top_k: with a temperature, draw from this many likeliest tokens; 0 draws from all.
        samples: answers to each prompt.
        seed: of the draws. A draw depends on it, the prompt and the sample, not on what else is in a batch.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 5
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise AttributionError(f"max_new_tokens {self.max_new_tokens} leaves no answer; the paper uses 128")
        if not 0.0 <= self.temperature <= 10.0:
            raise AttributionError(f"temperature {self.temperature} is not between 0 (greedy) and 10")
        if self.top_k < 0:
            raise AttributionError(f"top_k {self.top_k} is less than 0; give 0 to draw from all tokens")
        if self.samples < 1:
            raise AttributionError(f"samples {self.samples} leaves no answer; give 1 or more")
        if self.samples > 1 and self.temperature == 0.0:
            raise AttributionError(
                f"samples {self.samples}: greedy answers are all the same; give a temperature such as 1.0, or samples 1"
            )


GREEDY = Sampling()
