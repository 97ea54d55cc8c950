"""Sections of the configuration: who gets in, how much of the gateway each may use, and how many at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from guard.fields import Count, Seconds, Section, Variable, one_or_many


def _rate(text: str) -> str:
    from limits import parse_many

    try:
        found = parse_many(text)
    except ValueError as exc:
        raise ValueError("need a count and a time, such as 60/minute or 100000/1 hour") from exc
    if len(found) > 1:
        raise ValueError("need one rate; write several as a list, such as [60/minute, 5/second]")
    return text


Rate = Annotated[str, AfterValidator(_rate)]
Rates = Annotated[tuple[Rate, ...], one_or_many(Rate)]


class Access(Section):
    """Who gets in."""

    keys: Path | None = Field(
        None, description="File of API keys, written by `airlock keys`; without one nobody logs in, and everybody may."
    )
    failed: Rates = Field(
        ("60/minute",),
        description="Requests without a valid key from one address (of IPv6, one /64), such as 60/minute; more get "
        "HTTP 429 and no record in the journal. Valid keys are let in all the same.",
    )


class Share(Section):
    """How much somebody may use; what is not given has no bound."""

    requests: Rates = Field((), description="Such as 60/minute; several hold together.")
    tokens: Rates = Field((), description="Of requests and answers together, such as 100000/hour.")


class TenantShare(Share):
    """How much a tenant may use."""

    in_flight: Count | None = Field(None, description="Requests at once; more get HTTP 429.")


class Limits(Section):
    """How much is let in."""

    total: Share = Field(Share(), description="Of all tenants together.")
    tenant: TenantShare = Field(TenantShare(), description="Of each tenant; needs `access.keys`.")
    tenants: dict[str, TenantShare] = Field(
        default_factory=dict, description="Of single tenants, by name, in place of `tenant`."
    )
    in_flight: Count = Field(256, description="Requests that are worked on at once, streams included.")
    queue: Annotated[int, Field(ge=0)] = Field(256, description="Requests that wait for a place; more get HTTP 503.")
    queue_wait_s: Seconds = Field(10.0, description="Longest wait there.")
    redis_env: Variable | None = Field(
        None, description="Environment variable with the address of a Redis that counts; in memory without one."
    )
    redis_timeout_s: Seconds = 1.0
    on_error: Literal["refuse", "continue"] = Field(
        "refuse", description="When Redis does not answer: HTTP 503, or no rate limits and an alarm in the log."
    )

    def of(self, tenant: str | None) -> TenantShare:
        """What one tenant may use; nobody in particular, without keys, only shares the total."""
        return TenantShare() if tenant is None else self.tenants.get(tenant, self.tenant)

    @property
    def counted(self) -> bool:
        """Whether anything is counted over time."""
        return any(share.requests or share.tokens for share in (self.total, self.tenant, *self.tenants.values()))
