"""Learnable slopes of surrogates: the gradient is that of the primitive, on every backend and at every order."""

import copy
import math
import pickle
from dataclasses import dataclass

import pytest
import torch

from spikecore.backends.reference import TorchBackend
from spikecore.dynamics import LearnableSurrogate, spike
from spikecore.errors import DynamicsError, OptionError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import (
    LIF,
    ATan,
    Erf,
    Neuron,
    ParametricLIF,
    PiecewiseExp,
    PiecewiseQuadratic,
    Rect,
    Sigmoid,
    SoftSign,
    SuperSpike,
    Surrogate,
    option_values,
)
from spikecore.registry import Blocking, Registry, use
from tests.conformance.planting import caught
from tests.conformance.toys import ToyBackend

LEARN = ("surrogate.alpha",)


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


both = pytest.mark.parametrize("backend", ["torch", "graph"])

# ∂g/∂α as calculus gives it.
SLOPES = {
    ATan: lambda a, u: u / (2 * (1 + (math.pi * a * u / 2) ** 2)),
    Sigmoid: lambda a, u: u / (2 + 2 * math.cosh(a * u)),
    PiecewiseQuadratic: lambda a, u: u - a * u * abs(u) if abs(a * u) < 1 else 0.0,
    PiecewiseExp: lambda a, u: u * math.exp(-a * abs(u)) / 2,
    Erf: lambda a, u: u * math.exp(-((a * u) ** 2)) / math.sqrt(math.pi),
    Rect: lambda a, u: u if abs(2 * a * u) < 1 else 0.0,
    SoftSign: lambda a, u: u / (2 * (1 + abs(a * u)) ** 2),
}
every = pytest.mark.parametrize("surrogate", SLOPES)


