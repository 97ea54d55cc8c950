"""The wires that the gateway speaks, and what they need of each other."""

from __future__ import annotations

from guard.wires.chat import CHAT
from guard.wires.types import Fault, Reading, Wire, WireRequest

__all__ = ["BY_ENDPOINT", "CHAT", "PATHS", "Fault", "Reading", "Wire", "WireRequest"]

_WIRES: tuple[Wire, ...] = (CHAT,)
BY_ENDPOINT = {wire.endpoint: wire for wire in _WIRES}
PATHS = {wire.path: wire.endpoint for wire in _WIRES}
