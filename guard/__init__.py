"""The gateway: middleware and proxy that judge what users send, and check what the model answers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.assemble import load_guard
    from guard.config import Config, load_config
    from guard.engine import Guard
    from guard.errors import (
        AirlockError,
        BadRequest,
        BlockedError,
        ConfigError,
        GuardClosed,
        JournalError,
        PartFailure,
        UpstreamError,
    )
    from guard.integrations.openai import guarded
    from guard.middleware import GuardMiddleware
    from guard.types import Decision, Reply, Route, Turn

# Where each public name lives; loaded when it is first asked for, so that `import guard` costs nothing.
_HOMES = {
    "AirlockError": "guard.errors",
    "BadRequest": "guard.errors",
    "BlockedError": "guard.errors",
    "Config": "guard.config",
    "ConfigError": "guard.errors",
    "Decision": "guard.types",
    "Guard": "guard.engine",
    "GuardClosed": "guard.errors",
    "GuardMiddleware": "guard.middleware",
    "JournalError": "guard.errors",
    "PartFailure": "guard.errors",
    "Reply": "guard.types",
    "Route": "guard.types",
    "Turn": "guard.types",
    "UpstreamError": "guard.errors",
    "guarded": "guard.integrations.openai",
    "load_config": "guard.config",
    "load_guard": "guard.assemble",
}

__all__ = [
    "AirlockError",
    "BadRequest",
    "BlockedError",
    "Config",
    "ConfigError",
    "Decision",
    "Guard",
    "GuardClosed",
    "GuardMiddleware",
    "JournalError",
    "PartFailure",
    "Reply",
    "Route",
    "Turn",
    "UpstreamError",
    "guarded",
    "load_config",
    "load_guard",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'guard' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
