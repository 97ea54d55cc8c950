"""The journal: decisions, outcomes and reviews, each record chained to the last by hash."""

from __future__ import annotations

from typing import Protocol

from guard.types import Decision


class Journal(Protocol):
    """Where decisions are written down."""

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Write a decision; returns once it is safe against a crash of the process.

        Raises:
            JournalError: it could not be written.
        """
        ...

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Write how the request ended.

        Outcomes: `answered`, `refused`, `stopped`, `upstream_error`, `failed`, `disconnected`; of a forwarded answer
        that was held against the knowledge base, `grounded`, `ungrounded` or `abstained`.
        """
        ...

    def open(self) -> None:
        """Go on after `close`."""
        ...

    def close(self) -> None:
        """Write what is waiting, and let go of the database."""
        ...


class NoJournal:
    """Keeps nothing."""

    instant = True

    async def decided(self, decision: Decision, prompt: str) -> None:
        """Nothing."""

    async def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str, ms: float) -> None:
        """Nothing."""

    def open(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
