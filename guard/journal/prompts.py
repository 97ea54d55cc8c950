"""What is kept of a prompt: nothing, its hash, the text without personal data, or the text."""

from __future__ import annotations

from dataclasses import dataclass

from guard.journal.chain import Keys, hashed
from guard.journal.settings import JournalSection, Kept

READABLE = frozenset({"redacted", "full"})  # modes that keep a text


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the operator wants kept.

    Attributes:
        mode: which of the four.
        key: of hashes; without it, whoever guesses a text can confirm it.
    """

    mode: Kept = "off"
    key: bytes | None = None

    @classmethod
    def of(cls, settings: JournalSection) -> Prompts:
        """As configured.

        Raises:
            JournalError: the key's variable is empty.
        """
        return cls(settings.prompts, Keys.of("journal.prompt_key_env", settings.prompt_key_env).sign)

    def kept(self, prompt: str) -> str | None:
        """What is written down."""
        safe = prompt.encode("utf-8", "replace")  # lone surrogates
        match self.mode:
            case "off":
                return None
            case "hashed":
                return hashed(safe, self.key)
            case "redacted":
                from guard.journal.redact import redact

                return redact(safe.decode())
            case "full":
                return safe.decode()
