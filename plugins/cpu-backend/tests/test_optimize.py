"""Nets whose spikes stay bits between layers: equal outputs, and every way out of it."""

import copy
import pickle

import pytest
import torch
from spikecore_cpu_backend import products
from torch import nn

import spikecore
from spikecore.backends.spike_bits import bits_of
from spikecore.nn import (
    LIF,
    BatchNorm2d,
    Conv2d,
    ConvBNNeuron,
    Flatten,
    Linear,
    LinearBNNeuron,
    MaxPool2d,
    Sequential,
    configure_backend,
    set_products,
    set_step_mode,
    streaming,
)
from spikecore.nn.bit_net import BitSequential


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(products, "LEAST_TERMS", 0)
    configure_backend("cpu", crossover=1.0)
    yield
    configure_backend("cpu")


def make_net():
    torch.manual_seed(0)
    net = Sequential(
        Conv2d(2, 12, 3, padding=1), BatchNorm2d(12), LIF(),
        Conv2d(12, 40, 3, padding=1), LIF(v_threshold=0.05), MaxPool2d(2),
        ConvBNNeuron(nn.Conv2d(40, 33, 3, stride=2, padding=1), nn.BatchNorm2d(33), LIF(v_threshold=0.4)),
        MaxPool2d((2, 1), (2, 1)), Conv2d(33, 8, 1), LIF(v_threshold=0.2),
        Flatten(), LinearBNNeuron(nn.Linear(8 * 2 * 4, 20), nn.BatchNorm1d(20), LIF(v_threshold=0.3)), Linear(20, 5),
    )  # fmt: skip
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                part.weight.fill_(1.5)
                part.bias.fill_(0.5)
                part.running_var.fill_(0.5)
    return net


