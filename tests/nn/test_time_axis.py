"""Plain layers and step modes that take time for the batch: refused wherever they are, and only there."""

import copy
import pickle
from functools import partial, wraps

import pytest
import torch
from torch.nn import functional
from torch.nn.functional import batch_norm as bn

from spikecore import nn
from spikecore.errors import ShapeError

T, B, C = 5, 3, 3
X = 3 * torch.rand(T, B, C, generator=torch.Generator().manual_seed(0))  # B equals C: torch itself says nothing


class WithLayers(nn.Model):
    """x → linear → norm → neuron, with layers that `forward` calls by name."""

    def __init__(self, norm, neuron, between=lambda x: x, after=lambda x: x):
        super().__init__(nn.LIF, (C,), C)
        self.linear, self.norm, self.neuron = torch.nn.Linear(C, C), norm, neuron
        self.between, self.after = between, after

    def forward(self, x):
        return self.neuron(self.after(self.norm(self.between(self.linear(x)))))


def plain_norm():
    return torch.nn.BatchNorm1d(C)


def plain(*layers):
    return torch.nn.Sequential(*layers)


CONFUSED = {
    "the norm is in a container": (lambda: nn.Sequential(plain(plain_norm()), nn.LIF()), "0.0"),
    "the neuron is in a container": (lambda: nn.Sequential(plain_norm(), plain(nn.LIF())), "0"),
    "both are, at other depths": (
        lambda: nn.Sequential(nn.Linear(C, C), plain(plain(plain_norm())), plain(torch.nn.ReLU(), nn.LIF())),
        "1.0.0",
    ),
    "the norm comes after": (lambda: nn.Sequential(plain(nn.LIF()), plain(plain_norm())), "1.0"),
    "the norm is an attribute": (lambda: WithLayers(plain_norm(), nn.LIF()), "norm"),
    "a function is between": (lambda: WithLayers(plain_norm(), nn.LIF(), after=lambda y: torch.relu(y) + 1), "norm"),
    "attributes are containers": (lambda: WithLayers(plain(plain_norm()), plain(nn.LIF())), "norm.0"),
    "a model is in a container": (lambda: nn.Sequential(WithLayers(plain_norm(), nn.LIF())), "0.norm"),
    "a branch cannot be traced": (lambda: nn.Sequential(plain(plain_norm()), nn.LIF(), Branching()), "0.0"),
    "only a part can be traced": (lambda: HoldsChain(plain(plain_norm(), plain(nn.LIF()))), "chain.0"),
}


class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class HoldsChain(nn.Model):
    def __init__(self, chain):
        super().__init__(nn.LIF, (C,), C)
        self.chain = chain

    def forward(self, x):
        return self.chain(x) if x.sum() > 0 else x


@pytest.mark.parametrize("name", CONFUSED)
def test_a_plain_norm_is_named(name):
    make, place = CONFUSED[name]
    net = make()
    with pytest.raises(ShapeError, match=rf"BatchNorm1d at '{place}' would be given a sequence.*fold_time"):
        net(X)
    nn.set_step_mode(net, "single")
    assert net(X[0]).shape == (B, C)


def single():
    return nn.LIF(step_mode="single")


