"""Modules beside the tests are importable; kernels are kept in a cache of the test run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """Nothing of an earlier run is found, nothing is left behind."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder
    patch.undo()
