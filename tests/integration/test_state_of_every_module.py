"""Threads share, and copies behave like, every module with state that a plugin registers or exports."""

import importlib
import os

import pytest
import torch
import torch.nn as torch_nn

from spikecore import nn
from spikecore.backends.selection import AUTO, REFERENCE
from spikecore.errors import StateError
from spikecore.registry import components, create, load
from tests.sequences import assert_copies_behave, assert_threads_share, in_threads

FULL = os.environ.get("SPIKE_FULL", "") not in ("", "0")
T, B, N = 5, 2, 8
NEURONS = [entry.name for entry in components("neuron")]
ELEMENTWISE = [name for name in NEURONS if load("neuron", name).capabilities.elementwise]

LAYERS = {  # name → the layer, and the shape of its input after T and B
    "DropConnectLinear": (lambda layer: layer(N, N, num_samples=4).eval(), (N,)),
    "BatchNormThroughTime1d": (lambda layer: layer(T, N).eval(), (N,)),
    "BatchNormThroughTime2d": (lambda layer: layer(T, 3).eval(), (3, 2, 2)),
    "BatchNormThroughTime3d": (lambda layer: layer(T, 3).eval(), (3, 2, 2, 2)),
    "TemporalEffectiveBatchNorm1d": (lambda layer: layer(T, N).eval(), (N,)),
    "TemporalEffectiveBatchNorm2d": (lambda layer: layer(T, 3).eval(), (3, 2, 2)),
    "TemporalEffectiveBatchNorm3d": (lambda layer: layer(T, 3).eval(), (3, 2, 2, 2)),
    "NeuNorm": (lambda layer: layer(3, 4, 5), (3, 4, 5)),
    "SpikingGRU": (lambda layer: layer(N, 40, num_layers=2), (N,)),
    "SpikingLSTM": (lambda layer: layer(N, 40, num_layers=2), (N,)),
    "SpikingVanillaRNN": (lambda layer: layer(N, 40, num_layers=2), (N,)),
    "Delay": (lambda layer: layer(2), (N,)),
    "TemporalDifference": (lambda layer: layer(torch_nn.Tanh(), (True,)), (N,)),
}
WITHOUT_STATE = {"FewSpikeReLU": lambda layer: layer(torch.tensor(4.0), 4)}
"""Take whole sequences and refuse `streaming` and single steps: nothing is kept between calls."""
IS_RANDOM = {"DropConnectLinear", "noisy_cuba_lif", "noisy_ilc_cuba_lif"}
"""Draw numbers in each call; threads take turns at torch's one generator, so their draws differ."""


