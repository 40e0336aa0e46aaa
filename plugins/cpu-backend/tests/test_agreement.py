"""Outputs and gradients against the plain loop under torch's own autograd."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from cpu_comparison import agree, outcome, worst
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore.dynamics import abs, clamp, max, min, spike, where
from spikecore.nn import IF, LIF, Neuron, reset_state
from spikecore.registry import components, create, load

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
SURROGATES = [entry.name for entry in components("surrogate") if entry.plugin.id == "core"]
TRANSCENDENTAL = {"sigmoid", "piecewise_exponential", "erf"}
CASES = [
    dict(zip(("reset", "detach_reset", "v_reset"), combination, strict=True))
    for combination in itertools.product(("hard", "soft"), (False, True), (0.0, -0.25))
]


def noise(*shape, dtype=torch.float32, seed=0, scale=1.5):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def test_the_lists_are_not_empty():
    assert len(NEURONS) >= 6
    assert len(SURROGATES) >= 8
    assert len(CASES) == 8


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_reset_of_lif(case):
    agree(lambda on: LIF(backend=on, record=("v",), tau=3.0, **case), noise(9, 3, 37))


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("name", ["lif", "cuba_lif"])
def test_every_surrogate(name, surrogate):
    agree(lambda on: create("neuron", name, backend=on, surrogate=surrogate), noise(6, 2, 33))


@pytest.mark.parametrize("surrogate", ["atan", "sigmoid"])
@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron(name, surrogate):
    options = {"surrogate": surrogate} if "surrogate" in load("neuron", name).Config.__dataclass_fields__ else {}

    def make(on):
        neuron = create("neuron", name, backend=on, **options)
        neuron.record = tuple(neuron.state)
        return neuron

    agree(make, noise(7, 2, 41))


@pytest.mark.parametrize("surrogate", ["atan", "sigmoid", "erf", "rectangular"])
def test_smooth_neurons(surrogate):
    agree(lambda on: LIF(backend=on, surrogate={"name": surrogate, "spiking": False}), noise(8, 2, 40))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_every_dtype(dtype, case):
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    agree(lambda on: LIF(backend=on, record=("v",), **case), noise(5, 3, 19, dtype=dtype), tolerance=tolerance)


LEARNABLE = [
    {"learnable": ("tau",)},
    {"tau": [1.5, 2.0, 5.0], "learnable": ("tau",)},
    {"tau": [1.5, 2.0, 5.0]},
    {"v_threshold": [0.5, 1.0, 1.5], "v_reset": -0.1, "learnable": ("v_threshold", "tau", "v_reset")},
]


@pytest.mark.parametrize("rest", [(), (1,), (5,), (7, 9), (40, 50)], ids=str)
@pytest.mark.parametrize("case", LEARNABLE, ids=str)
def test_parameters(case, rest):
    agree(lambda on: LIF(backend=on, **case), noise(6, 4, 3, *rest))


def test_many_channels_over_blocks():
    taus = torch.linspace(1.5, 4.0, 1500).tolist()
    agree(lambda on: LIF(backend=on, tau=taus, learnable=("tau", "v_threshold")), noise(5, 3, 1500))


class Exact(Neuron):
    """All operations that the language promises to the last bit, and a state that is not a potential."""

    state = {"v": "v_init", "count": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        h = max(min(state.v * 0.9 + x / 3.0, 2.5), -2.0) - state.count * 0.1
        s = spike(h - params.v_threshold, params.surrogate)
        near = (abs(h) < 0.5) & ~(x > 1.0) | (state.count >= 2.0)
        return s, {"v": where(near, h * 0.5, h - s), "count": clamp(state.count * 0.5 + s, 0.0, 3.0)}


class Wide(Neuron):
    """Every function of the language."""

    state = {"v": 0.1}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        from spikecore.dynamics import atan, cos, erf, exp, floor, log, round, sigmoid, sign, sin, sqrt, tanh

        a = tanh(state.v) + sigmoid(x) - atan(x) + erf(state.v) * exp(-abs(x))
        b = log(1.0 + abs(a)) + sqrt(abs(state.v) + 0.5) + sin(x) * cos(state.v)
        h = a - b + 0.1 * (sign(x) + floor(x) + round(x))
        return spike(h - params.v_threshold, params.surrogate), {"v": 0.5 * h}


class Stateless(Neuron):
    """No memory at all."""

    @staticmethod
    def step(x, state, params):
        return spike(x - params.v_threshold, params.surrogate), {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exact_operations(dtype):
    agree(lambda on: Exact(backend=on, record=("count",)), noise(12, 3, 50, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_functions(dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    agree(lambda on: Wide(backend=on), noise(4, 3, 50, dtype=dtype), tolerance=tolerance)


class Derived(Neuron):
    """What depends on parameters alone, in the step and otherwise in its gradient: computed outside of the steps."""

    state = {"v": 0.1}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        decay: float = 0.3
        gain: float = 1.2

    @staticmethod
    def step(x, state, params):
        from spikecore.dynamics import exp, sigmoid

        h = sigmoid(params.decay) * state.v + exp(-params.gain) * (params.gain * params.decay) * x
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - s * params.v_threshold}


@pytest.mark.parametrize("learnable", [("decay", "gain"), ("gain",), ("decay", "gain", "v_threshold")], ids=str)
@pytest.mark.parametrize("decay", [0.3, [0.1, 0.5, 2.0]], ids=str)
def test_derived_parameters(decay, learnable):
    agree(lambda on: Derived(backend=on, decay=decay, learnable=learnable), noise(20, 4, 3, 40))


def test_no_state():
    agree(lambda on: Stateless(backend=on), noise(4, 3, 50))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.sampled_from([0, 1, 2, 3, 15, 16, 17, 33]),
    batch=st.integers(0, 4),
    rest=st.lists(st.integers(0, 40), max_size=2),
    learns=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(steps, batch, rest, learns, seed):
    options = {"learnable": ("tau",)} if learns else {}
    x = noise(steps, batch, *rest, seed=seed)
    start = {"v": noise(batch, *rest, seed=seed + 1)}
    agree(lambda on: LIF(backend=on, record=("v",), **options), x, start=start)


@pytest.mark.parametrize("shape", [(3, 1, 70001), (1200, 1, 300), (40, 2, 5000)], ids=str)
def test_large_enough_for_threads_and_streams(shape):
    agree(lambda on: LIF(backend=on, tau=3.0, learnable=("tau",)), noise(*shape))


def strided(kind):
    x = noise(5, 4, 6, 8)
    return {
        "transposed": lambda: noise(4, 5, 6, 8).transpose(0, 1),
        "channels last": lambda: x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
        "every second step": lambda: noise(10, 4, 6, 8)[::2],
        "backwards in space": lambda: x.flip(3)[..., ::2],
        "one step repeated": lambda: noise(1, 4, 6, 8).expand(5, 4, 6, 8),
        "one number a step": lambda: noise(5, 1, 1, 1).expand(5, 4, 6, 8),
        "one number": lambda: noise(1, 1, 1, 1).expand(5, 4, 6, 8),
        "part of a row": lambda: noise(5, 4, 6, 20)[..., 3:11],
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "transposed", "channels last", "every second step", "backwards in space", "one step repeated",
        "one number a step", "one number", "part of a row",
    ],
)  # fmt: skip
def test_strides(kind):
    x = strided(kind)
    for taus in (2.0, [2.0, 1.5, 3.0, 4.0, 5.0, 6.0]):
        neuron = LIF(backend="cpu", tau=taus)
        assert torch.equal(neuron(x), LIF(backend="torch", tau=taus)(x))
    given = torch.zeros_like(x.contiguous()).requires_grad_()
    weights = x  # a gradient with the same strides
    (ours,) = torch.autograd.grad(LIF(backend="cpu")(given + x), given, weights)
    (right,) = torch.autograd.grad(LIF(backend="torch")(given + x), given, weights)
    assert worst(ours, right) <= 1e-6


def test_gradients_that_do_not_arrive_are_zero():
    x = noise(6, 3, 20).requires_grad_()
    for part in ("out", "recorded"):
        gradients = []
        for on in ("cpu", "torch"):
            neuron = LIF(backend=on, record=("v",))
            out = neuron(x)
            total = out.sum() if part == "out" else neuron.recorded["v"].square().sum()
            gradients.append(torch.autograd.grad(total, x)[0])
        assert worst(*gradients) <= 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-42, -1e-42, 3e38, -0.0])
@pytest.mark.parametrize("name", ["if", "lif"])
def test_special_values_are_those_of_eager(name, value):
    x = noise(6, 2, 40)
    x[1, 0, :7] = value
    x[3, 1, 20:] = value
    agree(lambda on: create("neuron", name, backend=on, record=("v",)), x)


@pytest.mark.parametrize("shape", [(6, 3, 5), (1, 1, 1), (6, 3, 7000)], ids=str)
def test_lazily_negated_views(shape):
    x, weights = torch._neg_view(noise(*shape)), torch._neg_view(noise(*shape))
    results = []
    for on in ("cpu", "torch"):
        neuron, given = LIF(backend=on), noise(*shape).requires_grad_()
        grad = torch.autograd.grad(neuron(given), given, weights)[0]
        results.append((neuron(x), neuron(x.detach().requires_grad_()).detach(), grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert worst(results[0][2], results[1][2]) <= 1e-6


def test_denormals_are_kept():
    out, right = (LIF(backend=on, record=("v",)) for on in ("cpu", "torch"))
    x = torch.full((3, 1, 64), 1e-41)
    out(x), right(x)
    assert out.recorded["v"].any()
    assert torch.equal(out.recorded["v"], right.recorded["v"])


def test_streaming_and_single_steps_continue_the_sequence():
    x = noise(8, 2, 30)
    whole = LIF(backend="cpu")(x)
    single = LIF(backend="cpu", step_mode="single")
    assert torch.equal(torch.stack([single(current) for current in x]), whole)
    reset_state(single)
    assert torch.equal(single(x[0]), whole[0])


def test_mismatches_with_transcendental_functions_are_rare():
    x = noise(20, 50, 1000)
    for surrogate in sorted(TRANSCENDENTAL & set(SURROGATES)):
        ours, right = (LIF(backend=on, surrogate=surrogate)(x) for on in ("cpu", "torch"))
        assert torch.equal(ours, right)  # a surrogate touches gradients only
    ours, right = (Wide(backend=on)(x) for on in ("cpu", "torch"))
    assert (ours != right).float().mean() <= 1e-5


def test_a_stiff_neuron_is_as_near_to_float64_as_eager_is():
    class Quadratic(Neuron):
        """dv = v², which doubles errors at every step."""

        state = {"v": 0.0}  # noqa: RUF012

        @staticmethod
        def step(x, state, params):
            h = state.v + (x + 2.0 * (state.v + 0.1) * (state.v - 0.8)) / 2.0
            s = spike(h - params.v_threshold, params.surrogate)
            return s, {"v": (1 - s) * h}

    x = noise(32, 4, 200)
    exact = outcome(Quadratic(backend="torch"), x.double())
    ours, eager = (outcome(Quadratic(backend=on), x) for on in ("cpu", "torch"))
    same = (ours["out"] == exact["out"]).all(0) & (eager["out"] == exact["out"]).all(0)
    assert same.float().mean() > 0.9
    errors = [worst(results["grad x"][:, same], exact["grad x"][:, same]) for results in (ours, eager)]
    assert errors[0] <= 2 * errors[1]


def test_any_length_and_width_use_one_kernel():
    neuron = IF(backend="cpu")
    neuron(noise(2, 2, 2))
    from spikecore.backends.selection import backend_named

    before = len(backend_named("cpu")._kernels)
    for shape in ((1, 1), (300, 2, 3), (2, 50, 3, 4)):
        neuron(noise(*shape))
    assert len(backend_named("cpu")._kernels) == before
