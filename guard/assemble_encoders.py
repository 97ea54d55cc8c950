"""The encoders of a configuration, each loaded once, and errors of parts that name their setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from classifier.types import ClassifierError
from guard.config import Config
from guard.errors import ConfigError
from rag.types import KnowledgeError

if TYPE_CHECKING:
    from classifier.encoder import Encoder


class Encoders:
    """The encoders of a configuration, each loaded once: parts that name the same one share its weights."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loaded: dict[str, Encoder] = {}

    def get(self, setting: str, name: str) -> Encoder:
        """The encoder of that name.

        Raises:
            ConfigError: it is missing, damaged, or not the expected one; the message names the setting.
        """
        import torch

        from classifier.encoder import load_encoder

        torch.set_num_threads(self._config.classifier.threads)
        with naming(setting):
            if name not in self._loaded:
                self._loaded[name] = load_encoder(name)
        return self._loaded[name]


def is_there(setting: str, name: str) -> bool:
    """Whether the weights of an encoder are where its name says.

    Raises:
        ConfigError: nobody may look there.
    """
    from classifier import weights

    with naming(setting):
        return weights.is_there(name)


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Errors of the parts come out as the configuration's, with the setting's name before them."""
    try:
        yield
    except (ClassifierError, KnowledgeError) as exc:
        raise ConfigError(f"{setting}: {exc}") from exc
