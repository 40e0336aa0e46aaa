"""The hard reset as one node of autograd's graph, against its equation operation by operation."""

import pytest
import torch

from spikecore.nn import LIF, ATan, PiecewiseExp, Sigmoid
from spikecore.nn.hard_reset import LARGEST, hard_reset, runs_as_one

GENERATOR = torch.Generator().manual_seed(0)
S = torch.rand(40, generator=GENERATOR, dtype=torch.float64)
H = torch.randn(40, generator=GENERATOR, dtype=torch.float64) * 2


def by_hand(s, h, v_reset):
    return (1 - s) * torch.clamp(h, max=LARGEST) + s * v_reset


@pytest.mark.parametrize("v_reset", [0.0, -0.3, 2])
def test_values_and_derivatives_of_both_orders(v_reset):
    s, h = S.clone().requires_grad_(), H.clone().requires_grad_()
    assert torch.equal(hard_reset(s, h, v_reset), by_hand(s, h, v_reset))
    assert torch.autograd.gradcheck(lambda s, h: hard_reset(s, h, v_reset), (s, h))
    assert torch.autograd.gradgradcheck(lambda s, h: hard_reset(s, h, v_reset), (s, h))


@pytest.mark.parametrize("wanted", ["s", "h"])
def test_one_of_both_may_be_constant(wanted):
    given = {"s": S.clone(), "h": H.clone()}
    given[wanted].requires_grad_()
    weights = torch.randn(40, generator=GENERATOR, dtype=torch.float64)
    grads = [
        torch.autograd.grad((function(given["s"], given["h"], -0.3) * weights).sum(), given[wanted])[0]
        for function in (hard_reset, by_hand)
    ]
    torch.testing.assert_close(*grads)


def test_infinity_nan_and_signed_zeros():
    h = torch.tensor([torch.inf, torch.inf, -torch.inf, torch.nan, -0.0, 3e38, 1e39], dtype=torch.float64)
    s = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0], dtype=torch.float64).requires_grad_()
    h.requires_grad_()
    v = hard_reset(s, h, 0.25)
    assert v[0] == 0.25
    assert v[1] == LARGEST
    assert v[2] == -torch.inf
    assert v[3].isnan()
    assert torch.equal(torch.signbit(v), torch.signbit(by_hand(s, h, 0.25)))
    (v * torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])).sum().backward()
    assert h.grad.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert s.grad[0] == 0.25 - LARGEST


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", [ATan(), Sigmoid(spiking=False), PiecewiseExp()])
def test_a_neuron_computes_what_the_equation_says(monkeypatch, surrogate, detach_reset):
    x = torch.rand(9, 3, 4, generator=GENERATOR, dtype=torch.float64) * 4
    x[2, 0, 0] = torch.inf if surrogate.config.spiking else 5.0
    weights = torch.randn(x.shape, generator=GENERATOR, dtype=torch.float64)
    outcomes = []
    for usable in (True, False):
        calls = []

        def watched(*args, usable=usable, calls=calls):
            calls.append(runs_as_one(*args))
            return calls[-1] and usable

        monkeypatch.setattr("spikecore.nn.neurons.equations.runs_as_one", watched)
        neuron = LIF(v_reset=-0.2, surrogate=surrogate, detach_reset=detach_reset, backend="torch", record=("v",))
        y = x.clone().requires_grad_()
        out = neuron.double()(y)
        ((out + neuron.recorded["v"]) * weights).sum().backward()
        assert calls == [not detach_reset] * 9  # detached: the limit masks the gradient of a NaN
        outcomes.append((out.detach(), neuron.recorded["v"].detach(), y.grad))
    assert 0.1 < outcomes[0][0].mean() < 0.9
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    torch.testing.assert_close(outcomes[0][2], outcomes[1][2], equal_nan=True)


def test_transforms_and_tangents_see_the_operations():
    h = torch.ones(2, requires_grad=True)
    seen = []

    def look(h):
        seen.append(runs_as_one(h, h, 0.0))
        return h.sum()

    torch.func.grad(look)(h.detach())
    with torch.autograd.forward_ad.dual_level():
        look(h)
    with torch.no_grad():
        look(h)
    assert seen == [False] * 3
    look(h)
    assert seen[-1]
    assert not runs_as_one(h.detach(), h, 0.0)
    assert not runs_as_one(h, h, torch.tensor(0.5))  # learned: its gradient is autograd's
    assert torch.finfo(torch.float32).max == LARGEST
