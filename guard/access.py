"""The gate before everything else, as pure ASGI: who asks, whether they may, and whether there is room for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from guard.asgi import TENANT, ASGIApp, ClientGone, Headers, Message, Receive, Scope, Send, is_stream, send_whole
from guard.body import read_body, replay
from guard.endpoints import MODELS, is_own, name_of
from guard.engine import Guard
from guard.errors import BadRequest, ConfigError
from guard.limits import LimitsDown, OverLimit, RateLimits, Standing, Strangers, Unit
from guard.metering import Meter, estimate
from guard.places import Busy, Places
from guard.tenants import Grant, Keys, NotLoggedIn
from guard.turning_away import TurnedAway, fault_of
from guard.types import Origin
from guard.wires.json import parse_json
from guard.wires.requests import models_of

log = logging.getLogger("airlock")

_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")
_ANYBODY = Grant("")


class Access:
    """Lets requests through to an app: with a key where `access.keys` is set, and within `limits`.

    The tenant is put into the scope, the key taken out of it: no app behind sees a client's key.

    Args:
        app: the app behind, such as `guard.middleware.GuardMiddleware`.
        guard: its settings are `access` and `limits`; it writes down who was turned away.

    Raises:
        ConfigError: the file of keys is missing or malformed, or Redis is named and cannot be used.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        config = guard.config
        self._keys = Keys(config.access.keys) if config.access.keys is not None else None
        self._strangers = Strangers(config.access.failed)
        self._places = Places(config.limits)
        self._rates = RateLimits(config.limits) if config.limits.counted else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; the lifespan and what is not HTTP are the app's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(name_of(scope["path"]), send)
        try:
            grant = await self._login(scope)
            visit.tenant = grant.tenant or None
            scope = self._marked(scope, visit)
            if not grant.may_use(visit.endpoint):
                raise TurnedAway("this key does not open this endpoint", status=403, code="forbidden", rule="access")
            await self._take("requests", visit, 1)
            async with self._places.place(visit.tenant):
                await self._let_in(grant, visit, scope, receive)
        except Busy as exc:
            await self._turn_away(visit, _busy(exc))
        except TurnedAway as exc:
            await self._turn_away(visit, exc)
        except ClientGone:
            return

    def fault(self) -> str:
        """Why nobody would be let in now; empty when that is well."""
        try:
            if self._keys is not None:
                self._keys.refresh()
        except ConfigError:  # it names the file, which is not for everybody
            return "the keys cannot be looked up"
        return ""

    def limits_fault(self) -> str:
        """Why nobody's rates can be looked up now; empty when that is well, or nothing is counted."""
        return self._rates.fault if self._rates is not None else ""

    async def close(self) -> None:
        """Let go of what counts."""
        if self._rates is not None:
            await self._rates.close()

    async def _login(self, scope: Scope) -> Grant:
        if self._keys is None:
            return _ANYBODY
        try:
            return self._keys.login(_presented(scope))
        except NotLoggedIn as exc:
            wait = await self._strangers.wait_s((scope.get("client") or ("",))[0])
            if wait is not None:
                raise TurnedAway(
                    f"too many requests without a valid API key; try again in {wait} s, or with one",
                    status=429,
                    code="too_many_failed_keys",
                    rule="access",
                    retry_after_s=wait,
                    recorded=False,  # else whoever has no key could fill the journal
                ) from None
            raise TurnedAway(
                "no valid API key: send the key that the operator gave you, as `Authorization: Bearer` or `x-api-key`",
                status=401,
                code="invalid_api_key",
                rule="access",
                cause=exc.reason if exc.tenant is None else f"{exc.reason} of {exc.tenant}",
            ) from None
        except ConfigError as exc:
            log.error("nobody is let in: %s", exc)
            raise TurnedAway(
                "Airlock cannot look up its keys at the moment, so nobody is let in; tell the operator",
                status=503,
                code="access_unavailable",
                rule="access",
                cause=str(exc),
                retry_after_s=10,
            ) from exc

    def _marked(self, scope: Scope, visit: _Visit) -> Scope:
        if self._keys is None:
            return scope
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _KEY_HEADERS]
        return {**scope, "headers": headers, TENANT: visit.tenant}

    async def _take(self, unit: Unit, visit: _Visit, cost: int) -> None:
        if self._rates is None:
            return
        try:
            visit.stands(await self._rates.take(unit, visit.tenant, cost))
        except OverLimit as exc:
            never = exc.retry_after_s is None
            raise TurnedAway(
                str(exc),
                status=413 if never else 429,
                code="request_too_large" if never else "rate_limit_exceeded",
                rule="limits",
                cause=f"{unit}: {exc}",
                retry_after_s=exc.retry_after_s,
                headers=exc.standing.headers() if exc.standing else None,
            ) from None
        except LimitsDown as exc:
            raise TurnedAway(str(exc), status=503, code="limits_unavailable", rule="limits", retry_after_s=1) from exc

    async def _let_in(self, grant: Grant, visit: _Visit, scope: Scope, receive: Receive) -> None:
        """Hand the request on; looks into the body where a limit or a scope needs it, and counts what was used."""
        rates = self._rates
        metered = rates is not None and rates.counts("tokens", visit.tenant) and scope["method"] == "POST"
        asks_model = bool(grant.models) and not is_own(scope["path"])
        taken = 0
        if metered or asks_model:
            body = await self._body(scope, receive)
            if asks_model and not _allowed(grant, visit.endpoint, scope, body):
                raise TurnedAway("this key does not open this model", status=403, code="forbidden", rule="access")
            if metered:
                taken = estimate(body)
                await self._take("tokens", visit, taken)
            receive = replay(body, receive)
        try:
            await self._app(scope, receive, visit.send if rates is not None else visit.to_client)
        finally:
            used = visit.meter.used(taken) if taken and visit.meter else taken
            if rates is not None and used > taken:
                await rates.charge("tokens", visit.tenant, used - taken)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        try:
            return await read_body(scope, receive, self._guard.config.server)
        except BadRequest as exc:
            raise TurnedAway(str(exc), status=exc.status, code=exc.code, rule="invalid_request") from exc

    async def _turn_away(self, visit: _Visit, exc: TurnedAway) -> None:
        if not exc.recorded:
            await send_whole(visit.send, exc.status, exc.body(visit.endpoint), exc.headers)
            return
        decision, _ = await fault_of(self._guard, exc, Origin(visit.tenant, endpoint=visit.endpoint))
        await send_whole(visit.send, exc.status, exc.body(visit.endpoint), exc.headers, decision)
        await self._guard.ended(decision, "refused", status=exc.status, detail=exc.code)


