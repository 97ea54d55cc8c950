"""Whether something failed not long ago, and has not done better since."""

from __future__ import annotations

import time

_RECENT_S = 15.0  # so long a failure counts


class Lately:
    """Remembers the last failure of a part, for those who ask how it is without calling it."""

    def __init__(self) -> None:
        self._at: float | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the last call failed, not long ago."""
        return self._at is not None and time.monotonic() - self._at < _RECENT_S

    def failed(self) -> None:
        """Note that a call failed just now."""
        self._at = time.monotonic()

    def went_well(self) -> None:
        """Forget the failure: a call went well."""
        self._at = None
