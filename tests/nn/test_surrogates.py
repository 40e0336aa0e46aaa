"""Surrogates against formulas written anew with `math`, and against the derivative of their own primitive."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikecore.errors import OptionError
from spikecore.nn import ATan, Erf, PiecewiseExp, PiecewiseQuadratic, Rect, Sigmoid, SoftSign, SuperSpike
from spikecore.registry import components, create

# class → default alpha, (g'(u), g(u)) as the papers write them
FORMULAS = {
    ATan: (
        2.0,
        lambda a, u: a / (2 * (1 + (math.pi * a * u / 2) ** 2)),
        lambda a, u: math.atan(math.pi * a * u / 2) / math.pi + 0.5,
    ),
    Sigmoid: (4.0, lambda a, u: a / (2 + 2 * math.cosh(a * u)), lambda a, u: (1 + math.tanh(a * u / 2)) / 2),
    PiecewiseQuadratic: (
        1.0,
        lambda a, u: max(0.0, a - a * a * abs(u)),
        lambda a, u: 0.0 if a * u < -1 else 1.0 if a * u > 1 else a * u * (1 - a * abs(u) / 2) + 0.5,
    ),
    PiecewiseExp: (
        1.0,
        lambda a, u: a * math.exp(-a * abs(u)) / 2,
        lambda a, u: math.exp(a * u) / 2 if u < 0 else 1 - math.exp(-a * u) / 2,
    ),
    Erf: (
        2.0,
        lambda a, u: a * math.exp(-((a * u) ** 2)) / math.sqrt(math.pi),
        lambda a, u: math.erfc(-a * u) / 2,
    ),
    Rect: (1.0, lambda a, u: a * (abs(2 * a * u) < 1), lambda a, u: min(1.0, max(0.0, a * u + 0.5))),
    SoftSign: (
        2.0,
        lambda a, u: a / (2 * (1 + abs(a * u)) ** 2),
        lambda a, u: (1 + a * u / (1 + abs(a * u))) / 2,
    ),
    SuperSpike: (1.0, lambda a, u: a / (1 + abs(u)) ** 2, None),
}
WITH_PRIMITIVE = [cls for cls, (_, _, primitive) in FORMULAS.items() if primitive]
steepness = st.floats(0.1, 8.0)
inputs = st.floats(-6.0, 6.0)


def gradient_and_value(surrogate, u):
    x = torch.tensor(u, dtype=torch.float64, requires_grad=True)
    out = surrogate(x)
    out.backward()
    return x.grad.item(), out.item()


def test_every_registered_surrogate_is_here():
    ours = {entry.target.split(":")[1] for entry in components("surrogate") if entry.plugin.id == "core"}
    assert ours == {cls.__name__ for cls in FORMULAS}


@pytest.mark.parametrize("cls", FORMULAS)
@given(alpha=steepness, u=inputs)
def test_forward_is_the_step_and_backward_the_formula(cls, alpha, u):
    gradient, out = gradient_and_value(cls(alpha=alpha), u)
    assert out == (1.0 if u >= 0 else 0.0)
    assert gradient == pytest.approx(FORMULAS[cls][1](alpha, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("cls", WITH_PRIMITIVE)
@given(alpha=steepness, u=inputs)
def test_the_smooth_net_runs_the_primitive(cls, alpha, u):
    gradient, out = gradient_and_value(cls(alpha=alpha, spiking=False), u)
    assert out == pytest.approx(FORMULAS[cls][2](alpha, u), rel=1e-9, abs=1e-12)
    assert gradient == pytest.approx(FORMULAS[cls][1](alpha, u), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("cls", WITH_PRIMITIVE)
def test_the_primitive_has_this_derivative(cls):
    u = torch.tensor([-3.0, -1.3, -0.61, -0.2, 0.07, 0.33, 0.9, 2.4], dtype=torch.float64)
    surrogate = cls(alpha=1.1, spiking=False)
    step = 1e-6
    slope = (surrogate(u + step) - surrogate(u - step)) / (2 * step)
    torch.testing.assert_close(cls.derivative(u, surrogate.config), slope, rtol=1e-6, atol=1e-8)
    ends = surrogate(torch.tensor([-1e9, 1e9], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cls", FORMULAS)
def test_defaults_edges_and_dtypes(cls):
    surrogate = create(
        "surrogate", next(e.name for e in components("surrogate") if e.target.endswith(":" + cls.__name__))
    )
    assert surrogate == cls()
    assert surrogate.config.alpha == FORMULAS[cls][0]
    edge = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf])
    assert surrogate(edge).tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.linspace(-1, 1, 5, dtype=dtype, requires_grad=True)
        out = surrogate(x)
        out.sum().backward()
        assert out.dtype == x.grad.dtype == dtype
    with pytest.raises(OptionError, match="alpha"):
        cls(alpha=0.0)


def test_only_what_has_a_primitive_can_be_smooth():
    with pytest.raises(OptionError, match="no primitive"):
        SuperSpike(spiking=False)


def test_surrogates_are_values():
    assert ATan() == ATan(alpha=2.0) != ATan(alpha=3.0)
    assert len({ATan(), ATan(), Sigmoid()}) == 2
    with pytest.raises(AttributeError, match="immutable"):
        ATan().config = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        ATan().config.alpha = 3.0


def test_the_box_is_open_at_its_ends():
    u = torch.tensor([-0.25, -0.249, 0.249, 0.25], requires_grad=True)
    create("surrogate", "rectangular", alpha=2.0)(u).sum().backward()
    assert u.grad.tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_derivative_of_half_precision_is_computed_in_float32(dtype):
    u = torch.tensor([2.0], dtype=dtype, requires_grad=True)
    create("surrogate", "atan", alpha=200.0)(u).sum().backward()  # (pi/2 alpha u)^2 is above 65504
    expected = 100 / (1 + (math.pi / 2 * 400) ** 2)
    torch.testing.assert_close(u.grad, torch.tensor([expected], dtype=dtype))
