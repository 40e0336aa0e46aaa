"""Machines without a GPU, and with one that is too old."""

import subprocess
import sys

import pytest
import torch

from spikecore.errors import BackendError, PluginUnavailable
from spikecore.nn import LIF
from spikecore.registry import components, create


def test_no_gpu_is_a_reason_and_a_cure():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PluginUnavailable) as caught:
        create("backend", "triton")
    assert caught.value.reason
    assert caught.value.hint


def test_a_net_that_names_it_says_why():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((PluginUnavailable, BackendError), match="CUDA|GPU|not installed"):
        LIF(backend="triton")(torch.zeros(2, 3))


def test_an_old_gpu_is_refused(monkeypatch):
    backend = create("backend", "triton", interpret=True)
    monkeypatch.setattr(backend, "capabilities", type(backend).capabilities)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old one")
    support = backend.supports(LIF().program(), torch.device("cuda", 0), torch.float32)
    assert not support
    assert "8.0" in support.reason
    assert "an old one has 7.5" in support.reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert backend.supports(LIF().program(), torch.device("cuda", 0), torch.float32)


def test_listing_imports_nothing():
    assert [entry.status for entry in components("backend") if entry.name == "triton"] == ["ok"]
    code = (
        "import sys; from spikecore.registry import components; components();"
        "print([name for name in ('torch', 'triton', 'cupy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
