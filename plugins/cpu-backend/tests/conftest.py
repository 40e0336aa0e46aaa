"""Modules beside the tests are importable; kernels are kept in a cache of the test run."""

import sys
from pathlib import Path

import pytest
from spikecore_cpu_backend.compiler import Compiler

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """Nothing of an earlier run is found, nothing is left behind."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder
    patch.undo()


@pytest.fixture(scope="session")
def libraries():
    """What was compiled: compiler, flags and text → library."""
    return {}


@pytest.fixture
def compiled_once(monkeypatch, libraries):
    """For tests that need an empty cache, but not the minutes of its compilations."""
    real = Compiler.compile

    def compile_once(self, source, *rest):
        key = self.identity, source
        if key not in libraries:
            libraries[key] = real(self, source, *rest)
        return libraries[key]

    monkeypatch.setattr(Compiler, "compile", compile_once)
    return libraries
