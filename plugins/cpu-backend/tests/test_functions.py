"""The functions of math_32.h over all of float32, against float64."""

import ctypes
import math

import pytest
import torch
from spikecore_cpu_backend.cache import KernelCache, default_folder
from spikecore_cpu_backend.printer import FUNCTIONS, KernelPrinter
from spikecore_cpu_backend.source import _text

from spikecore.dynamics import OPS

LIMITS = {"exp": 1.5, "log": 1.5, "tanh": 1.5, "sigmoid": 2.5, "atan": 2.1, "erf": 1.5, "sqrt": 0.5, "sin": 1, "cos": 1}
"""Units in the last place, for the functions of `OPS` that are not exact."""
EXACT = [name for name in FUNCTIONS if OPS[name].exact]


def test_every_operator_of_core_is_printed():
    missing = set(OPS) - set(KernelPrinter.operations)
    assert not missing, f"printer.py has no text for {', '.join(sorted(missing))}"


def test_every_function_has_its_limit():
    inexact = {name for name in FUNCTIONS if not OPS[name].exact}
    assert inexact == set(LIMITS), f"write a limit for {', '.join(sorted(inexact ^ set(LIMITS)))} into LIMITS"
    assert {"abs", "floor"} <= set(EXACT)


@pytest.fixture(scope="module")
def functions():
    loop = "void t_{0}(const float *a, float *to, long n) {{ for (long i = 0; i < n; i++) to[i] = sc_{0}(a[i]); }}\n"
    loops = "".join(loop.format(name) for name in [*LIMITS, *EXACT])
    library = KernelCache("", default_folder(), 60.0).load(_text("math_32.h") + loops)

    def call(name, x):
        out = torch.empty_like(x)
        getattr(library, f"t_{name}")(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), ctypes.c_long(x.numel())
        )
        return out

    return call


@pytest.fixture(scope="module")
def everything():
    """Floats of all magnitudes, denormals, both zeros, infinities and NaN."""
    bits = torch.arange(-(2**31), 2**31, 6007, dtype=torch.int64).to(torch.int32)
    special = torch.tensor(
        [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 88.7, -103.9, 89.0, 1e-45, 0.625, 2.4142]
    )
    near = torch.linspace(-12, 12, 200001)
    return torch.cat([bits.view(torch.float32), special, near])


@pytest.mark.parametrize("name", LIMITS)
def test_error_in_units_of_the_last_place(functions, everything, name):
    ours, right = functions(name, everything), getattr(torch, name)(everything.double())
    rounded = right.float()
    assert torch.equal(ours.isnan(), rounded.isnan())
    assert torch.equal(ours.isinf(), rounded.isinf())
    assert torch.equal(ours.signbit()[~ours.isnan()], rounded.signbit()[~ours.isnan()])
    finite = rounded.isfinite()
    unit = torch.nextafter(rounded.abs(), torch.tensor(math.inf)) - rounded.abs()
    if name == "sigmoid":  # as torch computes it: exp(-a) overflows before sigmoid is denormal
        finite &= everything > -87
    error = (ours.double() - right).abs() / unit.double()
    assert float(error[finite].max()) <= LIMITS[name]


@pytest.mark.parametrize("name", EXACT)
def test_exact_functions(functions, everything, name):
    ours, right = functions(name, everything), getattr(torch, name)(everything)
    assert torch.equal(ours.nan_to_num(7.0), right.nan_to_num(7.0))
