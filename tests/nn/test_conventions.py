"""Options that carry the conventions of other libraries."""

import math

import pytest
import torch

from spikecore import nn
from spikecore.errors import OptionError
from spikecore.nn.option_values import option_values
from spikecore.testing.probes import GraphBackend, registered_backend

SPIKING = {"if": nn.IF, "lif": nn.LIF, "plif": nn.ParametricLIF, "cuba_lif": nn.CubaLIF}


@pytest.fixture(params=["torch", "graph"])
def backend(request):
    """The reference, and the traced program interpreted."""
    if request.param == "torch":
        yield "torch"
        return
    with registered_backend(GraphBackend) as name:
        yield name


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 0.7


@pytest.mark.parametrize(("fires", "times"), [("at", [1, 3, 5, 7]), ("above", [2, 5])])
def test_fires_at_or_above_the_threshold(backend, fires, times):
    spikes = nn.IF(fires=fires, backend=backend)(torch.full((8, 1), 0.5))
    assert spikes.flatten().nonzero().flatten().tolist() == times


def test_strict_firing_stays_exact_with_a_soft_reset(backend):
    """A threshold moved by one rounding would drift; v stays 1 after many steps here."""
    neuron = nn.IF(fires="above", reset="soft", backend=backend, record=("v",))
    spikes = neuron(torch.full((2000, 1), 0.5))
    assert spikes.sum() == 999
    assert set(neuron.recorded["v"].flatten().tolist()) == {0.5, 1.0}


def test_nan_does_not_fire_strictly(backend):
    assert nn.IF(fires="above", backend=backend)(torch.tensor([[math.nan]])).item() == 0


def test_strict_firing_has_the_same_gradient(backend):
    x = noise(6, 2, 3)
    gradients = []
    for fires in ("at", "above"):
        given = x.clone().requires_grad_()
        (nn.LIF(fires=fires, backend=backend)(given) * noise(6, 2, 3, seed=1)).sum().backward()
        gradients.append(given.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)  # no ties in the noise


def test_strict_firing_needs_a_threshold():
    class Counts(nn.ATan):
        capabilities = nn.ATan.capabilities.__class__(heaviside=False)

    with pytest.raises(OptionError, match=r"'fires' must be 'at' with Counts.*heaviside"):
        nn.LIF(fires="above", surrogate=Counts())


@pytest.mark.parametrize("decay_input", [True, False])
def test_the_leak_has_a_target_of_its_own(backend, decay_input):
    """Without spikes v follows the closed form towards v_leak, from v_init, whatever v_reset is."""
    tau, v_leak, v_init, current = 3.0, -0.4, 0.9, 0.2
    options = {"tau": tau, "v_leak": v_leak, "v_init": v_init, "v_reset": 0.1, "v_threshold": 50.0}
    neuron = nn.LIF(**options, decay_input=decay_input, record=("v",), backend=backend)
    neuron(torch.full((10, 1), current, dtype=torch.float64))
    target = v_leak + current * (1 if decay_input else tau)
    steps = torch.arange(1, 11, dtype=torch.float64)
    expected = target + (v_init - target) * (1 - 1 / tau) ** steps
    assert torch.allclose(neuron.recorded["v"].flatten(), expected, atol=1e-12)


def test_defaults_are_v_reset_also_where_it_is_trained(backend):
    x = noise(8, 4, 3)
    results = []
    for more in ({}, {"v_leak": [-0.2, 0.1, 0.3], "v_init": [-0.2, 0.1, 0.3]}):
        neuron = nn.LIF(v_reset=[-0.2, 0.1, 0.3], **more, record=("v",), backend=backend).double()
        results.append(neuron(x))
        assert 0.05 < results[-1].mean() < 0.95
    assert torch.equal(*results)
    neuron = nn.LIF(v_reset=[-0.2, 0.1, 0.3], learnable=("v_reset",), reset="soft", backend=backend, record=("v",))
    neuron = neuron.double()
    neuron(x)
    neuron.recorded["v"].sum().backward()
    assert neuron.param_v_reset.grad.abs().min() > 0  # by v_leak and v_init alone
    assert option_values(neuron)["v_leak"] == (-0.2, 0.1, 0.3)


def test_tau_of_one_keeps_nothing(backend):
    x = noise(6, 2, 3)
    neuron = nn.LIF(tau=1.0, v_leak=0.25, v_threshold=50.0, record=("v",), backend=backend)
    neuron(x)
    assert torch.allclose(neuron.recorded["v"], x + 0.25)
    with pytest.raises(OptionError, match="'tau' must be >= 1"):
        nn.LIF(tau=0.99)


@pytest.mark.parametrize("name", SPIKING)
@pytest.mark.parametrize("mode", ["multi", "single"])
def test_the_potential_before_the_reset(backend, name, mode):
    x = noise(12, 2, 3)
    neuron = SPIKING[name](reset="soft", record=("h", "v"), backend=backend, step_mode=mode)
    if mode == "multi":
        spikes, h, v = neuron(x), neuron.recorded["h"], neuron.recorded["v"]
    else:
        parts = [(neuron(step), neuron.recorded["h"][0], neuron.recorded["v"][0]) for step in x]
        spikes, h, v = (torch.stack(values) for values in zip(*parts, strict=True))
        assert set(nn.get_state(neuron)[""]) == set(neuron.state), "h is no state"
    assert 0.05 < spikes.mean() < 0.95
    threshold = neuron.config.v_threshold
    assert torch.equal(spikes, (h >= threshold).double())
    assert torch.allclose(v, h - spikes * threshold)


def test_the_potential_before_the_reset_has_a_gradient(backend):
    neuron = nn.LIF(tau=4.0, record=("h",), backend=backend)
    x = torch.full((1, 1, 1), 8.0, requires_grad=True)
    neuron(x)
    neuron.recorded["h"].sum().backward()
    assert x.grad.item() == 0.25


def test_the_potential_before_the_reset_inside_a_recurrent_container():
    neuron = nn.LIF(record=("h",))
    nn.LinearRecurrent(neuron, 6, 6)(torch.rand(10, 4, 6))
    assert neuron.recorded["h"].shape == (10, 4, 6)


@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize("name", SPIKING)
def test_forward_mode_derivatives(name, spiking):
    """Tangents go through a spike by the surrogate: they are the transpose of the gradients."""
    neuron = SPIKING[name](surrogate=nn.ATan(alpha=1.5, spiking=spiking), backend="torch").double()
    x, direction, weights = noise(5, 2, 3), noise(5, 2, 3, seed=1), noise(5, 2, 3, seed=2)
    for is_enabled in (True, False):
        with torch.set_grad_enabled(is_enabled):
            out, tangent = torch.func.jvp(neuron, (x,), (direction,))
        assert torch.equal(out, neuron(x))
        given = x.clone().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad((neuron(given) * weights).sum(), given)
        assert tangent.abs().max() > 0.1
        assert torch.allclose((tangent * weights).sum(), (gradient * direction).sum(), rtol=1e-10)
    with torch.autograd.forward_ad.dual_level():
        dual = neuron(torch.autograd.forward_ad.make_dual(x, direction))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent)


def test_jacobians_of_both_modes_agree():
    neuron = nn.LIF(backend="torch").double()
    x = noise(3, 1, 2)
    assert torch.allclose(torch.func.jacfwd(neuron)(x), torch.func.jacrev(neuron)(x))
