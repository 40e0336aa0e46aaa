"""Bad input: what was expected, what came, what to do. (State of another form and a second backward: test_state.py.)"""

import math
from dataclasses import dataclass

import numpy
import pytest
import torch
from torch import nn as torch_nn

from spikecore.backends.reference import TorchBackend
from spikecore.dynamics import spike
from spikecore.errors import DynamicsError, OptionError, ShapeError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import LI, LIF, ATan, CubaLIF, Model, Neuron, ParametricLIF, Sequential, Surrogate, TorchNeuron
from spikecore.registry import Blocking, Registry, components, create, load, use

NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "core"]
NEURONS = [name for name in NEURONS if load("neuron", name).state]  # relu: tests/nn/test_relu.py
BACKENDS = ["torch", "graph"]


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NEURONS)
class TestEveryNeuron:
    def test_a_rank_that_does_not_suit_the_step_mode(self, name, backend):
        neuron = create("neuron", name, backend=backend)
        with pytest.raises(ShapeError, match=r"takes \[T, B, \.\.\.\], got \(3,\): .*set_step_mode\(net, 'single'\)"):
            neuron(torch.ones(3))
        neuron = create("neuron", name, backend=backend, step_mode="single")
        with pytest.raises(ShapeError, match=r"takes \[B, \.\.\.\], got \(\): .*set_step_mode\(net, 'multi'\)"):
            neuron(torch.tensor(1.0))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
    def test_integers_and_dtypes_without_arithmetic(self, name, backend, dtype):
        with pytest.raises(TypeError, match=rf"takes floating-point input, got {dtype}: call \.float\(\)"):
            create("neuron", name, backend=backend)(torch.ones(3, 2).to(dtype))

    def test_sparse_input(self, name, backend):
        with pytest.raises(TypeError, match=r"takes dense input, got torch.sparse_coo: call \.to_dense\(\)"):
            create("neuron", name, backend=backend)(torch.ones(3, 2).to_sparse())

    def test_nan_stays_in_its_own_neuron_as_state_and_never_spikes(self, name, backend):
        neuron = create("neuron", name, backend=backend)
        neuron.record = tuple(neuron.state)
        x = torch.full((5, 2), 5.0)
        x[1, 0] = math.nan
        out = neuron(x)
        assert neuron.recorded["v"][1:, 0].isnan().all()
        assert neuron.recorded["v"][:, 1].isfinite().all()
        if neuron.capabilities.spiking:
            assert out[1:, 0].eq(0).all()
            assert out[:, 1].eq(1).all()

    def test_infinities_do_not_raise(self, name, backend):
        out = create("neuron", name, backend=backend)(torch.tensor([[math.inf], [-math.inf], [0.0]]))
        assert out.shape == (3, 1)

    def test_an_unknown_option(self, name, backend):
        with pytest.raises(OptionError, match=r"option 'tua' is unknown.*options: "):
            create("neuron", name, backend=backend, tua=2.0)


RANGES = {
    "tau": [LIF, LI, 0.5, -2.0, math.nan],
    "init_tau": [ParametricLIF, 1.0, 0.0, math.nan, math.inf],
    "c_decay": [CubaLIF, -0.1, 1.1, math.nan],
    "v_decay": [CubaLIF, -0.1, 1.1],
}


@pytest.mark.parametrize("option", RANGES)
def test_out_of_range(option):
    kinds = [entry for entry in RANGES[option] if isinstance(entry, type)]
    for make in kinds:
        for value in (entry for entry in RANGES[option] if not isinstance(entry, type)):
            with pytest.raises(OptionError, match=rf"'{option}' must be (>|>=|<) .*, got "):
                make(**{option: value})
            with pytest.raises(OptionError, match=rf"'{option}' must be"):
                make(**{option: [0.5 if "decay" in option else 2.0, value]})
        with pytest.raises(OptionError, match=rf"'{option}' must be a number, got '2'"):
            make(**{option: "2"})


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_that_do_not_broadcast(backend):
    with pytest.raises(ShapeError, match=r"LIF\.tau has one value for each of 4 channels.*\(2, 5\): axis 1 must"):
        LIF(tau=[2.0] * 4, backend=backend)(torch.ones(3, 2, 5))
    with pytest.raises(ShapeError, match=r"ParametricLIF\.w has one value for each of 4 channels.*\(2,\)"):
        ParametricLIF(init_tau=[2.0] * 4, backend=backend)(torch.ones(3, 2))
    with pytest.raises(ShapeError, match="each of 2 channels"):
        CubaLIF(v_reset=[0.0, 0.1], backend=backend, step_mode="single")(torch.ones(2, 3))
    with pytest.raises(ShapeError, match=r"LIF\.tau has one value for each neuron of a step \[B, 1, 2\].*\(2, 2\)"):
        LIF(tau=torch.tensor([[2.0, 3.0]]), backend=backend)(torch.ones(3, 2, 2))


class Passing(TorchNeuron):
    """Gives its input."""

    @dataclass(frozen=True)
    class Config:
        """No options."""

    def initial_state(self, x):
        return {}

    def run(self, x, state):
        return x, {}


