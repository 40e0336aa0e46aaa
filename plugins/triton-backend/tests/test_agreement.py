"""Neurons, surrogates and resets in Triton's interpreter: the spikes of the reference, and its gradients."""

import pytest
import torch
import triton

from spikecore.dynamics import (
    OPS,
    abs,
    atan,
    clamp,
    cos,
    erf,
    exp,
    floor,
    live_nodes,
    log,
    max,
    min,
    round,
    sigmoid,
    sign,
    sin,
    spike,
    sqrt,
    tanh,
    where,
)
from spikecore.errors import BackendError
from spikecore.nn import LIF, Neuron, configure_backend
from spikecore.registry import Registry, components, create, load, use
from spikecore.testing.backend_runs import PARAMETERS, RESETS, SLOPES, SURROGATES, noise, outcome
from spikecore.testing.compare import assert_close, assert_same
from spikecore_triton_backend import interpreted as interpreter

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]


def is_exact(program):
    """Does a step use only operators that give the same bits everywhere?"""
    live = live_nodes(program.forward, program.forward.outputs)
    operators = {program.forward.nodes[index].op for index in live}
    return all(OPS[name].exact for name in operators if name in OPS)


def agree(make, x):
    ours, right = (outcome(make(backend), x) for backend in ("triton", "torch"))
    assert right["output"].any(), "it does not fire: this proves nothing"
    if is_exact(make("torch").program()):
        assert_same([ours["output"], ours["recorded"]], [right["output"], right["recorded"]], "[output, recorded]")
    assert_close(ours, right, "outcome")


def test_there_are_enough_neurons():
    assert len(NEURONS) >= 8


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron(interpreted, name):
    for steps, dtype in ((1, torch.float32), (19, torch.float32), (8, torch.float64), (12, torch.bfloat16)):
        agree(lambda backend: create("neuron", name, backend=backend), noise(steps, 2, 3, 8, dtype=dtype) * 1.5)


@pytest.mark.parametrize("options", [{"surrogate": surrogate} for surrogate in SURROGATES] + list(SLOPES), ids=str)
def test_every_surrogate(interpreted, options):
    agree(lambda backend: LIF(backend=backend, tau=3.0, **options), noise(10, 2, 3, 5, dtype=torch.float32) * 1.5)


@pytest.mark.parametrize("options", [*RESETS, *PARAMETERS], ids=str)
def test_every_reset_and_parameter(interpreted, options):
    for dtype in (torch.float32, torch.float64, torch.float16):
        agree(lambda backend, o=options: LIF(backend=backend, **o), noise(11, 2, 3, 5, dtype=dtype))


class Everything(Neuron):
    """Every operator of the language that the neurons above leave out."""

    state = {"v": 0.25}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        angle = sin(x) * cos(state.v) + atan(x) + erf(state.v)
        root = sqrt(abs(x) + 0.25) + log(1.5 + abs(state.v)) + exp(-x * x)
        steps = floor(x * 2.0) * 0.125 + round(x * 3.0) * 0.0625 + sign(x) * 0.5
        h = min(max(state.v * 0.5 + x, -1.0), angle + 2.0) + clamp(root, min=0.5, max=1.5) / 3.0
        h = where((x > 0.0) & ~(x > 2.0) | (x < -1.0), h, h - steps)
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - s * params.v_threshold}


def test_every_operator(interpreted):
    for dtype in (torch.float32, torch.float64):
        agree(lambda backend: Everything(backend=backend, v_threshold=0.75), noise(9, 2, 3, 8, dtype=dtype))


def test_numbers_are_arguments(interpreted):
    """A sweep over an option compiles once; float64 numbers keep all their bits."""
    x = noise(9, 4, 3)
    backend = interpreted
    LIF(backend="triton", tau=3.0, record=("v",))(x)
    num_kernels = len(backend._kernels)
    for tau in (3.1, 1 / 0.3, 7.0):
        ours, right = (LIF(backend=name, tau=tau, record=("v",)) for name in ("triton", "torch"))
        assert_same(ours(x), right(x), "the output")
        assert_same(ours.recorded["v"], right.recorded["v"], "the potential")
    assert len(backend._kernels) == num_kernels


def test_signs_of_zero_and_infinities(interpreted):
    class Negated(Neuron):
        state = {"v": 0.0}  # noqa: RUF012

        @staticmethod
        def step(x, state, params):
            return 1.0 / -x, {"v": -x}

    x = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 2.0, 1e-42]).reshape(1, 2, 3)
    ours, right = (Negated(backend=backend)(x) for backend in ("triton", "torch"))
    assert_same(ours, right, "1 / -x")
    numbers = ~right.isnan()
    assert torch.equal(ours[numbers].signbit(), right[numbers].signbit())


def test_an_interpreter_that_fails_names_its_versions():
    """As Triton 3.6's does with numpy 2.4."""

    def kernel(x_ptr, BLOCK):  # noqa: N803
        raise TypeError("only 0-dimensional arrays can be converted")

    launch = interpreter.interpreted(kernel)
    with pytest.raises(BackendError, match=rf"triton {triton.__version__} .*numpy .*: .*only 0-dimensional arrays"):
        launch(torch.zeros(4), num_lanes=4)


def test_auto_never_interprets(interpreted):
    neuron = LIF()
    neuron(noise(2, 3))
    assert neuron.chosen.backend != "triton"


def test_declared_devices():
    assert load("backend", "triton").capabilities.devices == ("cuda",)


def test_fast_functions_are_right_up_to_rounding():
    """What they are built of is right here too; how far the GPU's instructions are off, `make bench-gpu` counts."""

    class Functions(Neuron):
        state = {"v": 0.25}  # noqa: RUF012

        @staticmethod
        def step(x, state, params):
            h = exp(-x * x) + tanh(state.v + x) * 0.5 + sigmoid(x * 3.0) * 0.25
            s = spike(h - params.v_threshold, params.surrogate)
            return s, {"v": h - s * params.v_threshold}

    x = noise(9, 2, 3, 8, dtype=torch.float32)
    x[3, 0, 0, :4] = torch.tensor([90.0, -90.0, torch.inf, -torch.inf])
    with use(Registry()):
        configure_backend("triton", interpret=True, fast_exp=True)
        fast = outcome(Functions(backend="triton", surrogate="sigmoid", v_threshold=0.75), x)
        double = outcome(Functions(backend="triton", surrogate="sigmoid", v_threshold=0.75), x.double())
    right = outcome(Functions(backend="torch", surrogate="sigmoid", v_threshold=0.75), x)
    assert right["output"].any()
    assert_close(fast, right, "outcome")
    exact = outcome(Functions(backend="torch", surrogate="sigmoid", v_threshold=0.75), x.double())
    assert_close(double, exact, "outcome in float64")
