"""The models that a request names beside the one that it is judged by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl

from guard.asgi import Scope
from guard.config import Config
from guard.endpoints import plain
from guard.errors import BadRequest
from guard.policy import Mode, fits
from guard.wires import WireRequest
from guard.wires.json import parse_json
from guard.wires.requests import models_of

_IN_PATH = re.compile(r"/(?:deployments|engines)/(.+?)(?:/chat)?/[^/]+\Z")  # Azure's and LiteLLM's; a / may be in it


def check_named(scope: Scope, config: Config, request: WireRequest) -> None:
    """Whether query, path and body name no model that keys, policy or classifiers tell from the body's `model`.

    Raises:
        BadRequest: the query names another one, or one of the others is told from it.
    """
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))  # LiteLLM takes its model for the body's
    if any(name.casefold() == "model" and value != request.model for name, value in query):
        raise BadRequest("model: the query names another one than the body; name it in the body alone", param="model")
    check_models(config, request.model, _others(scope, request))


def check_models(config: Config, model: str, others: Iterable[object]) -> None:
    """A server may answer with any model that a request names; rules and classifiers are chosen by its `model`.

    Raises:
        BadRequest: a rule or a choice of classifiers tells another one from it, or there are too many.
    """
    whens = [rule.when.model for rule in config.policy.rules if rule.mode is not Mode.OFF]
    whens += [other.when.model for other in config.classifiers.values()]
    lower = [tuple(map(str.lower, names)) for names in whens if names]
    wanted = [(names, fits(model.lower(), names)) for names in lower]
    for other in others if wanted else ():
        if not isinstance(other, str) or any(fits(other.lower(), names) != fit for names, fit in wanted):
            raise BadRequest(
                f"model: rules or classifiers are chosen by it, and the request names another, {str(other)[:100]!r}, "
                "that they tell from it; name one model",
                param="model",
            )


def _others(scope: Scope, request: WireRequest) -> Iterator[object]:
    if found := _IN_PATH.search(plain(scope["path"])):
        yield from models_of({"model": found[1]})
    yield from models_of(parse_json(request.body))
