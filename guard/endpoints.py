"""Every path that Airlock serves, and its one name: keys, policy, journal and metrics call it so."""

from __future__ import annotations

import posixpath
from functools import lru_cache

from guard.asgi import TENANT, Scope
from guard.types import Origin
from guard.wires import BY_ENDPOINT

CHECK = "/v1/airlock/check"
ASK = "/v1/airlock/ask"
GROUND = "/v1/airlock/ground"
MODERATIONS = "/v1/moderations"
LITELLM = "/beta/litellm_basic_guardrail_api"
MODELS = "/v1/models"
DOCUMENT = "/openapi.json"

OWN = {CHECK: "check", ASK: "ask", GROUND: "ground", MODERATIONS: "moderations", LITELLM: "litellm"}
"""Paths for which no model of the upstream is asked, with their names."""

PROBES = ("/healthz", "/readyz")
OTHER = "other"
_NAMES = {
    **{wire.path: name for name, wire in BY_ENDPOINT.items()},
    **OWN,
    MODELS: "models",
    DOCUMENT: "openapi",
}
_OWN_PREFIXES = ("/v1/airlock/", MODERATIONS, LITELLM, DOCUMENT)


@lru_cache(1024)
def plain(path: str) -> str:
    """A path in one spelling: lower case, single slashes, none at the end, `.` and `..` resolved."""
    return posixpath.normpath("/" + path.lower().strip("/"))


@lru_cache(1024)
def name_of(path: str) -> str:
    """The name of a path in any spelling; `OTHER` for what is not served, so that no client can make up names."""
    spelt = plain(path)
    return "models" if spelt.startswith(f"{MODELS}/") else _NAMES.get(spelt, OTHER)


def origin_of(scope: Scope, model: str = "") -> Origin:
    """Where a request comes from."""
    return Origin(scope.get(TENANT), model, name_of(scope["path"]))


def is_own(path: str) -> bool:
    """Whether a path is one of Airlock's own, or beside them, where no model's server has anything."""
    return plain(path).startswith(_OWN_PREFIXES)
