"""Chains that would compute wrong numbers in silence are refused; layers that other libraries have."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from spikecore import nn
from spikecore.errors import DynamicsError, OptionError, ShapeError

PLAIN = {
    "AdaptiveAvgPool1d": (torch.nn.AdaptiveAvgPool1d(2), (3, 4)),
    "InstanceNorm1d": (torch.nn.InstanceNorm1d(3), (3, 4)),
    "MaxPool2d": (torch.nn.MaxPool2d(2), (3, 4)),
    "Dropout2d": (torch.nn.Dropout2d(), (3, 4)),
    "Flatten": (torch.nn.Flatten(), (3, 4)),
    "BatchNorm1d": (torch.nn.BatchNorm1d(3), (4,)),
    "GroupNorm": (torch.nn.GroupNorm(1, 3), (3, 4)),
    "PReLU": (torch.nn.PReLU(3), (3, 4)),
    "Softmax2d": (torch.nn.Softmax2d(), (3, 4)),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_plain_layer_is_named(name, is_nested):
    layer, shape = PLAIN[name]
    net = nn.Sequential(layer, nn.LIF())
    place = "0.0" if is_nested else "0"
    if is_nested:
        net = nn.Sequential(torch.nn.Sequential(layer, nn.LIF()))
    with pytest.raises(ShapeError, match=rf"{name} at '{place}' would be given a sequence.*fold_time\(module\)"):
        net(torch.rand(5, 3, *shape))  # B equals C: torch itself says nothing


def test_the_cures_work():
    x = torch.rand(5, 3, 3, 4)
    for net in (
        nn.Sequential(nn.Flatten(), nn.LIF()),
        nn.Sequential(torch.nn.Flatten(2), nn.LIF()),
        nn.Sequential(nn.fold_time(torch.nn.Flatten()), nn.LIF()),
    ):
        assert net(x).shape == (5, 3, 12)
    net = nn.Sequential(torch.nn.Flatten(), nn.LIF())
    nn.set_step_mode(net, "single")
    assert net(x[0]).shape == (3, 12)
    nn.set_step_mode(net, "multi")  # it is looked at again
    with pytest.raises(ShapeError, match="Flatten at '0'"):
        net(x)


def test_mixed_step_modes_are_named():
    net = nn.Sequential(nn.LIF(), torch.nn.Linear(4, 4), nn.LIF(step_mode="single"))
    with pytest.raises(ShapeError, match=r"LIF at '0' is in 'multi'.*LIF at '2' is in 'single'.*set_step_mode"):
        net(torch.rand(5, 3, 4))


def test_own_folding_is_left_alone():
    class Fold(torch.nn.Module):
        def forward(self, x):
            return x.flatten(0, 1)

    class Unfold(torch.nn.Module):
        def forward(self, x):
            return x.unflatten(0, (5, 3))

    net = nn.Sequential(Fold(), torch.nn.BatchNorm1d(4), Unfold(), nn.LIF())
    assert net(torch.rand(5, 3, 4)).shape == (5, 3, 4)


def test_sum_pool():
    x = torch.randint(0, 2, (3, 2, 4, 6, 6)).float()
    out = nn.SumPool2d(2)(x)
    expected = x.unflatten(-1, (3, 2)).unflatten(-3, (3, 2)).sum((-1, -3))
    assert torch.equal(out, expected)
    padded = nn.SumPool2d(3, stride=2, padding=1)(torch.ones(1, 1, 1, 4, 4))
    assert padded.flatten().tolist() == [4.0, 6.0, 6.0, 9.0]


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_lateral_recurrence(mode):
    torch.manual_seed(0)
    layer = nn.LateralRecurrent(nn.LIF(), 6, step_mode=mode)
    assert {name for name, _ in layer.named_parameters()} == {"lateral.weight"}
    x = torch.rand(10, 4, 6) * 4
    out = layer(x) if mode == "multi" else torch.stack([layer(step) for step in x])
    plain = nn.LIF(step_mode="single")
    y, expected = torch.zeros(4, 6), []
    for step in x:
        y = plain(step + y @ layer.lateral.weight.T)
        expected.append(y)
    assert 0.05 < out.mean() < 0.95
    assert torch.equal(out, torch.stack(expected))
    out.sum().backward()
    assert layer.lateral.weight.grad.abs().sum() > 0


def test_lateral_recurrence_of_images():
    layer = nn.LateralRecurrent(nn.LIF(), torch.nn.Conv2d(2, 2, 3, padding=1, bias=False))
    assert layer(torch.rand(4, 3, 2, 5, 5) * 4).shape == (4, 3, 2, 5, 5)
    with pytest.raises(ShapeError, match=r"expected \(3, 2, 5, 5\) from its lateral Conv2d, got \(3, 2, 3, 3\)"):
        nn.LateralRecurrent(nn.LIF(), torch.nn.Conv2d(2, 2, 3))(torch.rand(4, 3, 2, 5, 5))


def combined_by(linear, x, y):
    return x + linear(y)


class Combiner(torch.nn.Linear):
    def combine(self, x, y):
        return x + self(y)


LOCAL, WEIGHT = torch.nn.Linear(6, 6), torch.nn.Parameter(torch.eye(6))
HIDING = {
    "closure": (lambda inner: lambda x, y: x + inner(y))(LOCAL),
    "global name": lambda x, y: x + LOCAL(y),
    "default": lambda x, y, linear=LOCAL: x + linear(y),
    "partial": partial(combined_by, LOCAL),
    "method": Combiner(6, 6).combine,
    "bare parameter": lambda x, y: x + y @ WEIGHT,
}


@pytest.mark.parametrize("where", HIDING)
def test_weights_hidden_in_a_function_are_refused(where):
    with pytest.raises(OptionError, match=r"uses a (Linear|Combiner|Parameter).*no parameters.*LateralRecurrent"):
        nn.ElementwiseRecurrent(nn.LIF(), combine=HIDING[where])


def test_functions_without_weights_may_combine():
    for function in (torch.mul, lambda x, y: torch.maximum(x, y) * 0.5, partial(torch.add, alpha=-1)):
        nn.ElementwiseRecurrent(nn.LIF(), combine=function)(torch.rand(3, 2, 6))
    assert len([*nn.ElementwiseRecurrent(nn.LIF(), combine=torch.nn.Bilinear(6, 6, 6)).parameters()]) == 2


def test_a_neuron_shows_what_differs_from_the_defaults():
    assert repr(nn.LIF()) == "LIF()"
    shown = repr(nn.LIF(tau=3.0, learnable=("tau",), step_mode="single", record=("h",)))
    assert shown == "LIF(learnable=('tau',), tau=3.0, step_mode='single', record=('h',))"


def test_a_surrogate_without_the_option_spiking_is_refused():
    with pytest.raises(DynamicsError, match=r"Config has no option 'spiking'.*Surrogate.Config"):

        class Wrong(nn.Surrogate):
            @dataclass(frozen=True)
            class Config:
                width: float = 1.0

            @staticmethod
            def derivative(u, params):
                return params.width * u
