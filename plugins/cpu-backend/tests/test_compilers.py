"""Every C compiler that is installed: no warnings, and the results that the reference gives."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from cpu_comparison import agree
from spikecore_cpu_backend import CPUBackend
from spikecore_cpu_backend.compiler import CANDIDATES, compilers
from spikecore_cpu_backend.source import kernel_source, runtime_source

from spikecore.dynamics import exp, log, sigmoid, sin, spike, tanh
from spikecore.nn import IF, LIF, Neuron, ParametricLIF
from spikecore.registry import Registry, use


class Curved(Neuron):
    """Functions that compilers are free to compute as they like."""

    state = {"v": 0.1}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v + (sin(x) + exp(-state.v) * 0.1 - sigmoid(x) * tanh(state.v) + log(x * x + 1.0)) / 3.0
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - s * params.v_threshold}


class Quadratic(Neuron):
    """Izhikevich's form: a product of the state with itself, a second state, both reset."""

    state = {"v": -0.6, "u": -0.1}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = state.v + 0.5 * (0.4 * state.v * state.v + 0.5 * state.v + 0.14 - state.u + x)
        u = state.u + 0.02 * (0.2 * state.v - state.u)
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h * (1.0 - s) - 0.65 * s, "u": u + 0.08 * s}


NEURONS = {
    "lif": lambda **on: LIF(tau=2.0, surrogate="atan", detach_reset=True, **on),
    "soft reset": lambda **on: IF(reset="soft", surrogate="sigmoid", **on),
    "learnable, per channel": lambda **on: LIF(tau=[1.5, 2.0, 3.0], learnable=("tau", "v_threshold"), **on),
    "plif": lambda **on: ParametricLIF(init_tau=2.5, **on),
    "quadratic": lambda **on: Quadratic(surrogate="atan", **on),
    "functions": lambda **on: Curved(surrogate="erf", record=("v",), **on),
}
WARNINGS = ("-Wall", "-Wextra", "-Werror")
NOT_MEANT = ("-Wno-unused-parameter", "-Wno-unused-function")
"""Rows have one form whatever a neuron needs of it, and each kernel carries all functions that one may call."""
STAYS_SCALAR = ("-Wno-pass-failed",)
"""In float64 functions are the C library's: clang says of their loops that it could not make vector code."""
X = torch.randn(9, 4, 3, 47, generator=torch.Generator().manual_seed(2)) * 1.5


@pytest.fixture(params=CANDIDATES)
def compiler(request):
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"{request.param} is not installed")
    same = [name for name in CANDIDATES[: CANDIDATES.index(request.param)] if shutil.which(name)]
    if Path(path).resolve() in [Path(shutil.which(name)).resolve() for name in same]:
        pytest.skip(f"{request.param} is the same program as one of {', '.join(same)}")
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For all tests here: a compiler compiles the driver once."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def backend(compiler, folder):
    """`cpu` with this compiler, under a name of its own."""
    chosen = compiler

    class Compiled(CPUBackend):
        @dataclass(frozen=True)
        class Config(CPUBackend.Config):
            compiler: str = chosen
            cache_dir: str = str(folder)

    registry = Registry()
    registry.register("backend", "compiled", Compiled)
    with use(registry):
        yield "compiled"


def test_no_warnings(compiler, tmp_path):
    candidate = next(compilers(compiler))
    texts: dict = {"runtime": (runtime_source(), ())}
    for name, make in NEURONS.items():
        texts[name] = (kernel_source(make().program(), False), ())
        texts[f"{name} in float64"] = (kernel_source(make().program(), True), STAYS_SCALAR)
    source, library = tmp_path / "text.c", tmp_path / "text.so"
    for name, (text, flags) in texts.items():
        source.write_text(text)
        command = [
            candidate.path,
            *candidate.flags,
            *WARNINGS,
            *NOT_MEANT,
            *flags,
            str(source),
            "-o",
            str(library),
            "-lm",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_results(backend, name, dtype):
    named = {"cpu": backend, "torch": "torch"}
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    agree(lambda on: NEURONS[name](backend=named[on]), X.to(dtype), tolerance=tolerance)


PRODUCTS_AND_NORM = """
import hashlib, sys
import torch
from spikecore_cpu_backend import compiler

if sys.argv[1] != "native":
    compiler._flags = lambda: (*compiler.FLAGS, f"-march={sys.argv[1]}", *compiler.EXACT)

from spikecore import nn

nn.configure_backend("cpu", norm="together")
torch.set_num_threads(2)
draw = torch.Generator().manual_seed(0)
digest = hashlib.sha256()
for kind, channels, outputs, stride, size in (
    ("conv", 64, 64, 1, 9), ("conv", 35, 50, 1, 8), ("conv", 40, 33, 2, 7), ("point", 64, 48, 1, 6),
    ("linear", 100, 70, 1, 0),
):
    for is_last in (False, True) if size else (False,):
        shape = (2, 3, channels, size, size) if size else (2, 3, channels)
        x = (torch.rand(shape, generator=draw) < 0.3).float()
        if kind == "linear":
            layer = nn.Linear(channels, outputs, products="event")
        else:
            kernel = 3 if kind == "conv" else 1
            layer = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, products="event")
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)
        if is_last:
            layer = layer.to(memory_format=torch.channels_last)
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
        out = layer(x)
        assert layer.product.backend == "cpu", layer.product
        grad = torch.randn(out.shape, generator=draw)
        out.backward(grad)
        own = layer.weight.grad.clone()
        dense = torch.nn.functional.linear if kind == "linear" else torch.nn.functional.conv2d
        weight = layer.weight.detach().double().requires_grad_()
        options = {} if kind == "linear" else {"stride": stride, "padding": kernel // 2}
        wanted = dense(x.flatten(0, 1).double(), weight, layer.bias.detach().double(), **options)
        wanted.backward(grad.flatten(0, 1).double())
        torch.testing.assert_close(out.detach().flatten(0, 1).double(), wanted.detach(), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(own.double(), weight.grad, rtol=1e-5, atol=1e-4)
        for result in (out.detach(), own):
            digest.update(result.contiguous().numpy().tobytes())
for channels, size in ((35, 9), (16, 31)):
    for is_last in (False, True):
        block = nn.ConvBNNeuron(
            torch.nn.Conv2d(8, channels, 1), torch.nn.BatchNorm2d(channels), nn.LIF(backend="cpu"), products="dense"
        )
        for parameter in block.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)
        x = torch.randn(4, 3, 8, size, size, generator=draw)
        if is_last:
            block = block.to(memory_format=torch.channels_last)
            x = x.movedim(2, -1).contiguous().movedim(-1, 2)
        assert block.choose(x.device, x.dtype).backend == "cpu"
        out = block(x)
        assert 0.02 < out.detach().mean() < 0.98
        out.backward(torch.randn(out.shape, generator=draw))
        for result in (out.detach(), block.norm.running_var, *(p.grad for p in block.parameters())):
            digest.update(result.contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these names are of x86 processors")
def test_products_and_norm_are_the_same_bits_with_vectors_of_any_width(tmp_path):
    """Most processors have no AVX-512, and the one that runs this may."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    said = {}
    for march in ("native", "x86-64-v3", "x86-64-v2"):
        command = [sys.executable, "-c", PRODUCTS_AND_NORM, march]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{march}: {done.stderr}"
        said[march] = done.stdout
    assert len(set(said.values())) == 1, said
