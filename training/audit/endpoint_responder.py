"""A model behind an OpenAI-compatible server, as a responder of the measure of behaviour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from attribution.behaviour import Answer
from attribution.sampling import GREEDY, Sampling
from attribution.types import Prompt
from training.audit.chat_endpoint import Ask, ChatClient, ChatEndpoint


class EndpointResponder:
    """Asks a server each prompt as the user's only message; the server applies the chat template.

    Args:
        endpoint: where.
        system: the system prompt; none is sent by default.
        sampling: how answers are written; `seed` is sent with a temperature only.
        send_top_k: whether `top_k` is sent, which is not in OpenAI's API and which some servers refuse.

    Raises:
        ConfigError: the key's variable is not set.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        *,
        system: str | None = None,
        sampling: Sampling = GREEDY,
        send_top_k: bool = False,
    ) -> None:
        self._client = ChatClient(endpoint, option="--endpoint", key_option="--api-key-env")
        self._endpoint = endpoint
        self._system = system
        self._sampling = sampling
        self._send_top_k = send_top_k

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the answers depend on, as far as it is known: the server may change its model."""
        said = asdict(self._sampling) | ({} if self._send_top_k else {"top_k": None})
        return {
            "endpoint": self._endpoint.base_url,
            "model_name": self._endpoint.model_name,
            "system": self._system,
            **said,
        }

    def answer(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Sequence[Answer]]]:
        """The place of each prompt and its answers, as they arrive.

        Raises:
            UpstreamError: the server cannot be reached, refuses, or still fails after all tries.
        """
        count = self._sampling.samples
        asked = [(place, sample) for place in range(len(prompts)) for sample in range(count)]
        said: dict[int, dict[int, Answer]] = defaultdict(dict)
        for number, found in self._client.ask([self._ask(prompts[place], sample) for place, sample in asked]):
            place, sample = asked[number]
            said[place][sample] = Answer(found.text, found.finish)
            if len(said[place]) == count:
                finished = said.pop(place)
                yield place, [finished[each] for each in range(count)]

    def _ask(self, prompt: Prompt, sample: int) -> Ask:
        how = self._sampling
        more: dict[str, Any] = {"temperature": how.temperature}
        if how.temperature > 0:
            more["seed"] = how.seed + sample
            if self._send_top_k:
                more["top_k"] = how.top_k
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        return Ask([*system, {"role": "user", "content": prompt.text}], how.max_new_tokens, more)
