"""Threads share a net, and copies behave like it, for every module of core that has state."""

import threading

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.backends.reference import TorchBackend
from spikecore.errors import StateError, StreamingError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import functional, get_state, reset_state, set_state, streaming
from spikecore.nn.state import Stateful
from spikecore.registry import Blocking, Registry, components, create, load, use
from tests.sequences import COPIES, assert_copies_behave, assert_threads_share, in_threads

NEURONS = [
    entry.name
    for entry in components("neuron")
    if entry.plugin.id == "core" and getattr(load("neuron", entry.name), "state", None) != {}
]


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


class Inner(torch_nn.Module):
    """Two neurons and weights, for the inside of a container."""

    def __init__(self):
        super().__init__()
        self.body = torch_nn.Sequential(torch_nn.Linear(6, 6), nn.LIF(tau=1.5), nn.CubaLIF())

    def forward(self, x):
        return self.body(x)


MODULES = {
    "elementwise recurrent": lambda: nn.ElementwiseRecurrent(Inner()),
    "linear recurrent": lambda: nn.LinearRecurrent(nn.LIF(tau=1.5), 6, 6),
    "lateral recurrent": lambda: nn.LateralRecurrent(nn.LIF(tau=1.5), 6),
    "recurrent in recurrent": lambda: nn.ElementwiseRecurrent(nn.LinearRecurrent(Inner(), 6, 6)),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout1d": lambda: torch_nn.Sequential(nn.Dropout1d(0.5), torch_nn.Flatten(-2)),
    "dropout2d": lambda: nn.Dropout2d(0.5),
    "dropout3d": lambda: nn.Dropout3d(0.5),
    "block": lambda: nn.LinearBNNeuron(torch_nn.Linear(6, 6), torch_nn.BatchNorm1d(6), nn.LIF()).eval(),
}
for neuron in NEURONS:
    MODULES[f"{neuron} on torch"] = lambda neuron=neuron: create("neuron", neuron, backend="torch")
    MODULES[f"{neuron} on graph"] = lambda neuron=neuron: create("neuron", neuron, backend="graph")
TRAILING = {"dropout1d": (6, 5), "dropout2d": (6, 2, 2), "dropout3d": (6, 2, 2, 2)}
IS_RANDOM = ("dropout", "dropout1d", "dropout2d", "dropout3d")


def net_of(name):
    torch.manual_seed(0)
    net = MODULES[name]()
    if isinstance(net, nn.LinearBNNeuron) or name in TRAILING:
        return net
    return torch_nn.Sequential(torch_nn.Linear(6, 6), net)


def sequences_of(name, num=3):
    torch.manual_seed(1)
    return [torch.rand(5, 2, *TRAILING.get(name, (6,))) * 6 for _ in range(num)]


def test_every_class_with_state_is_here():
    """One that is added must be added to the list above."""
    known = {type(part) for name in MODULES for part in net_of(name).modules()}
    ours, waiting = set(), [Stateful]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        ours.update(cls for cls in below if cls.__module__.startswith("spikecore.nn."))
    without_state = {cls for cls in ours if getattr(cls, "state", None) == {}}  # nn.ReLU
    bases = {nn.Neuron, nn.TorchNeuron, nn.layers.recurrent.Recurrent}
    assert ours - bases - without_state <= known
    assert len(ours - bases) >= 12


@pytest.mark.parametrize("name", [name for name in MODULES if name not in IS_RANDOM])
def test_threads_share(name):
    net = net_of(name)
    assert_threads_share(net, sequences_of(name))
    assert any(out.any() for out in [net(x) for x in sequences_of(name)])


@pytest.mark.parametrize("name", IS_RANDOM)
def test_threads_keep_masks_of_their_own(name):
    """Dropout draws; so a thread must find the mask that it drew."""
    net, (x, *_) = net_of(name), sequences_of(name)
    barrier = threading.Barrier(3)

    def client(_):
        masks = []
        with streaming(net):
            for _ in range(8):
                barrier.wait()  # all threads are inside at once
                masks.append(net(x) != 0)
        return masks

    masks = in_threads(client)
    for mine in masks:
        assert all(torch.equal(mask, mine[0]) for mask in mine)
    assert not torch.equal(masks[0][0], masks[1][0])


@pytest.mark.parametrize("name", [name for name in MODULES if name not in IS_RANDOM])
def test_copies_behave_like_the_net(name):
    assert_copies_behave(net_of(name), sequences_of(name)[0])


@pytest.mark.parametrize("name", IS_RANDOM)
@pytest.mark.parametrize("made", COPIES)
def test_copies_keep_the_mask(name, made):
    net, (x, *_) = net_of(name), sequences_of(name)
    with streaming(net):
        mask = net(x) != 0
        twin = COPIES[made](net)
        assert torch.equal(twin(x) != 0, mask)
    assert any(not torch.equal(twin(x) != 0, mask) for _ in range(8))


