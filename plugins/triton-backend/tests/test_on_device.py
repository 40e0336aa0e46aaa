"""How kernels reach a GPU, with a Triton that only takes notes: device, grid, arguments, errors. And on two GPUs."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import triton

from spikecore.errors import BackendError
from spikecore.nn import LIF
from spikecore.testing.backend_runs import noise
from spikecore_triton_backend import compiled
from spikecore_triton_backend.compiled import OPTIONS


class RefusedError(Exception):
    pass


class Notes:
    """What the stand-ins of torch and Triton were asked for. Device 0 is current outside."""

    def __init__(self):
        self.device = 0
        self.launched, self.not_specialized = [], []
        self.refusal = ""

    @contextmanager
    def on_device(self, device):
        before, self.device = self.device, device.index
        yield
        self.device = before

    def kernel(self, function, do_not_specialize):
        self.not_specialized.append(do_not_specialize)
        return self

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            if self.refusal:
                raise RefusedError(self.refusal)
            self.launched.append((self.device, grid, arguments, options))

        return launch


@pytest.fixture
def notes(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(torch.cuda, "device", notes.on_device)
    monkeypatch.setattr(triton, "JITFunction", notes.kernel)
    monkeypatch.setattr(triton, "CompilationError", RefusedError)
    monkeypatch.setattr(compiled, "num_multiprocessors", lambda index: 132)
    return notes


def launcher():
    def kernel(x_ptr, state_v_ptr, num_steps, number0, BLOCK):  # noqa: N803
        pass

    return compiled.compiled(kernel, 512)


def tensor(device):
    return SimpleNamespace(device=SimpleNamespace(index=device))


def test_a_kernel_runs_on_the_device_of_its_tensors(notes):
    launch = launcher()
    large = 4 * 132 * 512 + 1
    for device in (1, 1, 0):
        launch(tensor(device), tensor(device), 1 << 33, 0.5, num_lanes=large)
    assert notes.not_specialized == [["num_steps", "number0"]], "1 and multiples of 16 would be compiled again"
    for device, (current, grid, arguments, options) in zip((1, 1, 0), notes.launched, strict=True):
        assert current == arguments[0].device.index == device
        assert grid == (4 * 132 + 1,)
        assert arguments[2:] == (1 << 33, 0.5)
        assert options == {"BLOCK": 512, "num_warps": 4, **OPTIONS}
    assert notes.device == 0, "torch's current device is another than before"


def test_few_lanes_are_spread_over_small_blocks(notes):
    launcher()(tensor(0), tensor(0), 1, 0.5, num_lanes=1 << 13)
    ((_, grid, _, options),) = notes.launched
    assert (grid, options["BLOCK"], options["num_warps"]) == ((256,), 32, 1)


def test_what_triton_refuses_is_our_error(notes):
    notes.refusal = "at 3:12: sc_stor is not defined"
    with pytest.raises(BackendError, match="triton does not compile a kernel: at 3:12: sc_stor is not defined"):
        launcher()(tensor(0), tensor(0), 1, 0.5, num_lanes=1)
    assert notes.device == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_device():
    x = noise(19, 2, 3, 8, dtype=torch.float32) * 1.5
    right = LIF(backend="torch")(x)
    neuron = LIF(backend="triton")
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        out = neuron(x.to(device))
        assert out.device == torch.device(device)
        assert torch.equal(out.cpu(), right)
    assert right.any()
    assert torch.cuda.current_device() == 0
