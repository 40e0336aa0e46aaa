"""Layers run once where every step of their input is the same memory."""

import copy

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.nn.layers import once


class Counts(torch_nn.ReLU):
    """How many samples it sees."""

    def forward(self, x):
        self.seen = len(x)
        return super().forward(x)


nn.time_invariant(Counts)


def net_of(kind, last=torch_nn.Identity):
    torch.manual_seed(0)
    if kind == "blocks":
        conv, norm = torch_nn.Conv2d(1, 6, 3, padding=1), torch_nn.BatchNorm2d(6)
        stem = [nn.ConvBNNeuron(conv, norm, nn.LIF(v_threshold=0.4))]
    else:
        stem = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.fold_time(Counts()), nn.LIF(v_threshold=0.4)]
    return torch_nn.Sequential(*stem, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 16, 3), last()).double()


def image():
    return torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3


def train(net, x):
    """Losses of three steps of SGD, and what they leave."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        out = net(x)
        loss = torch_nn.functional.cross_entropy(out.mean(0), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *(value.detach().double() for value in net.state_dict().values())]


@pytest.mark.parametrize("kind", ["layers", "blocks"])
def test_losses_and_running_statistics_are_those_of_every_step(kind):
    net = net_of(kind)
    twin, x = copy.deepcopy(net), image()
    results = train(net, x.expand(5, *x.shape))
    right = train(twin, x.expand(5, *x.shape).contiguous())
    assert results[0] != results[2], "nothing is learned: this proves nothing"
    for ours, theirs in zip(results, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_only_one_step_is_seen_up_to_the_first_neuron():
    net, x = net_of("layers"), image()
    out = net[:3](x.expand(5, *x.shape))
    assert net[2].module.seen == 4
    assert out.stride(0) == 0
    assert net[3](out).stride(0) != 0
    net[:3](x.expand(5, *x.shape).contiguous())
    assert net[2].module.seen == 20


def watched(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


class Noisy(nn.Conv2d):
    """A class that nobody marked."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.fold_time(torch_nn.Sequential(Counts(), torch_nn.Dropout(0.5))),
        nn.fold_time(torch_nn.RReLU()),
        watched(nn.Conv2d(1, 2, 3)),
        nn.fold_time(watched(Counts())),
        Noisy(1, 2, 3),
        nn.fold_time(torch_nn.BatchNorm2d(1, momentum=None)).train(),
    ],
    ids=["dropout", "noise", "hook", "hook inside", "subclass", "norm"],
)
def test_what_may_differ_or_is_watched_sees_every_step(layer):
    x = image().float()
    out = layer(x.expand(5, *x.shape))
    is_once = isinstance(layer, nn.FoldTime) and isinstance(layer.module, torch_nn.BatchNorm2d)
    assert (out.stride(0) == 0) == is_once
    if is_once:  # its statistics count T
        right = torch_nn.BatchNorm2d(1, momentum=None)
        right(x.expand(5, *x.shape).flatten(0, 1))
        torch.testing.assert_close(layer.module.running_var, right.running_var)
        assert layer.module.num_batches_tracked == 1


def test_dropout_of_noise_differs_between_steps():
    torch.manual_seed(0)
    out = nn.fold_time(torch_nn.RReLU())(-torch.ones(1, 3, 7).expand(4, 3, 7))
    assert (out[0] != out[1]).any()


def test_a_gradient_of_each_step_is_one_of_each_step():
    conv, x = nn.Conv2d(1, 2, 3).double(), image()
    steps = x.expand(5, *x.shape).detach().requires_grad_()
    out = conv(steps)
    assert out.stride(0) != 0
    weights = torch.arange(5.0, dtype=torch.float64).reshape(-1, 1, 1, 1, 1)
    (grad,) = torch.autograd.grad((out * weights).sum(), steps)
    torch.testing.assert_close(grad[3], 3 * grad[1])
    inner = conv(x.expand(5, *x.shape))
    inner.retain_grad()
    nn.BatchNorm2d(2).double()(inner).square().sum().backward()
    assert inner.grad.shape == inner.shape


@pytest.mark.parametrize("case", ["one value for each channel", "plain norm, eval", "T = 1"])
def test_edges(case):
    if case == "T = 1":
        assert once.repeated_step(torch.ones(1, 2, 3).expand(1, 2, 3)) is None
        return
    norm = nn.BatchNorm1d(3)
    x = torch.tensor([[1.0, 2.0, 3.0]]).expand(4, 1, 3)
    if case == "plain norm, eval":
        torch.testing.assert_close(norm.eval()(x)[2], torch_nn.BatchNorm1d(3).eval()(x[0]))
        return
    out = norm(x)  # four equal values: torch's norm takes them, of one alone it would refuse the variance
    torch.testing.assert_close(out, torch.zeros_like(out))
