"""The plugin's surrogates against formulas written anew with `math`, and against their own primitives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo_cases import SURROGATES, interpreter

from spikecore.dynamics import Namespace, spike, trace
from spikecore.errors import DynamicsError, OptionError
from spikecore.registry import create, load


def theta(u):
    return 1.0 if u >= 0 else 0.0


def waves(function, o, u):
    terms = range(1, o["num_terms"] + 1)
    return sum(function(2 * math.pi * (2 * i - 1) * u / o["period"], 2 * i - 1) for i in terms)


def q(o, u):
    return 1 + 2 * abs(u) / (o["alpha"] - 1)


def tanh_over(o):
    return 2 * math.tanh(o["alpha"] / 2)


def window(o):
    return o["grad_window"] or (0.0, o["max_spike_count"])


positive = st.floats(0.1, 6.0)
# name → options, derivative, primitive (None: there is none), forward
FORMULAS = {
    "nonzero_sign_log_abs": (
        {"alpha": positive},
        lambda o, u: o["alpha"] / (1 + o["alpha"] * abs(u)),
        lambda o, u: math.copysign(math.log1p(o["alpha"] * abs(u)), u),
        None,
    ),
    "piecewise_leaky_relu": (
        {"w": positive, "c": st.floats(0.0, 0.4)},
        lambda o, u: 0.5 / o["w"] if abs(u) < o["w"] else o["c"],
        lambda o, u: (
            o["c"] * (u + o["w"]) if u < -o["w"] else 1 + o["c"] * (u - o["w"]) if u > o["w"] else (u / o["w"] + 1) / 2
        ),
        None,
    ),
    "squarewave_fourier_series": (
        {"num_terms": st.integers(1, 4), "period": st.floats(1.0, 10.0)},
        lambda o, u: 4 / o["period"] * waves(lambda a, i: math.cos(a), o, u),
        lambda o, u: 0.5 + 2 / math.pi * waves(lambda a, i: math.sin(a) / i, o, u),
        None,
    ),
    "s2nn": (
        {"alpha": positive, "beta": positive},
        lambda o, u: o["alpha"] / (2 + 2 * math.cosh(o["alpha"] * u)) if u < 0 else o["beta"] / (1 + u),
        lambda o, u: 1 / (1 + math.exp(-o["alpha"] * u)) if u < 0 else o["beta"] * math.log1p(u) + 0.5,
        None,
    ),
    "q_pseudo_spike": (
        {"alpha": st.floats(1.2, 5.0)},
        lambda o, u: q(o, u) ** -o["alpha"],
        lambda o, u: 0.5 + math.copysign(0.5 - 0.5 * q(o, u) ** (1 - o["alpha"]), u),
        None,
    ),
    "leaky_k_relu": (
        {"leak": st.floats(0.0, 2.0), "k": positive},
        lambda o, u: o["k"] if u >= 0 else o["leak"],
        lambda o, u: u * (o["k"] if u >= 0 else o["leak"]),
        None,
    ),
    "fake_numerical_gradient": (
        {"alpha": positive},
        lambda o, u: o["alpha"] if abs(u) * o["alpha"] < 1 else 1 / abs(u),
        None,
        None,
    ),
    "log_tailed_relu": (
        {"leak": st.floats(0.0, 1.0)},
        lambda o, u: o["leak"] if u <= 0 else 1 / max(u, 1.0),
        lambda o, u: o["leak"] * u if u <= 0 else u if u < 1 else 1 + math.log(u),
        None,
    ),
    "dspike": (
        {"alpha": positive},
        lambda o, u: o["alpha"] / tanh_over(o) / math.cosh(o["alpha"] * u) ** 2 if abs(u) <= 0.5 else 0.0,
        lambda o, u: theta(u) if abs(u) > 0.5 else 0.5 + math.tanh(o["alpha"] * u) / tanh_over(o),
        None,
    ),
    "deterministic_pass": ({}, lambda o, u: 1.0, lambda o, u: u, None),
    "multi_level_spike_count": (
        {
            "max_spike_count": st.integers(1, 6),
            "grad_window": st.sampled_from([(), (-1.0, 2.5), (0.25, 3.0)]),
        },
        lambda o, u: 1.0 if window(o)[0] <= u <= window(o)[1] else 0.0,
        lambda o, u: min(max(u, 0.0), o["max_spike_count"]),
        lambda o, u: float(min(max(round(u), 0), o["max_spike_count"])),
    ),
}
# Values that are no corner of any formula above.
inputs = st.floats(-6.0, 6.0).filter(lambda u: min(abs(u), abs(abs(u) - 0.5), abs(abs(u) - 1)) > 1e-6)


def gradient_and_value(surrogate, u):
    x = torch.tensor(u, dtype=torch.float64, requires_grad=True)
    out = surrogate(x)
    out.backward()
    return x.grad.item(), out.item()


def options_of(name, data):
    return {option: data.draw(strategy, label=option) for option, strategy in FORMULAS[name][0].items()}


def test_every_surrogate_is_here():
    assert {*FORMULAS, "poisson_pass"} == set(SURROGATES)


@pytest.mark.parametrize("name", FORMULAS)
@given(data=st.data(), u=inputs)
def test_forward_and_backward_are_the_formulas(name, data, u):
    options = options_of(name, data)
    gradient, out = gradient_and_value(create("surrogate", name, **options), u)
    _, derivative, _, forward = FORMULAS[name]
    assert out == (forward(options, u) if forward else theta(u))
    assert gradient == pytest.approx(derivative(options, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [name for name, (_, _, primitive, _) in FORMULAS.items() if primitive])
@given(data=st.data(), u=inputs)
def test_the_smooth_form_is_the_primitive_and_has_the_derivative(name, data, u):
    options = options_of(name, data)
    surrogate = create("surrogate", name, spiking=False, **options)
    gradient, out = gradient_and_value(surrogate, u)
    _, derivative, primitive, _ = FORMULAS[name]
    assert out == pytest.approx(primitive(options, u), rel=1e-9, abs=1e-12)
    assert gradient == pytest.approx(derivative(options, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [name for name, (_, _, primitive, _) in FORMULAS.items() if primitive])
def test_the_primitive_has_this_derivative(name):
    surrogate = create("surrogate", name, spiking=False)
    u = torch.tensor([-3.0, -1.3, -0.61, -0.2, 0.07, 0.33, 0.93, 2.4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(surrogate(u).sum(), u)
    step = 1e-6
    slope = (surrogate(u.detach() + step) - surrogate(u.detach() - step)) / (2 * step)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_graph_says_the_same(name, spiking):
    if not spiking and FORMULAS[name][2] is None:
        with pytest.raises(OptionError, match="no primitive"):
            create("surrogate", name, spiking=False)
        return
    surrogate = create("surrogate", name, spiking=spiking)

    def step(x, state, params):
        return spike(x, surrogate), {}

    program = trace("One", step, (), {})
    x = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    x = torch.cat([x, torch.tensor([0.0, 0.5, -0.5, 1.0])]).requires_grad_()
    out, _ = step(x, Namespace(), Namespace())
    (grad,) = torch.autograd.grad(out.sum(), x)
    result = interpreter.run_graph(program.forward, {"x": x.detach().numpy()})["out"]
    np.testing.assert_allclose(result, out.detach(), rtol=1e-12, atol=1e-14)
    given_grad = {"x": x.detach().numpy(), "grad.out": np.ones(204)}
    result = interpreter.run_graph(program.backward, given_grad)["grad.x"]
    np.testing.assert_allclose(np.broadcast_to(result, 204), grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SURROGATES)
def test_capabilities_dtypes_and_values(name):
    cls, surrogate = load("surrogate", name), create("surrogate", name)
    assert surrogate == cls()
    assert len({surrogate, cls()}) == 1
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.linspace(-1, 1, 6, dtype=dtype, requires_grad=True)
        out = surrogate(x)
        out.sum().backward()
        assert out.dtype == x.grad.dtype == dtype
    edge = surrogate(torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan]))
    if cls.capabilities.heaviside:
        assert edge.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    if cls.capabilities.nonzero:
        near = torch.tensor([-0.05, 0.0, 0.05], requires_grad=True)
        assert (torch.autograd.grad(surrogate(near).sum(), near)[0] != 0).all()


def test_poisson_pass_fires_with_the_probability_it_is_given():
    torch.manual_seed(0)
    surrogate = create("surrogate", "poisson_pass")
    p = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], requires_grad=True)
    spikes = surrogate(p.expand(20000, 5))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rate = spikes.mean(0)
    assert rate[0] == 0
    assert rate[4] == 1
    assert (rate - p).abs().max() < 4 * 0.5 / math.sqrt(20000)
    spikes.sum().backward()
    assert p.grad.tolist() == [20000.0] * 5
    torch.manual_seed(7)
    first = surrogate(p)
    torch.manual_seed(7)
    assert torch.equal(surrogate(p), first)
    with pytest.raises(DynamicsError, match="random numbers"):
        trace("One", lambda x, state, params: (spike(x, surrogate), {}), (), {})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("nonzero_sign_log_abs", {"alpha": 0.0}),
        ("piecewise_leaky_relu", {"w": 0.0}),
        ("squarewave_fourier_series", {"num_terms": 0}),
        ("s2nn", {"beta": math.inf}),
        ("q_pseudo_spike", {"alpha": 1.0}),
        ("leaky_k_relu", {"leak": -0.1}),
        ("fake_numerical_gradient", {"alpha": -1.0}),
        ("log_tailed_relu", {"leak": math.nan}),
        ("dspike", {"alpha": 0.0}),
        ("multi_level_spike_count", {"max_spike_count": 0}),
        ("multi_level_spike_count", {"grad_window": (1.0, 0.0)}),
        ("multi_level_spike_count", {"grad_window": (1.0,)}),
    ],
)
def test_options_out_of_range(name, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        create("surrogate", name, **wrong)
