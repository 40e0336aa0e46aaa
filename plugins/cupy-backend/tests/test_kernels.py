"""What kernels become on GPUs, and where they read and write when tensors are larger than 2**31 elements."""

import mmap
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikecore.backends.kit import BackwardPlan, ForwardPlan, backward_calls, segment_length
from spikecore.dynamics import OPS
from spikecore.errors import BackendError, PluginUnavailable
from spikecore.nn import LIF
from spikecore.registry import components, create
from spikecore_cupy_backend import ahead
from spikecore_cupy_backend.ahead import compile_ahead, compile_source
from spikecore_cupy_backend.kernels import (
    THREADS,
    is_vectorisable,
    launch_shape,
    least_blocks,
    most_lanes,
    print_kernel,
)
from spikecore_cupy_backend.on_host import HostCompiler
from spikecore_cupy_backend.printer import CUDAPrinter

ARCHITECTURES = (80, 90, 100) if os.environ.get("SPIKE_FULL") else (90,)
"""Of every neuron; those of LIF are always looked at."""
NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
INEXACT = re.compile(r"div\.(full|approx)|sqrt\.approx|\bfma\.|\.ftz\b")


INEXACT_EVERYWHERE = re.compile(r"div\.(full|approx)|sqrt\.approx")
"""In functions of NVIDIA's library too, which are made of `ex2.approx.ftz` and fused multiply-adds."""


def test_every_operator_of_core_is_printed():
    missing = set(OPS) - set(CUDAPrinter.operations)
    assert not missing, f"printer.py has no text for {', '.join(sorted(missing))}"


def is_exact(program):
    """Do a step and its gradient use only operators that give the same bits everywhere?"""
    nodes = (*program.forward.nodes, *program.backward.nodes)
    return all(OPS[node.op].exact for node in nodes if node.op in OPS)


def plans(program, steps=21):
    length = segment_length(program)
    yield ForwardPlan(length, steps % length, True, True, frozenset(), frozenset(), True)
    arriving = (True, *[False] * (len(program.states) + len(program.record)))
    (call,) = backward_calls(program, arriving, steps, length)
    yield BackwardPlan(length, call.cells, call.steady, True, frozenset(), frozenset(), frozenset(), True)


def check(program, dtype, architecture):
    """Kernels with one lane for each thread, and with as many as there are at most."""
    kernels = []
    for plan in plans(program):
        for lanes in dict.fromkeys((1, most_lanes(plan, dtype))):
            kernel = compile_ahead(program, plan, dtype, architecture, lanes)
            assert kernel.registers <= 65536 // (THREADS * least_blocks(plan, lanes))
            kernels.append(kernel)
    for kernel in kernels:
        assert kernel.stack_bytes == kernel.spilled_bytes == 0
        pattern = INEXACT if is_exact(program) else INEXACT_EVERYWHERE
        assert not pattern.findall(kernel.ptx)
    return kernels


def test_most_neurons_are_exact():
    assert sum(is_exact(create("neuron", name).program()) for name in NEURONS) >= 6


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_is_exact_and_fits(name):
    for architecture in ARCHITECTURES:
        check(create("neuron", name).program(), torch.float32, architecture)


@pytest.mark.parametrize("architecture", [80, 100])
def test_architectures(architecture):
    for kernel in check(LIF(tau=3.0).program(), torch.float32, architecture):
        assert re.search(r"(div|rcp)\.rn\.f32", kernel.ptx)


def test_a_number_is_divided_by_as_torch_does_on_a_gpu():
    """`x / number` is `x * (1 / number)` there: one division for all steps. On the CPU it is a quotient for each."""
    program = LIF(tau=3.0).program()
    forward, _ = plans(program)
    text = print_kernel(program, forward, torch.float32)
    assert re.findall(r"\((\S+) / number0\b", text) == ["0x1.0000000000000p+0f"] * 13, "not 8 steps and 5"
    (ptx, _) = compile_source(text, 90)
    assert 1 <= len(re.findall(r"\brcp\.rn\.f32", ptx)) <= 2, "more than one before the loop and one behind it"
    on_cpu = print_kernel(program, forward, torch.float32, reciprocals=False)
    assert len(re.findall(r"\bsc_\w+ / number0\b", on_cpu)) == 13
    learnable = LIF(tau=3.0, learnable=("tau",)).program()
    text = print_kernel(learnable, next(plans(learnable)), torch.float32)
    assert len(re.findall(r"\bsc_\w+ / sc_\w+", text)) == 13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    check(LIF(tau=3.0).program(), dtype, 80)


def test_fast_functions_are_instructions():
    program = LIF(surrogate="sigmoid").program()
    _, backward = plans(program)
    exact, fast = (compile_ahead(program, backward, torch.float32, 90, fast_exp=given) for given in (False, True))
    assert re.findall(r"\bfma\.", exact.ptx)
    assert not re.findall(r"\bfma\.", fast.ptx)
    assert "ex2.approx" in fast.ptx
    double = (compile_ahead(program, backward, torch.float64, 90, fast_exp=given).ptx for given in (False, True))
    assert len(set(double)) == 1


