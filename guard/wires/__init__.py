"""The wires that the gateway speaks, and what they need of each other."""

from __future__ import annotations

from guard.wires.chat import CHAT
from guard.wires.completions import COMPLETIONS
from guard.wires.embeddings import EMBEDDINGS
from guard.wires.messages import MESSAGES
from guard.wires.responses import RESPONSES
from guard.wires.types import Fault, Reading, Wire, WireRequest

__all__ = ["BY_ENDPOINT", "CHAT", "PATHS", "Fault", "Reading", "Wire", "WireRequest"]

_WIRES: tuple[Wire, ...] = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS)
BY_ENDPOINT = {wire.endpoint: wire for wire in _WIRES}
PATHS = {  # whole names, since an app may have `/messages` of another kind
    CHAT.path.removeprefix("/v1"): CHAT.endpoint,
    **{wire.path: wire.endpoint for wire in _WIRES},
}
