"""SpikingJelly's integration functions; torchvision and torchaudio, which its package imports, play no part in them."""

import importlib
import os
import sys
import types

import pytest

NAMES = [
    *(
        "torchvision",
        *(f"torchvision.{part}" for part in ("datasets", "datasets.utils", "datasets.folder", "transforms")),
    ),
    *("torchaudio", *(f"torchaudio.{part}" for part in ("transforms", "datasets", "datasets.utils"))),
    "torchaudio.datasets.speechcommands",
]


class _Absent(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def require(name):
    """A module of another library; where it cannot be imported the test is skipped, and fails in `make check`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("SPIKE_PEERS"):
            raise
        pytest.skip(f"{error}; make check installs it", allow_module_level=True)


def spikingjelly_utils():
    """Its functions that integrate events."""
    require("spikingjelly")
    added = [name for name in NAMES if name not in sys.modules]
    sys.modules.update({name: _Absent(name) for name in added})
    try:
        return require("spikingjelly.datasets.utils")
    finally:
        for name in added:
            del sys.modules[name]