@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    [
        (torch.float32, {"ld": {"v4.f32"}, "st": {"v4.u32"}}, {"ld": {"v2.f32"}, "st": {"v2.u32"}}),
        (torch.bfloat16, {"ld": {"v4.f32", "v4.u16"}, "st": {"v4.u32", "v2.u32"}}, {"ld": {"v2.f32", "v2.u16"}}),
        (torch.float64, {"ld": {"v2.f64"}, "st": {"v4.u32"}}, {"ld": {"f64"}, "st": {"f64"}}),
    ],
    ids=str,
)
def test_loads_and_stores_are_vectors(dtype, forward, backward):
    """16 bytes of the state and 8 bytes of float16; half as many in a backward pass. Nothing is moved lane by lane."""
    program = LIF(tau=3.0).program()
    for plan, widths in zip(plans(program), (forward, backward), strict=True):
        ptx = compile_ahead(program, plan, dtype, 90, most_lanes(plan, dtype)).ptx
        for word, expected in widths.items():
            assert set(re.findall(rf"\b{word}\.global\.(?:nc\.|wb\.)?(\S+)", ptx)) == expected


def test_what_can_be_loaded_as_vectors():
    plan = next(plans(LIF(learnable=("tau",)).program()))
    assert is_vectorisable(plan, {"x": 32, "param.tau": 4})
    assert not is_vectorisable(plan, {"x": 32, "row.v": 8})
    assert not is_vectorisable(replace(plan, aligned=False), {"x": 32})
    assert is_vectorisable(replace(plan, uniform=frozenset({"state.v"})), {"x": 32, "state.v": 4})


def test_shapes_of_launches():
    assert launch_shape(1 << 22, 132, 4) == (4, 128)
    assert launch_shape(1 << 22, 132, 1) == (1, 128)
    assert launch_shape(1 << 17, 132, 4) == (1, 128)
    assert launch_shape(1 << 13, 132, 4) == (1, 32)
    forward, backward = plans(LIF().program())
    assert most_lanes(forward, torch.float32) == most_lanes(forward, torch.bfloat16) == 4
    assert most_lanes(backward, torch.float32) == most_lanes(forward, torch.float64) == 2


def test_an_architecture_that_the_compiler_does_not_know():
    with pytest.raises(BackendError, match="sm_60.*gpu-architecture"):
        compile_source("", 60)


def test_errors_show_the_line_of_the_source():
    program = LIF(tau=3.0).program()
    source = print_kernel(program, next(plans(program)), torch.float32)
    wrong = source.replace("sc_store_lanes(out_at", "sc_stor(out_at", 1)
    line = next(number for number, text in enumerate(wrong.splitlines(), 1) if "sc_stor(" in text)
    with pytest.raises(BackendError) as caught:
        compile_source(wrong, 90)
    assert f">{line:5} {wrong.splitlines()[line - 1]}" in str(caught.value)
    assert f" {line - 1:5} {wrong.splitlines()[line - 2]}" in str(caught.value)
    assert '"sc_stor" is undefined' in str(caught.value)


def test_kernels_need_no_header_of_cuda():
    """CuPy's wheel has none. A source that asks for one says which."""
    program = LIF().program()
    for plan in plans(program):
        source = print_kernel(program, plan, torch.bfloat16)
        assert re.findall(r"#include .*", source) == ['#include "host.h"']  # behind #ifdef SC_ON_HOST
    with pytest.raises(BackendError, match=r'(?s)open source file "cuda_fp16.h".*>    2 #include <cuda_fp16.h>'):
        compile_source("\n#include <cuda_fp16.h>\n", 90)


def test_without_the_compiler_a_cure_is_named(monkeypatch):
    monkeypatch.setattr(ahead, "_wheel_folders", list)
    monkeypatch.setattr(ahead, "find_library", lambda name: None)
    with pytest.raises(PluginUnavailable) as caught:
        ahead.load_nvrtc.__wrapped__()
    assert "nvidia-cuda-nvrtc" in caught.value.hint


def zeros(num_elements):
    """Pages that nothing touches take no memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE of Linux
    return np.frombuffer(mmap.mmap(-1, 4 * num_elements, flags=flags), dtype=np.float32)


@pytest.mark.parametrize("lanes", [1, 4])
def test_more_elements_than_32_bits_count(lanes):
    """The last lanes of two steps of more than 2**31 lanes each: every offset is beyond 32 bits."""
    num_lanes, num_looked_at, steps = (1 << 31) + lanes * THREADS, 2 * lanes * THREADS, 2
    program = LIF(tau=3.0).program()
    x, out, state = zeros(num_lanes * steps), zeros(num_lanes * steps), zeros(num_lanes)
    last = slice(num_lanes - num_looked_at, num_lanes)
    given = torch.randn(steps, num_looked_at, generator=torch.Generator().manual_seed(0)) * 3
    for step in range(steps):
        x[step * num_lanes :][last] = given[step]
    plan = ForwardPlan(8, steps, False, False, frozenset(), frozenset(), True)
    source = print_kernel(program, plan, torch.float32, reciprocals=False, lanes=lanes)
    run = HostCompiler().load(source, program, plan, False)
    end = num_lanes // (lanes * THREADS)
    pointers = [array.ctypes.data for array in (x, state, out)]
    run(end - 2, end, *pointers, num_lanes, 0, num_lanes, 1, 1, *program.numbers)
    right = LIF(tau=3.0, backend="torch")(given)
    assert right.any()
    for step in range(steps):
        assert torch.equal(torch.from_numpy(out[step * num_lanes :][last].copy()), right[step])
        assert not out[step * num_lanes :][: 1 << 12].any(), "what is not its own was written"
