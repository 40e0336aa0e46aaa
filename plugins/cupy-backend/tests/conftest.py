"""Compiled kernels are kept in a cache of the test run: nothing of an earlier run is found, nothing is left behind."""

import pytest

from spikecore.nn import configure_backend


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def on_host():
    """The name `cupy` runs kernels that are compiled as C++, on the CPU."""
    configure_backend("cupy", on_host=True)