def options_of(name):
    fixed = {"num_steps": T} if load("neuron", name).capabilities.fixed_num_steps else {}
    if "ilc" in name:
        return {"num_groups": 2, "group_size": N // 2}
    if name.startswith(("noisy", "mpbn")):
        return {"num_features": N}
    return fixed


def neuron_of(name, **more):
    torch.manual_seed(0)
    try:
        neuron = create("neuron", name, **options_of(name), **more)
    except Exception as error:
        pytest.fail(f"{name} needs options that this test does not know: {error}")
    if name == "masked_psn":
        neuron.set_lambda(1.0)  # it runs step by step only so
    return torch_nn.Sequential(torch_nn.Linear(N, N), neuron).eval()


def modes_of(net):
    fixed = any(getattr(getattr(part, "capabilities", None), "step_modes", ("single",)) == ("multi",) for part in net)
    return ("multi",) if fixed else ("multi", "single")


def sequences(shape=(N,)):
    torch.manual_seed(1)
    return [torch.randn(T, B, *shape) * 4 + 2 for _ in range(3)]


def exported():
    """Name → class of every module with state that a plugin with neurons exports."""
    plugins = {load("neuron", name).__module__.split(".")[0] for name in NEURONS} - {"spikecore"}
    return {
        name: value
        for plugin in plugins
        for name, value in vars(importlib.import_module(plugin)).items()
        if isinstance(value, type) and issubclass(value, nn.Stateful)
    }


def test_there_is_enough():
    assert len(NEURONS) >= 29
    assert len(LAYERS) >= 12


def test_every_layer_with_state_is_here():
    """One that a plugin exports from now on must be added to `LAYERS`."""
    registered = {load("neuron", name).__name__ for name in NEURONS}
    assert set(exported()) - registered == {*LAYERS, *WITHOUT_STATE}


@pytest.mark.parametrize("name", WITHOUT_STATE)
def test_without_state_no_parts_of_sequences_are_taken(name):
    net = WITHOUT_STATE[name](exported()[name])
    x = sequences()[0]
    assert net(x).any()
    with nn.streaming(net), pytest.raises(StateError):
        net(x)
    net.step_mode = "single"
    with pytest.raises(StateError):
        net(x[0])


@pytest.mark.parametrize("name", [name for name in NEURONS if name not in IS_RANDOM])
def test_neurons_serve_threads(name):
    net = neuron_of(name)
    assert_threads_share(net, sequences(), rounds=2, modes=modes_of(net))


@pytest.mark.parametrize("name", [name for name in NEURONS if name not in IS_RANDOM])
def test_neurons_are_copied_whole(name):
    net = neuron_of(name)
    assert_copies_behave(net, sequences()[0], modes_of(net))


@pytest.mark.parametrize("name", ELEMENTWISE if FULL else ["lif", "izhikevich", "adex"])
@pytest.mark.parametrize("backend", [AUTO, REFERENCE])
def test_recurrent_neurons_serve_threads(name, backend):
    net = nn.ElementwiseRecurrent(neuron_of(name, backend=backend))
    assert_threads_share(net, sequences(), rounds=2, modes=modes_of(net.module))


@pytest.mark.parametrize("backend", [AUTO, REFERENCE])
def test_four_clients_of_a_recurrent_net_get_their_own_results(backend):
    """An inference server: 160 calls of one net, whose hidden layer feeds back."""
    torch.manual_seed(0)
    recurrent = nn.LinearRecurrent(nn.LIF(backend=backend), 128, 128)
    net = torch_nn.Sequential(torch_nn.Linear(70, 128), recurrent, torch_nn.Linear(128, 20))
    inputs = [torch.rand(50, 1, 70) * 5 for _ in range(4)]
    with torch.no_grad():
        expected = [net(x) for x in inputs]
    assert not torch.equal(expected[0], expected[1])

    def client(number):
        with torch.no_grad():
            return [torch.equal(net(inputs[number]), expected[number]) for _ in range(40)]

    answers = [answer for own in in_threads(client, range(4)) for answer in own]
    assert answers.count(True) == len(answers) == 160


@pytest.mark.parametrize("backend", [AUTO, REFERENCE])
def test_steps_of_the_functional_form_in_threads_leave_the_net_at_rest(backend):
    """Ten nets, four threads of 60 calls; afterwards a call does not continue from the call before."""
    x = torch.rand(6, 4, 8, generator=torch.Generator().manual_seed(0)) * 3
    for seed in range(10):
        torch.manual_seed(seed)
        parts = [torch_nn.Linear(8, 32), nn.LIF(backend=backend), torch_nn.Linear(32, 3), nn.LI(backend=backend)]
        net = torch_nn.Sequential(*parts)
        step, init_state = nn.functional(net)
        params = dict(net.named_parameters())
        with torch.no_grad():
            expected = net(x)

        def client(_, step=step, init_state=init_state, params=params, expected=expected):
            with torch.no_grad():
                return all(torch.equal(step(params, x, init_state(x))[0], expected) for _ in range(60))

        assert all(in_threads(client, range(4)))
        with torch.no_grad():
            assert net[1](net[0](x)).any()
            assert torch.equal(net(x), expected)
            assert torch.equal(net(x), expected)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in IS_RANDOM])
def test_layers_serve_threads_and_are_copied_whole(name):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    net = torch_nn.Sequential(make(exported()[name]))
    assert_threads_share(net, sequences(shape), rounds=2)
    assert_copies_behave(net, sequences(shape)[0])
