"""layer-zoo beside spikingjelly: the same weights, the same input, the same output and gradients."""

import pytest

from tests.peers.compare import require

zoo = require("spikecore_layer_zoo")
require("spikingjelly")

import torch  # noqa: E402
from spikingjelly.activation_based import layer, rnn, surrogate  # noqa: E402

from spikecore import nn  # noqa: E402

T, B, C = 4, 3, 6


def copy_in_order(source, target):
    """Parameters by position; shapes must agree up to axes of size 1."""
    ours, theirs = list(target.parameters()), list(source.parameters())
    assert [p.numel() for p in ours] == [p.numel() for p in theirs]
    with torch.no_grad():
        for one, other in zip(ours, theirs, strict=True):
            one.copy_(other.reshape(one.shape))


def same(ours, theirs, x, tolerance=1e-5):
    a, b = (x.clone().requires_grad_() for _ in range(2))
    out, wanted = ours(a), theirs(b)
    torch.testing.assert_close(out, wanted, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=tolerance)


def multi(module):
    module.step_mode = "m"
    return module


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("spatial", [1, 2])
def test_norms(spatial):
    x = torch.randn(T, B, C, *[5] * spatial)
    pairs = [
        (f"ThresholdDependentBatchNorm{spatial}d", (0.7, 1.5, C)),
        (f"TemporalEffectiveBatchNorm{spatial}d", (T, C)),
        (f"BatchNormThroughTime{spatial}d", (T, C)),
    ]
    for name, args in pairs:
        theirs, ours = multi(getattr(layer, name)(*args)), getattr(zoo, name)(*args)
        if "Effective" in name:
            with torch.no_grad():
                theirs.scale.normal_()
                ours.scale.copy_(theirs.scale)
        same(ours, theirs, x, 1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_neunorm(shared):
    theirs = multi(layer.NeuNorm(C, 4, 5, k=0.8, shared_across_channels=shared))
    ours = zoo.NeuNorm(C, 4, 5, k=0.8, shared_across_channels=shared)
    copy_in_order(theirs, ours)
    same(ours, theirs, (torch.rand(T, B, C, 4, 5) < 0.4).float())


def test_what_acts_along_time():
    x = torch.rand(T, B, C)
    same(zoo.SynapseFilter(tau=7.0), multi(layer.SynapseFilter(tau=7.0)), x)
    same(zoo.Delay(2), multi(layer.Delay(2)), x)
    same(zoo.Voting(3), layer.VotingLayer(3), x[0])
    counts = torch.randint(0, 5, (T, B, C)).float()
    theirs = layer.SpikeCountToBinary(4).eval()(counts)
    assert torch.equal(zoo.SpikeCountToBinary(4).eval()(counts), theirs)
    assert torch.equal(zoo.TemporalSum(4).eval()(theirs), layer.TemporalBinSum(4).eval()(theirs))


def test_attention():
    x = torch.randn(T, B, C, 5, 5)
    theirs, ours = layer.TemporalWiseAttention(T, 2, 4), zoo.TemporalWiseAttention(T, 2)
    copy_in_order(theirs, ours)
    same(ours, theirs, x)
    theirs, ours = layer.MultiDimensionalAttention(T, C, 2, 3, 3), zoo.MultiDimensionalAttention(T, C, 2, 3, 3)
    copy_in_order(theirs, ours)
    same(ours, theirs, x)


@pytest.mark.parametrize("name", ["SpikingLSTM", "SpikingGRU", "SpikingVanillaRNN"])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_nets(name, layers):
    theirs = getattr(rnn, name)(C, 8, layers, surrogate_function1=surrogate.Erf()) if "Vanilla" not in name else (
        getattr(rnn, name)(C, 8, layers, surrogate_function=surrogate.Erf())
    )  # fmt: skip
    ours = getattr(zoo, name)(C, 8, layers, surrogate=nn.Erf())
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    copy_in_order(theirs, ours)
    same(ours, lambda x: theirs(x)[0], torch.randn(T, B, C))
