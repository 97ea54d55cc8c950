"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# `make test` must say the same twice, and never fail because the machine is busy.
settings.register_profile("airlock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("airlock")
