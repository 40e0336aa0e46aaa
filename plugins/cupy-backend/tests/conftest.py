"""Compiled kernels are kept in a cache of the test run: nothing of an earlier run is found, nothing is left behind."""

import pytest

from spikecore.backends.selection import backend_named
from spikecore.nn import configure_backend
from spikecore.registry import Registry, use


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def host_registry(kernel_cache):
    """A registry of its own: in the other one, the backend of this name keeps its default options."""
    with use(Registry()) as registry:
        configure_backend("cupy", on_host=True)
    return registry


@pytest.fixture
def on_host(host_registry):
    """The name `cupy` runs kernels that are compiled as C++, on the CPU. Gives the backend."""
    with use(host_registry):
        yield backend_named("cupy")