class _Visit:
    """One request and how it stands with the limits; its `send` adds what a client may know of them."""

    def __init__(self, endpoint: str, send: Send) -> None:
        self.endpoint = endpoint
        self.tenant: str | None = None
        self.meter: Meter | None = None
        self.to_client = send
        self._standing: dict[Unit, Standing] = {}

    def stands(self, standing: Standing | None) -> None:
        """Keep how a limit stands."""
        if standing is not None:
            self._standing[standing.unit] = standing

    async def send(self, message: Message) -> None:
        """To the client, with the limits in the headers, and what the answer uses counted."""
        if message["type"] == "http.response.start":
            headers: Headers = list(message.get("headers", []))
            self.meter = Meter(stream=is_stream(message))
            own = [header for standing in self._standing.values() for header in standing.headers()]
            names = {name.lower() for name, _ in headers} if message["status"] in (413, 429) else set()
            replaced = {name for name, _ in own} - names  # an error says itself which limit it met
            kept = [(name, value) for name, value in headers if name.lower() not in replaced]
            message = {**message, "headers": kept + [(name, value) for name, value in own if name in replaced]}
        elif self.meter is not None:
            self.meter.feed(message.get("body", b""))
        await self.to_client(message)


def _busy(exc: Busy) -> TurnedAway:
    return TurnedAway(
        f"{exc}; try again in {exc.retry_after_s} s",
        status=429 if exc.own else 503,
        code="too_many_requests" if exc.own else "overloaded",
        rule="overload",
        retry_after_s=exc.retry_after_s,
    )


def _presented(scope: Scope) -> Sequence[str]:
    found = []
    for name, value in scope["headers"]:
        name, text = name.lower(), value.decode("latin-1").strip()
        if name == b"authorization":
            kind, _, text = text.partition(" ")
            text = text.strip() if kind.lower() == "bearer" else f"{kind} {text}"
        if name in _KEY_HEADERS:
            found.append(text)
    return found


def _allowed(grant: Grant, endpoint: str, scope: Scope, body: bytes) -> bool:
    """Whether the key opens the model that is asked for; what is no JSON asks for none, and is refused further in."""
    if endpoint == "models":
        model = scope["path"].removeprefix(MODELS).strip("/")
        return not model or grant.may_ask(model)
    try:
        data = parse_json(body)
    except BadRequest:
        return True
    if not isinstance(data, dict) or not isinstance(data.get("model"), str):
        return False
    try:
        return all(isinstance(model, str) and grant.may_ask(model) for model in models_of(data))
    except BadRequest:  # too many
        return False
