"""Settings that all tests share."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# `make test` must say the same twice, and never fail because the machine is busy.
settings.register_profile("airlock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("airlock")


@pytest.fixture(scope="module")
def one_thread():
    """One torch thread: roundings then do not depend on what ran before in the same process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
