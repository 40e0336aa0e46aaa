"""Compiled kernels are kept in a cache of the test run: nothing of an earlier run is found, nothing is left behind."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def interpreting_registry():
    """A registry of its own: in the other one, the backend of this name keeps its default options."""
    from spikecore.nn import configure_backend
    from spikecore.registry import Registry, use

    with use(Registry()) as registry:
        configure_backend("triton", interpret=True)
    return registry


@pytest.fixture
def interpreted(interpreting_registry):
    """The name `triton` runs in the interpreter, on the CPU. Gives the backend."""
    from spikecore.backends.selection import backend_named
    from spikecore.registry import use

    with use(interpreting_registry):
        yield backend_named("triton")
