"""Layers over time against spikingjelly's with the same weights: outputs, gradients, running statistics."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import GRADIENT_TOLERANCE, assert_near, require

theirs = require("spikingjelly.activation_based.layer")
sj_neuron = require("spikingjelly.activation_based.neuron")
sj_surrogate = require("spikingjelly.activation_based.surrogate")

T, B, C = 4, 3, 4
# name → (arguments, shape of one sample)
CASES = {
    **{f"Conv{n}d": ((C, 6, 3, 2, 1), (C, *[6] * n)) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": ((C, 6, 3, 2, 1), (C, *[4] * n)) for n in (1, 2, 3)},
    "Linear": ((5, 7), (5,)),
    **{f"BatchNorm{n}d": ((C,), (C, *[5] * n)) for n in (1, 2, 3)},
    "GroupNorm": ((2, C), (C, 5, 5)),
    **{f"MaxPool{n}d": ((2,), (C, *[6] * n)) for n in (1, 2, 3)},
    **{f"AvgPool{n}d": ((2,), (C, *[6] * n)) for n in (1, 2, 3)},
    **{f"AdaptiveAvgPool{n}d": ((2,), (C, *[5] * n)) for n in (1, 2, 3)},
    "Upsample": ((None, 2), (C, 4, 4)),
    "Flatten": ((), (C, 4, 4)),
}


def pair(name):
    torch.manual_seed(0)
    arguments, _ = CASES[name]
    ours = getattr(nn, name)(*arguments)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    other = getattr(theirs, name)(*arguments, step_mode="m")
    other.load_state_dict(ours.state_dict())
    return ours, other


def run(layer, x):
    x = x.clone().requires_grad_()
    out = layer(x)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    named = dict(layer.named_parameters())
    gradients = torch.autograd.grad((out * weight).sum(), [x, *named.values()])
    return out.detach(), dict(zip(["input", *named], gradients, strict=True))


def test_the_table_is_as_large_as_it_should_be():
    assert len(CASES) == 22


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_layer(name, training):
    ours, other = (layer.train(training) for layer in pair(name))
    x = torch.randn(T, B, *CASES[name][1])
    for _ in range(2):  # twice: the running statistics of the first call count in the second
        (out, gradients), (their_out, their_gradients) = run(ours, x), run(other, x)
        assert_near(out, their_out, 1e-6)
        assert gradients.keys() == their_gradients.keys()
        for key, gradient in gradients.items():
            if gradient.abs().max() == 0:  # the bias before a norm
                assert their_gradients[key].abs().max() == 0
            else:
                assert_near(gradient, their_gradients[key], GRADIENT_TOLERANCE)
    buffers = dict(other.named_buffers())
    for key, value in ours.named_buffers():
        torch.testing.assert_close(value, buffers[key])


@pytest.mark.parametrize(
    ("name", "arguments", "shape"), [("WSConv2d", (C, 6, 3), (C, 6, 6)), ("WSLinear", (5, 7), (5,))]
)
def test_standardised_weights(name, arguments, shape):
    """Theirs divides by the sample deviation, ours by that of the population: a factor that the gain takes up."""
    torch.manual_seed(0)
    ours = getattr(nn, name)(*arguments, eps=0.0)
    other = getattr(theirs, name)(*arguments, eps=0.0, step_mode="m")
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(ours.state_dict())
    fan_in = ours.weight[0].numel()
    other.gain.data *= (fan_in / (fan_in - 1)) ** 0.5
    x = torch.randn(T, B, *shape)
    (out, gradients), (their_out, their_gradients) = run(ours, x), run(other, x)
    assert_near(out, their_out, 1e-6)
    for key in ("input", "weight", "bias"):
        assert_near(gradients[key], their_gradients[key], GRADIENT_TOLERANCE)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling(n):
    x = torch.randn(T, B, C, *[4] * n)
    outs, indices = getattr(nn, f"MaxPool{n}d")(2, return_indices=True)(x)
    ours = getattr(nn, f"MaxUnpool{n}d")(2)(outs, indices)
    their = getattr(theirs, f"MaxUnpool{n}d")(2, step_mode="m")(outs, indices)
    assert torch.equal(ours, their)


@pytest.mark.parametrize(
    ("ours", "their", "shape"), [("Dropout", "Dropout", (50,)), ("Dropout2d", "Dropout2d", (50, 3, 3))]
)
def test_dropout_has_one_mask_for_the_sequence(ours, their, shape):
    x = torch.ones(T, 40, *shape)
    torch.manual_seed(0)
    for layer in (getattr(nn, ours)(0.3), getattr(theirs, their)(0.3, step_mode="m")):
        out = layer(x)
        assert (out == out[:1]).all()
        values, counts = out[0].unique(return_counts=True)
        torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.7]))
        units = 40 * 50  # of Dropout2d, whole channels
        share = counts[0].item() / out[0].numel()
        assert abs(share - 0.3) < 5 * (0.3 * 0.7 / units) ** 0.5
        if len(shape) == 3:
            assert (out == out[..., :1, :1]).all()
        assert torch.equal(layer.eval()(x), x)


def neurons():
    ours = nn.LIF(tau=2.5, v_threshold=0.6, surrogate=nn.ATan(alpha=3.0), backend="torch")
    node = sj_neuron.LIFNode(tau=2.5, v_threshold=0.6, surrogate_function=sj_surrogate.ATan(alpha=3.0))
    return ours, node


def test_the_elementwise_recurrent_container():
    own, node = neurons()
    x = torch.rand(8, B, 5) * 2
    out, gradients = run(nn.ElementwiseRecurrent(own, torch.add), x)
    their_out, their_gradients = run(theirs.ElementWiseRecurrentContainer(node, lambda a, b: a + b, step_mode="m"), x)
    assert 0.05 < out.mean() < 0.95
    assert torch.equal(out, their_out)
    assert_near(gradients["input"], their_gradients["input"], GRADIENT_TOLERANCE)


def test_the_linear_recurrent_container():
    own, node = neurons()
    torch.manual_seed(0)
    ours = nn.LinearRecurrent(torch.nn.Sequential(torch.nn.Linear(5, 6), own), 5, 6)
    other = theirs.LinearRecurrentContainer(torch.nn.Sequential(torch.nn.Linear(5, 6), node), 5, 6, step_mode="m")
    for source, target in zip(_weights(ours), _weights(other), strict=True):
        torch.nn.init.normal_(source, 0.3)
        target.data.copy_(source.data)
    x = torch.rand(8, B, 5) * 2
    (out, gradients), (their_out, their_gradients) = run(ours, x), run(other, x)
    assert 0.05 < out.mean() < 0.95
    assert torch.equal(out, their_out)
    assert_near(gradients["input"], their_gradients["input"], GRADIENT_TOLERANCE)


def _weights(container):
    """Parameters by shape: the containers name them differently."""
    return sorted(container.parameters(), key=lambda parameter: tuple(parameter.shape))
