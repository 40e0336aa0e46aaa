"""Every installed neuron, compiled ahead of time by both GPU backends: it fits into registers, nothing is spilled.

The plugins' own tests look closer at core's neurons; theirs are the environments without other plugins. With SPIKE_FULL
all neurons are compiled for three architectures.
"""

import dataclasses
import importlib.util
import os

import pytest
import torch

from spikecore.backends.kit import BackwardPlan, ForwardPlan, backward_calls, segment_length
from spikecore.registry import components, create, load

IS_FULL = bool(os.environ.get("SPIKE_FULL"))
ARCHITECTURES = (80, 90, 100) if IS_FULL else (90,)
SOME = ("adex", "eif", "ternary_lif")
"""Two states; a function of the library and the most registers; three-valued spikes."""
REQUIRED = {"num_steps": 8, "num_groups": 2, "group_size": 3, "num_features": 6}
MOST_REGISTERS = 168
"""Three blocks of 128 threads on a multiprocessor."""


def fused_neurons():
    """The names of neurons that a backend may run."""
    names = [entry.name for entry in components("neuron")]
    return [name for name in names if getattr(load("neuron", name).capabilities, "elementwise", False)]


def program_of(name):
    fields = dataclasses.fields(load("neuron", name).Config)
    no_default = dataclasses.MISSING
    needed = [field.name for field in fields if field.default is no_default and field.default_factory is no_default]
    return create("neuron", name, **{option: REQUIRED[option] for option in needed}).program()


def plans(program, steps=21):
    length = segment_length(program)
    yield ForwardPlan(length, steps % length, True, True, frozenset(), frozenset(), True)
    arriving = (True, *[False] * (len(program.states) + len(program.record)))
    (call,) = backward_calls(program, arriving, steps, length)
    yield BackwardPlan(length, call.cells, call.steady, True, frozenset(), frozenset(), frozenset(), True)


def kernels_of(backend, program, architecture):
    """Registers, and bytes that did not fit into them, of each kernel."""
    for plan in plans(program):
        if backend == "triton":
            from spikecore_triton_backend.ahead import compile_ahead

            kernel = compile_ahead(program, plan, torch.float32, architecture)
            yield kernel.registers, kernel.stack_bytes + kernel.local_bytes
        else:
            from spikecore_cupy_backend.ahead import compile_ahead
            from spikecore_cupy_backend.kernels import most_lanes

            for lanes in dict.fromkeys((1, most_lanes(plan, torch.float32))):
                kernel = compile_ahead(program, plan, torch.float32, architecture, lanes)
                yield kernel.registers, kernel.stack_bytes + kernel.spilled_bytes


def test_neurons_of_other_plugins_are_among_them():
    assert {*SOME, "lif"} <= set(fused_neurons())
    assert len(fused_neurons()) >= 20


@pytest.mark.parametrize("backend", ["triton", "cupy"])
@pytest.mark.parametrize("name", fused_neurons() if IS_FULL else SOME)
def test_a_neuron_fits_into_registers(monkeypatch, tmp_path, backend, name):
    assert importlib.util.find_spec("triton"), "the environment of all plugins has it"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    program = program_of(name)
    for architecture in ARCHITECTURES:
        for registers, num_spilled in kernels_of(backend, program, architecture):
            assert num_spilled == 0, f"sm_{architecture}"
            assert registers <= MOST_REGISTERS, f"sm_{architecture}"