MIXED = {
    "nested": lambda: nn.Sequential(plain(nn.LIF()), plain(plain(single()))),
    "folded layer": lambda: nn.Sequential(plain(nn.Linear(C, C, step_mode="single")), plain(nn.LIF())),
    "attributes": lambda: WithLayers(single(), nn.LIF()),
    "block": lambda: nn.Sequential(
        plain(nn.LinearBNNeuron(torch.nn.Linear(C, C), plain_norm(), single())), plain(nn.LIF())
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_step_modes_are_named(name):
    net = MIXED[name]()
    with pytest.raises(ShapeError, match=r"is in 'multi'.*is in 'single' and would take T for the batch"):
        net(X)
    nn.set_step_mode(net, "multi")
    assert net(X).shape == X.shape


CHANGES = {
    "child of the net": lambda net: setattr(net, "0", plain_norm()),
    "child of a child": lambda net: net[1].__setitem__(0, plain_norm()),
    "added below": lambda net: net[1].append(plain_norm()),
    "step mode below": lambda net: setattr(net[1][1], "step_mode", "single"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_net_that_changed_is_looked_at_again(name):
    net = nn.Sequential(nn.Linear(C, C), plain(nn.BatchNorm1d(C), nn.LIF()))
    for _ in range(2):
        assert net(X).shape == X.shape
    CHANGES[name](net)
    for _ in range(2):  # an error is no permission
        with pytest.raises(ShapeError, match=r"would be given a sequence|mixes step modes"):
            net(X)


ALLOWED = {
    "folded by forward": lambda: WithLayers(
        plain_norm(), nn.LIF(), lambda y: y.flatten(0, 1), lambda y: y.unflatten(0, (T, B))
    ),
    "steps of a loop": lambda: WithLayers(
        nn.fold_time(torch.nn.Identity()), single(), after=lambda y: torch.stack([y[t] for t in range(T)]).mean(0)
    ),
    "mean over time": lambda: nn.Sequential(WithLayers(nn.LIF(), plain(plain_norm()), after=lambda y: y.mean(0))),
    "no neuron": lambda: nn.Sequential(plain(plain_norm())),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_computes_right_numbers_is_allowed(name):
    assert ALLOWED[name]()(X).shape[-1] == C


class Calls(nn.Model):
    """x → linear → a function of the input → neuron, x `[T, B, C]`."""

    def __init__(self, neuron=None):
        super().__init__(nn.LIF, (C,), C)
        self.linear, self.neuron = torch.nn.Linear(C, C), neuron or nn.LIF()

    def layer(self, x):
        raise NotImplementedError

    def forward(self, x):
        return self.neuron(torch.relu(self.layer(self.linear(x))) * 3)


class CallsBatchNorm(Calls):
    def layer(self, x):
        return functional.batch_norm(x, None, None, training=True)


class CallsByKeyword(Calls):
    def layer(self, x):
        return functional.batch_norm(training=True, running_mean=None, running_var=None, input=x)


class CallsUnderAnotherName(Calls):
    def layer(self, x):
        return bn(x, None, None, training=True)


class CallsTorch(Calls):
    def layer(self, x):
        return torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)


class CallsGroupNorm(Calls):
    def layer(self, x):
        return functional.group_norm(x, 1)


class CallsInstanceNorm(Calls):
    def layer(self, x):
        return functional.instance_norm(x)


class CallsResponseNorm(Calls):
    def layer(self, x):
        return functional.local_response_norm(x, 2)


class CallsConv(Calls):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(C, B, 1))

    def layer(self, x):
        return functional.conv1d(x, self.weight)


class CallsFeatureDropout(Calls):
    def layer(self, x):
        return functional.dropout1d(x, 0.4)


class CallsShuffle(Calls):
    def layer(self, x):
        return functional.channel_shuffle(x, B)


def helper(x):
    return functional.batch_norm(x, None, None, training=True)


class CallsHelper(Calls):
    def layer(self, x):
        return helper(x)


def keep(function):
    @wraps(function)
    def called(self, x):
        return function(self, x)

    return called


class CallsDecorated(Calls):
    @keep
    def layer(self, x):
        return helper(x)


class CallsInAComprehension(Calls):
    def layer(self, x):
        return sum([helper(x) for _ in range(2)])


class CallsAnAttribute(Calls):
    def __init__(self):
        super().__init__()
        self.layer = partial(functional.batch_norm, running_mean=None, running_var=None, training=True)


class CallsBehindTheNeuron(Calls):
    def layer(self, x):
        return x

    def forward(self, x):
        return helper(self.neuron(self.linear(x) * 3))


FUNCTIONAL = {
    CallsBatchNorm: "batch_norm",
    CallsByKeyword: "batch_norm",
    CallsUnderAnotherName: "batch_norm",
    CallsTorch: "batch_norm",
    CallsGroupNorm: "group_norm",
    CallsInstanceNorm: "instance_norm",
    CallsResponseNorm: "local_response_norm",
    CallsConv: "conv1d",
    CallsFeatureDropout: "dropout1d",
    CallsShuffle: "channel_shuffle",
    CallsHelper: "batch_norm",
    CallsDecorated: "batch_norm",
    CallsInAComprehension: "batch_norm",
    CallsAnAttribute: "batch_norm",
    CallsBehindTheNeuron: "batch_norm",
}


@pytest.mark.parametrize("make", FUNCTIONAL)
def test_a_function_that_takes_time_for_the_batch_is_named(make):
    net = make()
    message = rf"{FUNCTIONAL[make]}\(\) at .*test_time_axis.py:\d+ would be given a sequence.*unflatten"
    if make is CallsAnAttribute:  # torch's own code makes the call
        message = rf"{FUNCTIONAL[make]}\(\).* would be given a sequence.*unflatten"
    for _ in range(2):
        with pytest.raises(ShapeError, match=message):
            net(X)
    with pytest.raises(ShapeError, match=message):
        nn.Sequential(nn.Linear(C, C), make())(X)


def test_a_function_of_a_net_in_single_step_mode_is_allowed():
    net = CallsBatchNorm()
    nn.set_step_mode(net, "single")
    assert net(X[0]).shape == (B, C)


class FoldsByItself(Calls):
    def layer(self, x):
        return helper(x.flatten(0, 1)).unflatten(0, (T, B))


class SwapsAxes(Calls):
    def layer(self, x):
        return helper(x.transpose(1, 2)).transpose(1, 2)


class NormsTheRate(Calls):
    def layer(self, x):
        return x

    def forward(self, x):
        return helper(self.neuron(self.linear(x) * 3).mean(0))


class RepeatsTheNormed(Calls):
    def layer(self, x):
        return helper(x[0]).unsqueeze(0).expand(T, B, C)


class CallsStepByStep(Calls):
    def layer(self, x):
        return torch.stack([helper(x[t]) for t in range(T)])


class PoolsAndNormsTheLastAxis(Calls):
    def layer(self, x):
        pooled = functional.max_pool1d(functional.layer_norm(x, (C,)), 1)
        return functional.dropout(functional.interpolate(pooled, scale_factor=1), 0.1)


class NamesAMethodSo(Calls):
    def layer(self, x):
        return self.group_norm(x)

    def group_norm(self, x):
        return x / x.abs().amax(-1, keepdim=True).clamp_min(1e-3)


@pytest.mark.parametrize(
    "make",
    [
        *(FoldsByItself, SwapsAxes, NormsTheRate, RepeatsTheNormed, CallsStepByStep),
        *(PoolsAndNormsTheLastAxis, NamesAMethodSo),
    ],
)
def test_a_function_on_other_axes_is_allowed(make):
    torch.manual_seed(0)
    assert make()(X).shape[-2:] == (B, C)


def test_layers_of_the_last_axes_are_allowed():
    """`PixelShuffle` moves channels into the picture, whatever the axes before them."""
    x = 3 * torch.rand(T, B, 4, 2, 2)
    net = nn.Sequential(torch.nn.PixelShuffle(2), nn.LIF())
    out = net(x)
    assert out.any()
    assert torch.equal(out[:, 1], net[1](torch.stack([torch.pixel_shuffle(step[1], 2) for step in x])))


def test_a_stem_before_the_time_axis_is_allowed():
    torch.manual_seed(0)
    norm = plain_norm()
    net = WithLayers(norm, nn.LIF(), after=lambda y: y.unsqueeze(0).expand(T, B, C) * 3)
    expected = net.neuron((norm(net.linear(X[0])) * 3).expand(T, B, C))
    out = net(X[0])
    assert 0 < out.mean() < 1
    assert torch.equal(out, expected)


def test_a_right_net_is_traced_never_and_a_suspect_once(monkeypatch):
    from spikecore.nn import time_axis

    traced = []

    def counted(*args, **kwargs):
        traced.append(args)
        return nn.trace_net(*args, **kwargs)

    monkeypatch.setattr(time_axis, "trace_net", counted)
    right = nn.Sequential(nn.Linear(C, C), plain(nn.BatchNorm1d(C), nn.LIF()))
    right(X)
    assert not traced
    stem = WithLayers(plain_norm(), nn.LIF(), after=lambda y: y.unsqueeze(0))
    for _ in range(3):
        stem(X[0])
    assert len(traced) == 1


def test_copies_are_looked_at_by_themselves():
    net = nn.Sequential(nn.Linear(C, C), plain(nn.BatchNorm1d(C), nn.LIF()))
    net(X)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(X), net(X))
        twin[1][0] = plain_norm()
        with pytest.raises(ShapeError, match=r"BatchNorm1d at '1.0'"):
            twin(X)
    net(X)