def inputs():
    return torch.rand(4, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def test_outputs_are_equal_and_the_net_stays_as_it_is():
    net = make_net()
    keys, mode = list(net.state_dict()), net.training
    made = spikecore.optimize(net)
    assert net.training is mode
    assert next(net.parameters()).requires_grad
    assert list(made.state_dict()) == keys
    with torch.no_grad():
        right = net.eval()(inputs())
        assert right.std() > 0.01
        assert torch.equal(made(inputs()), right)
    reasons = [part.product.reason for part in made if getattr(part, "product", None) is not None]
    assert reasons.count("the spikes came as bits") == 5  # the one behind `Flatten` packs its own
    assert "the spikes came as bits" in spikecore.explain(made)
    set_products(net, "dense")
    with torch.no_grad():
        torch.testing.assert_close(net(inputs()), right)


def test_every_layer_between_bits_really_fires():
    net, rates = make_net().eval(), []
    for part in net:
        if isinstance(part, LIF | ConvBNNeuron | LinearBNNeuron):
            part.register_forward_hook(lambda m, a, out: rates.append(float(out.mean())))
    with torch.no_grad():
        net(inputs())
    assert len(rates) == 5
    assert min(rates) > 0.01


def test_a_pool_at_two_places_and_a_container_within():
    torch.manual_seed(0)
    pool, lif = MaxPool2d([2, 2], [2]), LIF(v_threshold=0.1)
    inner = Sequential(Conv2d(12, 40, 3, padding=1), lif, pool, Conv2d(40, 8, 3, padding=1))
    net = Sequential(Conv2d(2, 12, 3, padding=1), lif, pool, inner, lif)
    x = inputs()
    with torch.no_grad():
        right = net.eval()(x)
        assert 0.01 < right.mean() < 0.99
        made = spikecore.optimize(net)
        assert torch.equal(made(x), right)
    reasons = [part.product.reason for part in made.modules() if getattr(part, "product", None) is not None]
    assert reasons.count("the spikes came as bits") == 2  # within the container, and to it: the pool gives bits


def test_step_by_step_and_streaming():
    net = make_net().eval()
    made = spikecore.optimize(net)
    with torch.no_grad():
        right = net(inputs())
        with streaming(made):
            parts = torch.cat([made(inputs()[:1]), made(inputs()[1:])])
        assert torch.equal(parts, right)
        set_step_mode(made, "single")
        assert torch.equal(torch.stack([made(step) for step in inputs()]), right)


def test_new_weights_are_used():
    net = make_net().eval()
    made = spikecore.optimize(net)
    with torch.no_grad():
        made(inputs())
        for parameter in net.parameters():
            parameter.mul_(1.1)
        made.load_state_dict(net.state_dict())
        assert torch.equal(made(inputs()), net(inputs()))


def test_copies_and_pickles():
    made = spikecore.optimize(make_net())
    with torch.no_grad():
        right = made(inputs())
        for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert isinstance(twin, BitSequential)
            assert torch.equal(twin(inputs()), right)


def test_with_gradients_and_in_training_it_is_any_net():
    net = make_net().eval()
    made = spikecore.optimize(net)
    x = inputs().requires_grad_()
    (ours,), (theirs,) = (torch.autograd.grad(part(x).sum(), x) for part in (made, net))
    assert torch.equal(ours, theirs)
    made.train()
    net.train()
    with torch.no_grad():
        assert torch.equal(made(inputs()), net(inputs()))


def test_hooks_see_tensors():
    made = spikecore.optimize(make_net())
    seen = []
    for part in made:
        part.register_forward_hook(lambda m, args, out: seen.append((args[0].dtype, out.dtype)))
    with torch.no_grad():
        assert torch.equal(made(inputs()), make_net().eval()(inputs()))
    assert len(seen) == len(made)


def test_too_many_ones_run_densely():
    configure_backend("cpu", crossover=0.001)
    net = make_net().eval()
    with torch.no_grad():
        assert torch.equal(spikecore.optimize(net)(inputs()), net(inputs()))
    assert all("dense" in str(part.product) for part in net if getattr(part, "product", None))


def test_containers_inside_a_net_and_other_modes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = make_net()[:6]
            self.rest = nn.Sequential(*make_net()[6:])

        def forward(self, x):
            return self.rest(self.features(x))

    net = Net().eval()
    made = spikecore.optimize(net)
    assert isinstance(made.features, BitSequential)
    assert isinstance(made.rest, BitSequential)
    with torch.no_grad():
        assert torch.equal(made(inputs()), net(inputs()))
    with torch.inference_mode():
        assert torch.equal(made(inputs()), net(inputs()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(inputs()), net(inputs()))


def test_two_readers_of_a_tensor_pack_it_once(monkeypatch):
    calls = []
    pack = products.Products.pack
    monkeypatch.setattr(products.Products, "pack", lambda self, *args: calls.append(1) or pack(self, *args))
    x = (torch.rand(4, 2, 8, 10, 10) < 0.2).float()
    first, second = Conv2d(8, 8, 3), Conv2d(8, 16, 1)
    folded = [layer(x) for layer in (first, second)]
    assert len(calls) == 1
    assert bits_of(x.flatten(0, 1), True) is not None
    x[0, 0, 0, 0, 0] = 1 - x[0, 0, 0, 0, 0]
    set_products(second, "dense")
    again = second(x)
    set_products(second, "event")
    torch.testing.assert_close(second(x), again)
    assert len(calls) == 2
    assert not torch.equal(again, folded[1])


class Residual(nn.Module):
    """Branches that its own forward joins: sums of spikes, spikes that two layers read, a pool without a container."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = ConvBNNeuron(nn.Conv2d(2, 24, 3, padding=1), nn.BatchNorm2d(24), LIF(v_threshold=0.2))
        self.first = ConvBNNeuron(nn.Conv2d(24, 40, 3, stride=2, padding=1), nn.BatchNorm2d(40), LIF(v_threshold=0.2))
        self.second = Conv2d(40, 40, 3, padding=1)
        self.fire = LIF(v_threshold=0.05)
        self.shortcut = ConvBNNeuron(nn.Conv2d(24, 40, 1, stride=2), nn.BatchNorm2d(40), LIF(v_threshold=0.2))
        self.pool = MaxPool2d(2)
        self.head = Sequential(Conv2d(40, 16, 3), LIF(v_threshold=0.1), Flatten(), Linear(16 * 4, 5))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.bias.data.fill_(0.5)

    def forward(self, x):
        spikes = self.stem(x)
        branch = self.fire(self.second(self.first(spikes)))
        both = branch + self.shortcut(spikes)
        return self.head(self.pool(both)), both


def test_a_net_with_branches_of_its_own_multiplies_bits(monkeypatch):
    net, x = Residual().eval(), inputs()
    prepared = []
    prepare = products.Products.prepare
    monkeypatch.setattr(products.Products, "prepare", lambda *args: prepared.append(args) or prepare(*args))
    made = spikecore.optimize(net)
    assert list(made.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        right, both = net(x)
        assert both.max() == 2, "the branches never fire together: this proves nothing"
        assert not prepared
        for _ in range(2):
            out = made(x)[0]
            assert torch.equal(out, right)
        with torch.inference_mode():
            assert torch.equal(made(x)[0], right)
        assert len(prepared) == 4, "weights are prepared once"
        set_products(net, "dense")
        torch.testing.assert_close(net(x)[0], right)
    reasons = {name: part.product.reason for name, part in made.named_modules() if getattr(part, "product", None)}
    bits = {name for name, reason in reasons.items() if reason == "the spikes came as bits"}
    assert bits == {"first", "second", "shortcut", "head.3"}
    assert reasons["head.0"] == "the input has values other than 0 and 1"
    twin = pickle.loads(pickle.dumps(made))
    assert all(getattr(part, "_prepared", None) is None for part in twin.modules())
    with torch.no_grad():
        assert torch.equal(twin(x)[0], right)
        made.second.weight.mul_(-1)
        net.second.weight.mul_(-1)
        set_products(net, "auto")
        assert torch.equal(made(x)[0], net(x)[0])
        assert not torch.equal(made(x)[0], right)


def test_with_gradients_and_in_training_branches_run_as_in_any_net():
    net = Residual()
    made = spikecore.optimize(net)
    x = inputs().requires_grad_()
    for training in (False, True):
        net.train(training)
        made.train(training)
        for ours, theirs in zip(made(x), net(x), strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(*(torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for out in (ours, theirs)))
    assert "the spikes came as bits" not in spikecore.explain(made)


@pytest.mark.parametrize("mode", ["dense", "event"])
def test_the_mode_of_a_layer_holds_in_the_copy(mode):
    net, x = Residual().eval(), inputs()
    set_products(net, mode)
    made = spikecore.optimize(net)
    with torch.no_grad():
        assert torch.equal(made(x)[0], net(x)[0])
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(made(x)[0], net(x)[0])
    set_products(made, "dense")
    with torch.no_grad():
        made(x)
    assert {part.product.reason for part in made.modules() if getattr(part, "product", None)} == {"asked for"}
