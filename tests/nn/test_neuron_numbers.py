"""The neurons of core against loops written anew, closed forms, finite differences and their symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikecore.nn import (
    IF,
    LI,
    LIF,
    CubaLIF,
    NonSpikingIF,
    ParametricLIF,
    Sigmoid,
    get_state,
    set_step_mode,
    streaming,
)
from spikecore.registry import components, load

NEURONS = {e.name: load("neuron", e.name) for e in components("neuron") if e.plugin.id == "core"}
NEURONS = {name: neuron for name, neuron in NEURONS.items() if neuron.state}  # relu: tests/nn/test_relu.py
assert len(NEURONS) >= 6


def hard_spike(u, alpha=2.0):
    """Θ with the atan derivative: a smooth function and a constant that makes it a step."""
    smooth = torch.atan(math.pi / 2 * alpha * u) / math.pi
    return smooth + ((u >= 0).to(u) - smooth).detach()


def reset_by_hand(h, threshold, v_reset, hard, is_detached):
    s = hard_spike(h - threshold)
    r = s.detach() if is_detached else s
    return s, torch.lerp(h, torch.full_like(h, v_reset), r) if hard else h - threshold * r


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("is_detached", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
def test_parametric_lif_by_hand(hard, is_detached, decay_input):
    x = torch.randn(9, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 + 0.7
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    plif = ParametricLIF(
        init_tau=[1.5, 3.0, 6.0],
        decay_input=decay_input,
        v_threshold=0.8,
        v_reset=-0.1,
        reset="hard" if hard else "soft",
        detach_reset=is_detached,
        record=("v",),
    ).double()
    w = torch.tensor([-math.log(tau - 1) for tau in (1.5, 3.0, 6.0)], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(plif.param_w, w, rtol=1e-7, atol=1e-7)
    plif.param_w.data.copy_(w)
    v, spikes, trace = torch.full_like(x[0], -0.1), [], []
    for current in theirs:
        rate = 1 / (1 + torch.exp(-w))
        h = v + rate * (current - v - 0.1) if decay_input else v - rate * (v + 0.1) + current
        s, v = reset_by_hand(h, 0.8, -0.1, hard, is_detached)
        spikes.append(s)
        trace.append(v)
    out = plif(ours)
    assert 0.05 < out.mean() < 0.95
    assert torch.equal(out, torch.stack(spikes).round())
    torch.testing.assert_close(plif.recorded["v"], torch.stack(trace))
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    gradients = torch.autograd.grad(((out + plif.recorded["v"]) * weight).sum(), [ours, plif.param_w])
    right = torch.autograd.grad(((torch.stack(spikes) + torch.stack(trace)) * weight).sum(), [theirs, w])
    torch.testing.assert_close(gradients, right, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(plif.tau.detach(), torch.tensor([1.5, 3.0, 6.0], dtype=torch.float64))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("is_detached", [True, False])
def test_cuba_lif_by_hand(hard, is_detached):
    x = torch.randn(9, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    cuba = CubaLIF(
        c_decay=0.3,
        v_decay=0.9,
        v_threshold=0.6,
        v_reset=0.2,
        reset="hard" if hard else "soft",
        detach_reset=is_detached,
        record=("current", "v"),
        learnable=("c_decay", "v_decay"),
    ).double()
    decays = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.3, 0.9)]
    for name, value in zip(("c_decay", "v_decay"), decays, strict=True):
        getattr(cuba, f"param_{name}").data.copy_(value)
    current, v, spikes, trace = torch.zeros_like(x[0]), torch.full_like(x[0], 0.2), [], []
    for now in theirs:
        current = now + decays[0] * current
        s, v = reset_by_hand(current + v * decays[1], 0.6, 0.2, hard, is_detached)
        spikes.append(s)
        trace.append(v)
    out = cuba(ours)
    assert 0.05 < out.mean() < 0.95
    assert torch.equal(out, torch.stack(spikes).round())
    torch.testing.assert_close(cuba.recorded["v"], torch.stack(trace))
    torch.testing.assert_close(cuba.recorded["current"][-1], current)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    parameters = [cuba.param_c_decay, cuba.param_v_decay]
    gradients = torch.autograd.grad(((out + cuba.recorded["v"]) * weight).sum(), [ours, *parameters])
    right = torch.autograd.grad(((torch.stack(spikes) + torch.stack(trace)) * weight).sum(), [theirs, *decays])
    torch.testing.assert_close(gradients, right, rtol=1e-9, atol=1e-10)


def test_cuba_lif_impulse_response():
    c, d = 0.6, 0.8
    cuba = CubaLIF(c_decay=c, v_decay=d, v_threshold=100.0, record=("v", "current"))
    x = torch.zeros(12, 1, dtype=torch.float64)
    x[0] = 3.0
    assert not cuba(x).any()
    k = np.arange(1, 13)
    np.testing.assert_allclose(cuba.recorded["current"].flatten(), 3 * c ** (k - 1))
    np.testing.assert_allclose(cuba.recorded["v"].flatten(), 3 * (d**k - c**k) / (d - c))


@pytest.mark.parametrize("decay_input", [True, False])
def test_leaky_integrator_step_response(decay_input):
    tau, current = 4.0, 0.9
    v = LI(tau=tau, decay_input=decay_input)(torch.full((20, 1), current, dtype=torch.float64))
    limit = current if decay_input else current * tau
    np.testing.assert_allclose(v.flatten(), limit * (1 - (1 - 1 / tau) ** np.arange(1, 21)))


def test_integrator_is_the_running_sum():
    x = torch.randn(8, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(NonSpikingIF()(x), x.cumsum(0))


@given(st.floats(1.5, 20.0), st.floats(-1.0, 0.5), st.floats(0.6, 2.0), st.floats(1.05, 4.0))
@settings(deadline=None, max_examples=40)
def test_the_f_i_curve_of_lif_and_parametric_lif(tau, v_reset, threshold, drive):
    """From v_reset, v after n steps is v_reset + I (1 - (1 - 1/tau)^n): the period is the first n that reaches it."""
    distance = threshold - v_reset
    current = distance * drive
    exact = math.log(1 - 1 / drive) / math.log(1 - 1 / tau)
    assume(abs(exact - round(exact)) > 1e-6)
    period = math.ceil(exact)
    x = torch.full((5 * period, 1), current, dtype=torch.float64)
    options = {"v_reset": v_reset, "v_threshold": threshold}
    for neuron in (LIF(tau=tau, **options), ParametricLIF(init_tau=tau, **options).double()):
        if isinstance(neuron, ParametricLIF):
            neuron.param_w.data.fill_(-math.log(tau - 1))
        fired = neuron(x).flatten().nonzero().flatten()
        assert fired.tolist() == [period * n - 1 for n in range(1, 6)]


@given(st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=30)
def test_if_with_a_soft_reset_fires_at_the_rate_of_its_input(current):
    spikes = IF(reset="soft", v_threshold=1.0)(torch.full((200, 1), current, dtype=torch.float64))
    assert abs(spikes.sum().item() - 200 * current) <= 1


GRADCHECK = {
    "if": {"learnable": ("v_threshold", "v_reset")},
    "lif": {"learnable": ("tau", "v_threshold", "v_reset"), "tau": [1.5, 3.0], "decay_input": False},
    "plif": {"learnable": ("v_threshold", "v_reset"), "init_tau": [1.5, 3.0]},
    "cuba_lif": {"learnable": ("c_decay", "v_decay", "v_threshold", "v_reset"), "c_decay": [0.3, 0.6]},
    "li": {"learnable": ("tau",), "tau": [1.5, 3.0]},
    "non_spiking_if": {},
    "leaky": {"learnable": ("beta", "v_threshold"), "beta": 0.8, "reset": "none"},  # its other resets are detached
}


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("name", NEURONS)
def test_smooth_parts_have_the_gradients_of_finite_differences(name, reset):
    options = dict(GRADCHECK[name])
    if name not in ("li", "non_spiking_if"):
        options |= {"surrogate": Sigmoid(alpha=2.0, spiking=False), "reset": options.get("reset", reset)}
    neuron = NEURONS[name](**options).double()
    x = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5), requires_grad=True)
    parameters = list(neuron.parameters())
    assert len(parameters) == len(options.get("learnable", ())) + (name == "plif")

    def total(x, *_):
        with streaming(neuron):
            out = neuron(x)
            return (out, *get_state(neuron)[""].values())

    assert torch.autograd.gradcheck(total, (x, *parameters))


# What must not change the result.

drawn_neurons = st.sampled_from(sorted(NEURONS))
sizes = st.integers(0, 5)


def drawn(name, num_steps, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_steps, batch, 3, 2, dtype=torch.float64, generator=generator) * 1.5
    options = {"v_threshold": [0.3, 0.5, 0.8]} if name not in ("li", "non_spiking_if") else {}
    return NEURONS[name](**options), x


@given(drawn_neurons, sizes, sizes, sizes, st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_chunks_and_single_steps_equal_the_whole(name, first, second, batch, seed):
    neuron, x = drawn(name, first + second, batch, seed)
    whole = neuron(x)
    with streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:first]), neuron(x[first:])]), whole)
    set_step_mode(neuron, "single")
    steps = [neuron(step) for step in x]
    assert torch.equal(torch.stack(steps) if steps else whole, whole)


@given(drawn_neurons, st.integers(1, 5), st.integers(1, 5), st.data())
@settings(deadline=None, max_examples=60)
def test_a_batch_of_one_is_a_slice_and_permutations_commute(name, num_steps, batch, data):
    neuron, x = drawn(name, num_steps, batch, data.draw(st.integers(0, 99)))
    whole = neuron(x)
    one = data.draw(st.integers(0, batch - 1))
    assert torch.equal(neuron(x[:, one : one + 1]), whole[:, one : one + 1])
    order = torch.tensor(data.draw(st.permutations(range(batch))))
    assert torch.equal(neuron(x[:, order]), whole[:, order])
    assert torch.equal(neuron(x.flip(-1)), whole.flip(-1))  # within a channel too
    strided = x.transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.equal(neuron(strided), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NEURONS)
def test_every_dtype_and_shape(name, dtype):
    neuron = NEURONS[name]()
    neuron.record = tuple(neuron.state)
    wide = dtype if dtype == torch.float64 else torch.float32
    for shape in [(3, 2), (3, 2, 4), (3, 2, 4, 5, 6), (3, 0, 4), (0, 2, 4), (3, 2, 0)]:
        x = (torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2).to(dtype).requires_grad_()
        out = neuron(x)
        assert (out.shape, out.dtype) == (shape, dtype)
        assert all(v.shape == shape and v.dtype == wide for v in neuron.recorded.values())
        out.sum().backward()
        assert x.grad.dtype == dtype
        torch.testing.assert_close(out, neuron(x.to(wide)).to(dtype))