def spiking_net():
    torch.manual_seed(0)
    return torch_nn.Sequential(torch_nn.Linear(4, 8), nn.LIF(), torch_nn.Linear(8, 3), nn.LI())


def test_threads_step_with_parameters_of_their_own():
    net, x = spiking_net(), torch.rand(6, 4, 4) * 3
    step, init_state = functional(net)
    before = dict(net.named_parameters())
    own = [{name: value.detach() * (1.5 + number / 2) for name, value in before.items()} for number in range(2)]
    own.append(before)
    want = [step(params, x, init_state(x))[0] for params in own]
    assert len({round(out.sum().item(), 3) for out in want}) == 3

    def client(number):
        return [torch.equal(step(own[number], x, init_state(x))[0], want[number]) for _ in range(20)]

    assert all(all(answers) for answers in in_threads(client))
    assert all(value is before[name] for name, value in net.named_parameters())


def test_a_step_that_raises_lets_others_go_on():
    net, x = spiking_net(), torch.rand(6, 4, 4)
    step, init_state = functional(net)
    state, params = init_state(x), {name: value * 2 for name, value in net.named_parameters()}
    for wrong in (dict(net.named_parameters()), params):
        with pytest.raises(RuntimeError):
            step(wrong, torch.rand(6, 4, 5), state)
    assert all(in_threads(lambda _: step(params, x, state)[0].shape == (6, 4, 3)))


def test_state_is_the_thread_s_own():
    net, x = spiking_net(), torch.rand(6, 4, 4) * 3
    with streaming(net):
        net(x)
        kept = get_state(net)
        assert kept["1"]["v"].shape == (4, 8)
        (theirs,) = in_threads(lambda _: get_state(net), range(1))
        assert set(theirs.values()) == {None}
        with pytest.raises(StateError, match="keeps no state now"):
            in_threads(lambda _: set_state(net, kept), range(1))
        (elsewhere,) = in_threads(lambda _: net(x), range(1))
        with pytest.raises(StreamingError):
            streaming(net).__enter__()
        assert get_state(net)["1"]["v"] is kept["1"]["v"]
    assert torch.equal(elsewhere, net(x))
    assert set(get_state(net).values()) == {None}


def test_a_block_that_is_left_in_another_thread_ends_where_it_began():
    net, x = spiking_net(), torch.rand(6, 4, 4) * 3
    want = net(x)
    block = streaming(net)
    block.__enter__()
    net(x)
    in_threads(lambda _: block.__exit__(None, None, None), range(1))
    assert set(get_state(net).values()) == {None}
    assert torch.equal(net(x), want)


def test_recorded_is_the_thread_s_own():
    lif, xs = nn.LIF(tau=3.0, record=("v",)), [torch.full((4, 2), value) for value in (0.3, 0.6, 0.9)]
    barrier = threading.Barrier(3)

    def client(number):
        lif(xs[number])
        barrier.wait()  # all have called before any of them looks
        return lif.recorded["v"][0, 0].item()

    assert in_threads(client) == pytest.approx([0.1, 0.2, 0.3])
    assert lif.recorded == {}


def test_a_copy_made_inside_a_call_is_at_rest():
    inner = nn.LIF(tau=1.5)
    net, x, made = nn.ElementwiseRecurrent(inner), torch.rand(4, 2, 6) * 3, []
    want = inner(x)
    handle = inner.register_forward_hook(lambda module, args, out: made.append(COPIES["deepcopy"](module)))
    net(x)
    step, init_state = functional(net)
    step({}, x, init_state(x))
    handle.remove()
    for twin in made:
        twin._forward_hooks.clear()
        assert set(get_state(twin).values()) == {None}
        assert torch.equal(twin(x), want)
    assert len(made) >= 8


def test_a_folded_block_in_streaming_is_at_rest():
    block = nn.LinearBNNeuron(torch_nn.Linear(6, 6), torch_nn.BatchNorm1d(6), nn.LIF()).eval()
    x = torch.rand(4, 2, 6) * 4
    with streaming(block):
        block(x)
        folded = block.fold()
        torch.testing.assert_close(folded(x), folded(x))
        assert set(get_state(folded).values()) == {None}


def test_single_steps_of_a_copy_in_another_thread_begin_there():
    lif, x = nn.LIF(step_mode="single"), torch.full((2, 3), 0.9)
    lif(x)
    twin = COPIES["deepcopy"](lif)
    (v,) = in_threads(lambda _: (reset_state(twin), twin(x), get_state(twin)[""]["v"])[2], range(1))
    assert v[0, 0].item() == pytest.approx(0.45)
    twin(x)
    assert get_state(twin)[""]["v"][0, 0].item() == pytest.approx(0.675)
