"""What kernels become on GPUs, compiled ahead of time: exact arithmetic, vectors, no spilled registers."""

import os
import re

import pytest
import torch

from spikecore.backends.kit import BackwardPlan, ForwardPlan, backward_calls, segment_length
from spikecore.dynamics import OPS, where
from spikecore.errors import BackendError
from spikecore.nn import LIF, CubaLIF, Neuron
from spikecore.registry import components, create
from spikecore_triton_backend import ahead
from spikecore_triton_backend.ahead import compile_ahead
from spikecore_triton_backend.compiled import largest_block, launch_shape
from spikecore_triton_backend.kernels import print_kernel
from spikecore_triton_backend.printer import TritonPrinter

ARCHITECTURES = (80, 90, 100) if os.environ.get("SPIKE_FULL") else (90,)
"""Of every neuron; those of LIF are always looked at."""
NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
INEXACT = re.compile(r"div\.(full|approx)|sqrt\.approx|rcp\.approx|ex2\.approx\.ftz|\bfma\.|\.ftz\b")


INEXACT_EVERYWHERE = re.compile(r"div\.(full|approx)|sqrt\.approx")
"""In functions of NVIDIA's library too, which are made of `ex2.approx.ftz` and fused multiply-adds."""


def test_every_operator_of_core_is_printed():
    missing = set(OPS) - set(TritonPrinter().operations)
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
    kernels = [compile_ahead(program, plan, dtype, architecture) for plan in plans(program)]
    for kernel in kernels:
        assert kernel.stack_bytes == 0
        assert kernel.local_bytes == 0
        assert kernel.registers <= 168, "fewer than three blocks of 128 threads fit on a multiprocessor"
    return kernels


class Halved(Neuron):
    """Has a zero with a minus sign: 1 / h is -inf where x is not positive."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return 1.0 / where(x > 0.0, x, -0.0), {"v": x * 0.5}


def test_a_zero_keeps_its_sign():
    """Triton 3.6 makes 0.0 of the literal -0.0."""
    program = Halved().program()
    kernel = compile_ahead(program, next(plans(program)), torch.float64, 90)
    assert "0d8000000000000000" in kernel.ptx
    assert not re.findall(r"tl\.full\(\(\), -0\.0,", kernel.source)


def test_most_neurons_are_exact():
    assert sum(is_exact(create("neuron", name).program()) for name in NEURONS) >= 6


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_is_exact_and_fits(name):
    program = create("neuron", name).program()
    pattern = INEXACT if is_exact(program) else INEXACT_EVERYWHERE
    for architecture in ARCHITECTURES:
        for kernel in check(program, torch.float32, architecture):
            assert not pattern.findall(kernel.ptx)


@pytest.mark.parametrize("architecture", [80, 100])
def test_architectures(architecture):
    for kernel in check(LIF(tau=3.0).program(), torch.float32, architecture):
        assert "div.rn.f32" in kernel.ptx
        assert not INEXACT.findall(kernel.ptx)


def test_a_number_is_divided_by_as_torch_does_on_a_gpu():
    """`x / number` is `x * (1 / number)` there: one division for all steps. On the CPU it is a quotient for each."""
    program = LIF(tau=3.0).program()
    forward, _ = plans(program)
    text = print_kernel(program, forward, is_double=False)
    assert re.findall(r"div_rn\((\w+), (\w+)\)", text) == [("constant0", "number0")] * 13, "not 8 steps and 5"
    assert "constant0 = tl.full((), 1.0, tl.float32)" in text
    assert len(re.findall(r"\bdiv\.rn\.f32", compile_ahead(program, forward, torch.float32, 90).ptx)) == 1
    on_cpu = print_kernel(program, forward, is_double=False, reciprocals=False)
    assert "constant0, number0" not in on_cpu
    assert len(re.findall(r"div_rn\(\w+, number0\)", on_cpu)) == 13
    learnable = LIF(tau=3.0, learnable=("tau",)).program()
    assert len(re.findall(r"div_rn\(sc_\w+, sc_\w+\)", print_kernel(learnable, next(plans(learnable)), False))) == 13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    forward, backward = check(LIF(tau=3.0).program(), dtype, 90)
    kind = "f64" if dtype == torch.float64 else "f32"
    assert f"div.rn.{kind}" in forward.ptx
    assert f"div.rn.{kind}" in backward.ptx
    assert not INEXACT.findall(forward.ptx + backward.ptx)


def test_fast_functions_are_instructions():
    """By NVIDIA's library an exponential takes fused multiply-adds and a table of cases."""
    program = LIF(surrogate="sigmoid").program()
    _, backward = plans(program)
    exact, fast = (compile_ahead(program, backward, torch.float32, 90, fast_exp=given) for given in (False, True))
    assert re.findall(r"\bfma\.", exact.ptx)
    assert not re.findall(r"\bfma\.", fast.ptx)
    assert "ex2.approx" in fast.ptx
    assert fast.registers <= exact.registers
    double = (compile_ahead(program, backward, torch.float64, 90, fast_exp=given).ptx for given in (False, True))
    assert len(set(double)) == 1


def test_an_error_shows_the_line_of_the_source(monkeypatch):
    program = LIF().program()
    forward, _ = plans(program)
    wrong = print_kernel(program, forward, is_double=False).replace("tl.program_id(0)", "tl.programme(0)")
    monkeypatch.setattr(ahead, "print_kernel", lambda *arguments, **options: wrong)
    with pytest.raises(BackendError) as caught:
        compile_ahead(program, forward, torch.float32, 90)
    assert "lanes = tl.programme(0).to(tl.int64) * BLOCK" in str(caught.value)


def test_loads_and_stores_are_vectors():
    forward, backward = check(LIF().program(), torch.float32, 90)
    assert not re.findall(r"(?:ld|st)\.global\.b32", forward.ptx)
    assert re.findall(r"ld\.global\.v4", forward.ptx)
    assert re.findall(r"ld\.global\.v2", backward.ptx)


def test_many_states_fit():
    check(
        CubaLIF(v_threshold=[0.5, 0.6, 0.7], learnable=("v_threshold", "c_decay", "v_decay")).program(),
        torch.float32,
        90,
    )


def test_shapes_of_launches():
    assert launch_shape(1 << 22, 132) == (512, 4)
    assert launch_shape(1 << 22, 132, 256) == (256, 4)
    assert launch_shape(1 << 13, 132) == (32, 1)
    for num_lanes in (1, 31, 33, 10_000, 100_000):
        block, warps = launch_shape(num_lanes, 132)
        assert block >= 32 * warps
    forward, backward = plans(LIF().program())
    assert largest_block(forward, False) == 2 * largest_block(backward, False) == 2 * largest_block(forward, True)