def test_neurons_of_torch_refuse_what_other_neurons_refuse():
    neuron = Passing()
    assert neuron(torch.ones(3, 2)).shape == (3, 2)
    for dtype in (torch.int64, torch.float8_e4m3fn):
        with pytest.raises(TypeError, match=rf"Passing takes floating-point input, got {dtype}: call \.float\(\)"):
            neuron(torch.ones(3, 2).to(dtype))
    with pytest.raises(TypeError, match=r"Passing takes dense input, got torch.sparse_coo: call \.to_dense\(\)"):
        neuron(torch.ones(3, 2).to_sparse())
    with pytest.raises(TypeError, match=r"Passing takes a tensor, got numpy\.ndarray"):
        neuron(numpy.ones((3, 2)))
    with pytest.raises(ShapeError, match=r"takes \[T, B, \.\.\.\], got \(3,\): add the missing axis"):
        neuron(torch.ones(3))


def test_names_that_do_not_exist():
    with pytest.raises(OptionError, match="record names 'v' more than once"):
        LIF(record=("v", "h", "v"))
    with pytest.raises(OptionError, match="learnable names 'tau' more than once"):
        LIF(learnable=("tau", "tau"))
    with pytest.raises(OptionError, match="record names 'u'; it may name current, v"):
        CubaLIF(record=("u",))
    with pytest.raises(OptionError, match="learnable names 'reset'; it may name v_threshold, v_reset"):
        LIF(learnable=("reset",))
    with pytest.raises(OptionError, match=r"learnable names 'init_tau', which is always trained \(as 'w'\)"):
        ParametricLIF(learnable=("init_tau",))
    with pytest.raises(OptionError, match="step_mode must be 'single' or 'multi', got 's'"):
        LIF(step_mode="s")
    with pytest.raises(OptionError, match="'reset' must be one of 'hard', 'soft'; got 'none'"):
        LIF(reset="none")


def test_a_surrogate_without_a_derivative():
    with pytest.raises(DynamicsError, match=r"Flat declares no derivative: add .* derivative\(u, params\)"):

        class Flat(Surrogate):
            """Has none."""

    class Duck:
        """Looks like one."""

        config = Surrogate.Config()

        @staticmethod
        def forward(u, params):
            return u

    for call in (lambda: spike(torch.ones(2), Duck()), lambda: LIF(surrogate=Duck())(torch.ones(2, 1))):
        with pytest.raises(DynamicsError, match=r"(?s)Duck, which declares no derivative.*derivative\(u, params\)"):
            call()


@pytest.mark.parametrize("form", ["sequential", "model"])
def test_a_plain_convolution_on_five_axes(form):
    conv = torch_nn.Conv2d(2, 4, 3)
    if form == "sequential":
        net = Sequential(conv, LIF())
    else:

        class Net(Model):
            """A convolution as torch has it."""

            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                self.conv, self.neuron = conv, self.make()

            def make(self):
                return LIF()

            def forward(self, x):
                return self.neuron(self.conv(x))

        net = Net(LIF, (2, 6, 6), 4)
    with pytest.raises(ShapeError, match=r"Conv2d at .*fold_time\(module\)"):
        net(torch.zeros(3, 2, 2, 6, 6))


def test_a_step_that_declares_nothing():
    class Empty(Neuron):
        """No step."""

        state = {"v": 0.0}  # noqa: RUF012

        @dataclass(frozen=True)
        class Config(Neuron.Config):
            """As the base."""

    with pytest.raises(NotImplementedError, match=r"declares `step\(x, state, params\)`"):
        Empty()(torch.ones(2, 1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"v_threshold": math.nan}, "v_threshold' must be a number, got nan"),
        ({"tau": math.inf}, "tau' must be >= 1 and < inf"),
        ({"tau": []}, "tau' must hold a number for each channel"),
        ({"surrogate": torch.sigmoid}, "surrogate' must be a surrogate: an instance, a name or a table"),
        ({"surrogate": ATan}, "surrogate' must be a surrogate: an instance"),
        ({"record": "current"}, r"sequence of names, such as \('current',\)"),
    ],
)
def test_options_that_cannot_be_meant(options, says):
    with pytest.raises(OptionError, match=says):
        LIF(**options)


def test_numbers_of_numpy_are_numbers():
    neuron = LIF(tau=numpy.array([1.5, 3.0]), v_threshold=numpy.float32(0.5))
    assert neuron.config.tau == (1.5, 3.0)
    assert neuron.config.v_threshold == 0.5


@pytest.mark.parametrize("value", [math.inf, -math.inf, [0.5, math.inf], math.nan])
@pytest.mark.parametrize("option", ["v_reset", "v_init"])
def test_options_of_a_neuron_are_finite(option, value):
    with pytest.raises(OptionError, match=rf"LIF: option '{option}' must be (finite|a number), got -?(inf|nan)"):
        LIF(**{option: value})


def test_an_infinite_threshold_never_fires():
    neuron = LIF(v_threshold=math.inf)
    x = 9 * torch.rand(5, 2, 3)
    assert not neuron(x).any()
    for value in (math.inf, [1.0, math.inf]):
        with pytest.raises(OptionError, match=r"'v_threshold' must be finite with reset='soft'.*got inf: use 'hard'"):
            LIF(v_threshold=value, reset="soft")
    with pytest.raises(OptionError, match=r"'v_threshold' must be finite, got -inf"):
        LIF(v_threshold=-math.inf)


def test_options_of_a_surrogate_are_finite():
    class Wide(Surrogate):
        """One with an option without bounds."""

        @dataclass(frozen=True)
        class Config(Surrogate.Config):
            """A shift."""

            shift: float = 0.0

        @staticmethod
        def derivative(u, params):
            return u * 0 + params.shift

    with pytest.raises(OptionError, match=r"Wide: option 'shift' must be finite, got inf"):
        Wide(shift=math.inf)
