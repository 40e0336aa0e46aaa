"""Options with one value for each neuron of a step, and options that come from numpy or torch."""

import dataclasses
from typing import Annotated

import numpy as np
import pytest
import torch

from spikecore import create
from spikecore.backends.reference import TorchBackend
from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.options import as_data, check_options
from spikecore.nn import LIF, ATan, ConvBNNeuron, CubaLIF, ParametricLIF, get_state, option_values, streaming
from spikecore.registry import Blocking, Registry, use


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3, affine_neuron=True)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


both = pytest.mark.parametrize("backend", ["torch", "graph"])
GENERATOR = torch.Generator().manual_seed(0)
STEP = (3, 4, 5)
TAU = 1.2 + torch.rand(STEP, generator=GENERATOR, dtype=torch.float64) * 3
X = torch.rand(6, 2, *STEP, generator=GENERATOR, dtype=torch.float64) * 4
WEIGHTS = torch.randn(X.shape, generator=GENERATOR, dtype=torch.float64)


def channels_last(x):
    return x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def by_hand(tau, x):
    """LIF with a hard reset, as its equation says; theta by channel, v starts at v_reset by neuron."""
    theta = torch.tensor([0.5, 1.0, 1.2], dtype=torch.float64).reshape(3, 1, 1)
    v_reset = tau / -10
    v, spikes, potentials = v_reset.expand(x.shape[1:]), [], []
    for current in x:
        h = v + (current - (v - v_reset)) / tau
        s = (h >= theta).double()
        v = (1 - s) * h + s * v_reset
        spikes.append(s)
        potentials.append(v)
    return torch.stack(spikes), torch.stack(potentials)


@both
@pytest.mark.parametrize("arrange", [torch.Tensor.contiguous, channels_last])
def test_values_are_those_of_the_equation(backend, arrange):
    neuron = LIF(tau=TAU, v_reset=TAU / -10, v_threshold=[0.5, 1.0, 1.2], record=("v", "h"), backend=backend).double()
    x = arrange(X)
    spikes = neuron(x)
    expected, potentials = by_hand(TAU, X)
    assert 0.1 < expected.mean() < 0.9
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(neuron.recorded["v"], potentials)
    assert torch.equal(neuron.recorded["h"] >= torch.tensor([0.5, 1.0, 1.2]).reshape(3, 1, 1), expected.bool())
    assert spikes.stride() == x.stride()


@both
def test_gradients_are_those_of_the_flat_neuron(backend):
    """Each neuron as a channel of [B, N] is the same net, with per-channel values."""
    names = ("tau", "v_threshold")
    neuron = LIF(tau=TAU, v_threshold=0.9, learnable=names, backend=backend).double()
    flat = LIF(tau=TAU.flatten(), v_threshold=0.9, learnable=names, backend="torch").double()
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    (neuron(x) * WEIGHTS).sum().backward()
    (flat(y.flatten(2)).unflatten(2, STEP) * WEIGHTS).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert neuron.param_tau.shape == STEP
    torch.testing.assert_close(neuron.param_tau.grad.flatten(), flat.param_tau.grad)
    torch.testing.assert_close(neuron.param_v_threshold.grad, flat.param_v_threshold.grad)
    assert (flat.param_tau.grad != 0).all()


@both
def test_streaming_and_single_steps_keep_states_of_the_shape_of_a_step(backend):
    neuron = CubaLIF(c_decay=1 / TAU, backend=backend).double()
    whole = neuron(X)
    assert whole.any()
    with streaming(neuron):
        parts = torch.cat([neuron(X[:2]), neuron(X[2:])])
        (state,) = get_state(neuron).values()
        shapes = {name: value.shape for name, value in state.items()}
    assert torch.equal(parts, whole)
    assert shapes == dict.fromkeys(shapes, (2, *STEP))
    assert len(shapes) == 2
    single = CubaLIF(c_decay=1 / TAU, backend=backend, step_mode="single").double()
    assert torch.equal(torch.stack([single(step) for step in X]), whole)


@both
def test_two_axes_and_an_option_that_is_always_trained(backend):
    start = 1.5 + torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    neuron = ParametricLIF(init_tau=start, backend=backend)
    torch.testing.assert_close(torch.sigmoid(neuron.param_w), 1 / start)
    out = neuron(X[..., 0].float())
    assert out.any()
    assert torch.equal(out, LIF(tau=start, backend="torch")(X[..., 0].float()))


