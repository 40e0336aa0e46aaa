"""How kernels reach a GPU, with a CuPy that only takes notes: device, stream, grid, arguments, errors."""

import importlib
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spikecore.errors import BackendError
from spikecore.nn import LIF
from spikecore.testing.backend_runs import noise
from spikecore_cupy_backend.kernels import OPTIONS, THREADS

MODULE = "spikecore_cupy_backend.on_device"
ABOVE_32_BITS = (1 << 33) + 256


class CompileError(Exception):
    pass


class Notes:
    """What the stand-ins of torch and CuPy were asked for. Device 0 is current outside."""

    def __init__(self):
        self.device, self.stream = 0, None
        self.modules, self.loaded, self.launched = [], [], []
        self.refusal = ""

    @contextmanager
    def on_device(self, device):
        before, self.device = self.device, device
        yield
        self.device = before

    @contextmanager
    def on_stream(self, stream, device):
        before, self.stream = self.stream, (stream, device)
        yield
        self.stream = before

    def module(self, code, options):
        self.modules.append((code, options))

        def get_function(name):
            if self.refusal:
                raise CompileError(self.refusal)
            self.loaded.append((name, self.device))
            return lambda *launch: self.launched.append((self.device, self.stream, *launch))

        return SimpleNamespace(get_function=get_function)


@pytest.fixture
def notes(monkeypatch):
    notes = Notes()
    compiler = SimpleNamespace(CompileException=CompileError)
    cuda = SimpleNamespace(compiler=compiler, ExternalStream=notes.on_stream)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawModule=notes.module, cuda=cuda))
    monkeypatch.setattr(torch.cuda, "device", notes.on_device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=7000 + device))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132))
    before = sys.modules.pop(MODULE, None)
    notes.launcher = importlib.import_module(MODULE).launcher
    yield notes
    del sys.modules[MODULE]
    if before is not None:
        sys.modules[MODULE] = before


def tensor(device):
    return SimpleNamespace(device=SimpleNamespace(index=device), data_ptr=lambda: ABOVE_32_BITS)


def test_a_kernel_runs_on_the_device_and_the_stream_of_its_tensors(notes):
    launch = notes.launcher("source", is_double=False, lanes=2)
    for device in (1, 1, 0):
        launch([tensor(device)], [ABOVE_32_BITS, 3], [0.5], 4 * 132 * 2 * THREADS + 1)
    assert notes.modules == [("source", OPTIONS)]
    assert notes.loaded == [("sc_kernel", 1), ("sc_kernel", 0)], "once for each device"
    arguments = (np.uint64(ABOVE_32_BITS), np.int64(ABOVE_32_BITS), np.int64(3), np.float32(0.5))
    for device, launched in zip((1, 1, 0), notes.launched, strict=True):
        assert launched == (device, (7000 + device, device), (4 * 132 + 1,), (THREADS,), arguments)
        assert [type(value) for value in launched[-1]] == [np.uint64, np.int64, np.int64, np.float32]
    assert notes.device == 0, "torch's current device is another than before"
    assert notes.stream is None


def test_few_lanes_are_spread_over_small_blocks(notes):
    notes.launcher("source", is_double=False, lanes=1)([tensor(0)], [], [], 1 << 13)
    (_, _, grid, threads, _) = notes.launched[0]
    assert (grid, threads) == ((256,), (32,))


def test_numbers_of_float64(notes):
    notes.launcher("source", is_double=True, lanes=1)([tensor(0)], [1], [0.1], 1)
    (*_, arguments) = notes.launched[0]
    assert arguments[-1] == 0.1
    assert type(arguments[-1]) is np.float64


def test_an_error_shows_the_line_of_the_source(notes):
    notes.refusal = '/tmp/a/b.cubin.cu(2): error: identifier "sc_stor" is undefined'
    launch = notes.launcher("first\nsc_stor(a);\nthird", is_double=False, lanes=1)
    with pytest.raises(BackendError) as caught:
        launch([tensor(0)], [], [], 1)
    assert '"sc_stor" is undefined' in str(caught.value)
    assert ">    2 sc_stor(a);" in str(caught.value)
    assert not notes.launched


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_device():
    x = noise(19, 2, 3, 8, dtype=torch.float32) * 1.5
    right = LIF(backend="torch")(x)
    neuron = LIF(backend="cupy")
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        out = neuron(x.to(device))
        assert out.device == torch.device(device)
        assert torch.equal(out.cpu(), right)
    assert right.any()
    assert torch.cuda.current_device() == 0
