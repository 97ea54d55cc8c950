"""The checkpoint that an upstream serves, held against the fingerprint that the configuration pins."""

from __future__ import annotations

from guard.connections import Upstream
from guard.errors import ConfigError


def check_pinned(upstream: Upstream) -> str:
    """Read the pinned checkpoint's weights and say that they are the fingerprint's; nothing is pinned by default.

    Raises:
        ConfigError: it drifted, or it or the fingerprint cannot be read.
    """
    pinned = upstream.fingerprint
    if pinned is None:
        return "none is pinned"
    from attribution.drift import verify
    from attribution.fingerprint import load_fingerprint
    from attribution.types import AttributionError

    try:
        signed = load_fingerprint(pinned.file)
        drift = verify(signed, pinned.model)
    except AttributionError as exc:
        raise ConfigError(f"upstream.fingerprint: {exc}") from exc
    if not drift.same:
        raise ConfigError(
            f"upstream.fingerprint: model {pinned.model} drifted since it was signed ({', '.join(drift.kinds)}): "
            f"{' '.join(drift.says)} Put the signed model back, or audit this one and sign it anew with "
            "`airlock audit fingerprint`"
        )
    return f"{pinned.model} is what {pinned.file} says, {drift.tensors} tensors"