def test_configuration_and_values_of_now():
    neuron = LIF(tau=TAU.numpy(), learnable=("tau",))
    assert neuron.config.tau[2][3] == tuple(TAU[2, 3].tolist())
    assert torch.equal(neuron.double().param_tau, TAU)  # the digits of the configuration
    data = as_data(neuron.config)
    assert check_options(LIF, data) == (neuron.config, [])
    assert option_values(neuron)["tau"] == neuron.config.tau
    with torch.no_grad():
        neuron.param_tau[1, 2, 3] = 0.25
    values = option_values(neuron)["tau"]
    assert (values[1][2][3], values[1][2][4]) == (1.0, neuron.config.tau[1][2][4])
    other = LIF(tau=torch.full(STEP, 2.0), learnable=("tau",)).double()
    other.load_state_dict(neuron.state_dict())
    assert torch.equal(other.param_tau, neuron.param_tau)


def test_a_block_runs_its_parts_one_after_the_other():
    """The fused form has channels, not neurons, as its parameters."""
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
    tau = TAU.float()
    x = torch.randn(5, 2, 2, 4, 5) * 2
    outs = []
    for backend in ("graph", "torch"):
        block = ConvBNNeuron(conv, norm, LIF(tau=tau, backend=backend, v_threshold=0.3)).eval()
        outs.append(block(x))
        choice = block.choose(torch.device("cpu"), torch.float32)
        assert choice.backend == "torch"
    assert outs[0].any()
    assert torch.equal(*outs)
    block = ConvBNNeuron(conv, norm, LIF(tau=tau, backend="graph"))
    assert "a value for each neuron" in block.choose(torch.device("cpu"), torch.float32).reason
    block = ConvBNNeuron(conv, norm, LIF(tau=[2.0, 3.0, 4.0], backend="graph"))
    assert block.choose(torch.device("cpu"), torch.float32).backend == "graph"


@both
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 5, 4), (2, 60), (2, 1, 4, 5)])
def test_other_shapes_are_refused(backend, shape):
    with pytest.raises(ShapeError, match=r"LIF\.tau has one value for each neuron of a step \[B, 3, 4, 5\]"):
        LIF(tau=TAU, backend=backend).double()(torch.ones(4, *shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("tau", "message"),
    [
        ([[2.0, 3.0], [4.0]], "rows of one length"),
        ([[2.0], []], "a number for each channel, got none"),
        ([[2.0, 0.5]], "must be >= 1"),
        ([[2.0, "3"]], "must be a number"),
        (np.array([[2.0, np.nan]]), "must be >= 1"),
    ],
)
def test_wrong_values_are_refused(tau, message):
    with pytest.raises(OptionError, match=message):
        LIF(tau=tau)


# Numbers of numpy and torch, for every component.


class Part(Configurable):
    """A component of another kind."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        rate: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.5
        size: int = 2
        is_on: bool = False
        shares: tuple[float, ...] = ()


@pytest.mark.parametrize("number", [np.float64, np.float32, torch.tensor])
def test_numbers_become_plain_ones(number):
    config = make_config(Part, {"rate": number(0.25), "shares": [number(0.5), 1.0]})
    assert config == Part.Config(rate=0.25, shares=(0.5, 1.0))
    assert type(config.rate) is float
    assert type(config.shares[0]) is float
    assert ATan(alpha=number(3.0)).config == ATan(alpha=3.0).config


def test_integers_truth_values_and_arrays_become_plain_ones():
    config = make_config(Part, {"size": np.int64(7), "is_on": np.bool_(True), "shares": np.array([0.5, 0.25])})
    assert config == Part.Config(size=7, is_on=True, shares=(0.5, 0.25))
    assert (type(config.size), type(config.is_on), type(config.shares[0])) == (int, bool, float)
    assert create("neuron", "lif", tau=np.int32(3)).config == LIF(tau=3).config


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("rate", np.float32(1.5), "option 'rate' must be >= 0 and < 1, got 1.5"),
        ("rate", np.array([0.1, 0.2]), r"option 'rate' must be a number, got \[0.1, 0.2\]"),
        ("rate", np.array(["a"]), "option 'rate' must be a number"),
        ("size", np.float64(3.0), "option 'size' must be a whole number, got 3.0"),
        ("size", np.bool_(True), "option 'size' must be a whole number, got True"),
        ("shares", [torch.tensor(0.5, requires_grad=True)], "option 'shares' is a tensor that is trained"),
        (
            "rate",
            torch.nn.Parameter(torch.tensor(0.5)),
            "'rate' is a tensor that is trained.*give it as a number",
        ),
    ],
)
def test_they_are_checked_as_others_are(option, value, message):
    with pytest.raises(OptionError, match=message):
        make_config(Part, {option: value})
