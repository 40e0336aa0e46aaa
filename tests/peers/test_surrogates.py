"""Every surrogate of the core against spikingjelly's of the same name; three against snntorch, one against norse."""

import pytest
import torch

from spikecore import nn
from spikecore.registry import components, create
from tests.peers.compare import require

theirs = require("spikingjelly.activation_based.surrogate")
snntorch = require("snntorch.surrogate")
norse = require("norse.torch.functional.threshold")

NAMES = {
    "atan": "ATan",
    "sigmoid": "Sigmoid",
    "piecewise_quadratic": "PiecewiseQuadratic",
    "piecewise_exponential": "PiecewiseExp",
    "erf": "Erf",
    "rectangular": "Rect",
    "soft_sign": "SoftSign",
    "superspike": "SuperSpike",
}
U = torch.linspace(-3, 3, 1001, dtype=torch.float64)


def forward_and_backward(surrogate, u):
    u = u.clone().requires_grad_()
    out = surrogate(u)
    (gradient,) = torch.autograd.grad(out.sum(), u)
    return out.detach(), gradient


def test_every_surrogate_of_the_core_has_a_counterpart():
    assert {entry.name for entry in components("surrogate") if entry.plugin.id == "core"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.3, 7.0])
def test_forward_and_backward_of_spikingjelly(name, alpha):
    # Away from the corners at |u| = 1/alpha and 1/(2 alpha), where one bit decides.
    corners = torch.tensor([0.5 / alpha, 1 / alpha])
    u = U[((U.abs()[:, None] - corners).abs() > 1e-9).all(1)]
    out, gradient = forward_and_backward(create("surrogate", name, alpha=alpha), u)
    their_out, their_gradient = forward_and_backward(getattr(theirs, NAMES[name])(alpha=alpha), u)
    assert torch.equal(out, their_out)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-9, atol=1e-12)
    assert len(gradient) > 990


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"superspike"}))
def test_the_smooth_forward_of_spikingjelly(name):
    out, gradient = forward_and_backward(create("surrogate", name, alpha=1.7, spiking=False), U)
    their_out, their_gradient = forward_and_backward(getattr(theirs, NAMES[name])(alpha=1.7, spiking=False), U)
    torch.testing.assert_close(out, their_out, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"superspike"}))
def test_the_gradient_of_a_learnable_slope(name):
    """No library here trains a slope; autograd through the primitive of spikingjelly gives its derivative."""
    corners = torch.tensor([0.5 / 1.7, 1 / 1.7])
    u = U[((U.abs()[:, None] - corners).abs() > 1e-9).all(1)]
    weights = torch.linspace(-1, 2, len(u), dtype=torch.float64)
    alpha = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    (getattr(theirs, NAMES[name]).primitive_function(u, alpha) * weights).sum().backward()
    surrogate = create("surrogate", name, alpha=1.7)
    neuron = nn.IF(surrogate=surrogate, v_threshold=0.0, learnable=("surrogate.alpha",), backend="torch").double()
    spikes = neuron(u[None])
    assert torch.equal(spikes[0], (u >= 0).double())
    (spikes[0] * weights).sum().backward()
    torch.testing.assert_close(neuron.param_surrogate_alpha.grad, alpha.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_spikingjelly(name):
    assert create("surrogate", name).config.alpha == getattr(theirs, NAMES[name])().alpha


def test_snntorch():
    u = U[U != 0].float()  # theirs gives float32, and does not fire at 0
    for own, other in (
        (nn.ATan(alpha=3.0), snntorch.atan(alpha=3.0)),
        (nn.Sigmoid(alpha=5.0), snntorch.sigmoid(slope=5.0)),
        (nn.SuperSpike(alpha=1.0), snntorch.fast_sigmoid(slope=1.0)),
    ):
        for ours, their in zip(forward_and_backward(own, u), forward_and_backward(other, u), strict=True):
            torch.testing.assert_close(ours, their)


def test_norse():
    u = U[U != 0].float()
    ours = forward_and_backward(nn.SuperSpike(alpha=1.0), u)
    their = forward_and_backward(lambda x: norse.threshold(x, "super", 1.0), u)
    torch.testing.assert_close(ours, their)
