"""Compiled kernels are kept in a cache of the test run: nothing of an earlier run is found, nothing is left behind."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
    yield
    patch.undo()


@pytest.fixture
def interpreted():
    """The name `triton` runs in the interpreter, on the CPU."""
    from spikecore.nn import configure_backend
    from spikecore.registry import create

    backend = create("backend", "triton", interpret=True)
    configure_backend("triton", config=backend.config)
    from spikecore.backends.installed import installed_backend

    return installed_backend("triton").backend