def currents(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * 1.5 + 0.5


@every
@pytest.mark.parametrize("spiking", [True, False])
def test_the_gradient_of_a_slope(surrogate, spiking):
    for number in (-2.3, -0.4, -0.1, 0.0, 0.25, 0.6, 3.0):
        learnable = LearnableSurrogate(surrogate(alpha=1.3, spiking=spiking), ["alpha"])
        alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        u = torch.tensor([number], dtype=torch.float64, requires_grad=True)
        out = spike(u, learnable.with_values([alpha]))
        if spiking:
            assert out.item() == (number >= 0)
        (out * 1.7).sum().backward()
        assert alpha.grad.item() == pytest.approx(1.7 * SLOPES[surrogate](1.3, number), abs=1e-12)
        derivative = surrogate.derivative(u.detach(), surrogate(alpha=1.3).config)
        assert u.grad.item() == pytest.approx(1.7 * float(derivative), rel=1e-12)


@every
@both
def test_backends_agree_and_spikes_do_not_depend_on_learning(surrogate, backend):
    x = currents(7, 3, 4) * 1.5
    weights = currents(7, 3, 4, seed=1)
    outcomes = []
    for kind, learnable in ((backend, (*LEARN, "tau")), ("torch", ("tau",))):
        neuron = LIF(
            tau=1.6, surrogate=surrogate(alpha=0.8), learnable=learnable, record=("v",), backend=kind, v_reset=-0.2
        ).double()
        given = x.clone().requires_grad_()
        out = neuron(given)
        (out * weights + neuron.recorded["v"] * weights.flip(0)).sum().backward()
        outcomes.append((neuron, out.detach(), given.grad))
    (learning, out, grad), (frozen, expected, expected_grad) = outcomes
    assert 0.1 < expected.mean() < 0.6
    assert torch.equal(out, expected)
    torch.testing.assert_close(grad, expected_grad)
    torch.testing.assert_close(learning.param_tau.grad, frozen.param_tau.grad)
    reference = LIF(
        tau=1.6, surrogate=surrogate(alpha=0.8), learnable=LEARN, record=("v",), backend="torch", v_reset=-0.2
    ).double()
    (reference(x) * weights + reference.recorded["v"] * weights.flip(0)).sum().backward()
    assert abs(reference.param_surrogate_alpha.grad) > 1e-3
    torch.testing.assert_close(learning.param_surrogate_alpha.grad, reference.param_surrogate_alpha.grad)


def smooth(backend, surrogate, **options):
    neuron = LIF(tau=1.7, surrogate=surrogate(spiking=False), learnable=LEARN, backend=backend, **options).double()

    def call(x, alpha):
        return torch.func.functional_call(neuron, {"param_surrogate_alpha": alpha}, (x,))

    return call


@every
@both
def test_gradients_are_those_of_finite_differences(surrogate, backend):
    x = currents(4, 2, 3).requires_grad_()
    alpha = torch.tensor(0.63, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(smooth(backend, surrogate, reset="soft"), (x, alpha))


@pytest.mark.parametrize("surrogate", [ATan, Sigmoid, Erf])
def test_second_and_forward_derivatives(surrogate):
    x = currents(3, 1, 2).requires_grad_()
    alpha = torch.tensor(0.63, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(smooth("torch", surrogate), (x, alpha))
    assert torch.autograd.gradcheck(smooth("torch", surrogate), (x, alpha), check_forward_ad=True)


def test_vmap_over_slopes_is_a_loop_over_slopes():
    x = currents(5, 2, 3)
    neuron = LIF(learnable=LEARN, backend="torch").double()

    def loss(alpha):
        out = torch.func.functional_call(neuron, {"param_surrogate_alpha": alpha}, (x,))
        return (out * weights).sum()

    weights = currents(5, 2, 3, seed=2)
    alphas = torch.tensor([0.5, 2.0, 3.5], dtype=torch.float64)
    grads = torch.vmap(torch.func.grad(loss))(alphas)
    expected = torch.stack([torch.func.grad(loss)(alpha) for alpha in alphas])
    assert expected.unique().numel() == 3
    torch.testing.assert_close(grads, expected)


@both
def test_half_precision(backend):
    x = currents(6, 2, 3)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        neuron = LIF(learnable=LEARN, backend=backend, surrogate=Sigmoid(alpha=2.0))
        out = neuron((x.bfloat16()).to(dtype))
        assert out.dtype == dtype
        assert out.sum() > 0
        out.float().mul(torch.arange(out.numel()).reshape(out.shape)).sum().backward()
        grads.append(neuron.param_surrogate_alpha.grad)
    assert grads[1].dtype == torch.float32
    torch.testing.assert_close(grads[0], grads[1], rtol=0.02, atol=0)


@both
def test_a_slope_that_leaves_its_range_is_bounded(backend):
    neuron = LIF(learnable=LEARN, backend=backend, surrogate=Sigmoid(alpha=2.0))
    with torch.no_grad():
        neuron.param_surrogate_alpha.fill_(-1.0)
    with pytest.warns(UserWarning, match=r"'surrogate\.alpha' of LIF is -1 now, but it must be > 0 and < inf"):
        neuron(currents(4, 2).float()).sum().backward()
    assert neuron.param_surrogate_alpha.grad != 0


def test_it_is_trained_beside_parameters_of_the_neuron():
    neuron = ParametricLIF(surrogate=ATan(alpha=3.0), learnable=("v_threshold", *LEARN))
    names = {name for name, _ in neuron.named_parameters()}
    assert names == {"param_w", "param_v_threshold", "param_surrogate_alpha"}
    optimizer = torch.optim.SGD(neuron.parameters(), lr=0.1)
    neuron(currents(6, 4).float()).sum().backward()
    optimizer.step()
    values = option_values(neuron)
    assert values["surrogate"].config.alpha == pytest.approx(neuron.param_surrogate_alpha.item())
    assert values["surrogate"].config.alpha != 3.0
    assert neuron.config.surrogate == ATan(alpha=3.0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda neuron: pickle.loads(pickle.dumps(neuron))])
def test_copies(copied):
    neuron = LIF(surrogate=ATan(alpha=3.0), learnable=LEARN)
    neuron(currents(3, 2).float())
    other = copied(neuron)
    with torch.no_grad():
        other.param_surrogate_alpha.fill_(1.0)
    grads = []
    for twin in (neuron, other):
        twin(currents(3, 2).float()).sum().backward()
        grads.append(twin.param_surrogate_alpha.grad.item())
    assert neuron.param_surrogate_alpha == 3.0
    assert grads[0] != grads[1]


class Custom(Surrogate):
    """A surrogate whose primitive the neuron language does not have."""

    @staticmethod
    def derivative(u, params):
        return params.alpha / (1 + u * u)

    @staticmethod
    def primitive(u, params):
        return torch.relu(u) * params.alpha


class Clash(LIF):
    """Its option has the name of a parameter."""

    @dataclass(frozen=True)
    class Config(LIF.Config):
        surrogate_alpha: float = 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LIF(surrogate=SuperSpike(), learnable=LEARN), OptionError, "SuperSpike declares no primitive"),
        (lambda: LIF(learnable=("surrogate.beta",)), OptionError, r"'surrogate\.beta'.*it may name.*surrogate\.alpha"),
        (lambda: LIF(learnable=("surrogate.spiking",)), OptionError, r"'surrogate\.spiking'"),
        (lambda: LIF(learnable=("surrogate",)), OptionError, "'surrogate'"),
        (lambda: LIF(surrogate=Custom(), learnable=LEARN), DynamicsError, "relu"),
        (lambda: Clash(learnable=LEARN), DynamicsError, "'surrogate_alpha'.*rename the option"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_neuron_that_reads_the_slope_itself():
    class Scaled(Neuron):
        """Its step reads options of the surrogate."""

        state = {"v": 0.0}  # noqa: RUF012

        @staticmethod
        def step(x, state, params):
            u = state.v + x * params.surrogate.config.alpha - params.v_threshold
            return params.surrogate(u), {"v": u}

    x = currents(4, 3)
    grads = []
    for backend in ("torch", "graph"):
        neuron = Scaled(surrogate=ATan(alpha=1.5), learnable=LEARN, backend=backend).double()
        out = neuron(x)
        out.sum().backward()
        grads.append(neuron.param_surrogate_alpha.grad)
    assert out.sum() > 0
    torch.testing.assert_close(*grads)


class Deaf(ToyBackend):
    """No gradient for slopes."""

    def run_bwd(self, key, *args):
        grad_x, grad_states, grad_params = super().run_bwd(key, *args)
        names = [param.name for param in self.program(key).params]
        pairs = zip(names, grad_params, strict=True)
        return grad_x, grad_states, [grad * (name != "surrogate_alpha") for name, grad in pairs]


def test_the_suite_of_backends_catches_a_slope_without_gradient():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "toy", Deaf)
    with use(registry):
        assert "param_surrogate_alpha" in caught("backend", "test_learnable_slopes_equal_the_reference")
