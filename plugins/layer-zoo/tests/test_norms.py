"""Norms over time against their definitions, written anew with means and variances."""

import pytest
import torch

import spikecore_layer_zoo as zoo
from spikecore import nn
from spikecore.errors import OptionError, ShapeError

SHAPES = {1: (4, 3, 5), 2: (4, 3, 5, 2, 2), 3: (4, 3, 5, 2, 2, 2)}


def normed(x, axes, eps=1e-5):
    mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_threshold_dependent(spatial):
    layer = getattr(zoo, f"ThresholdDependentBatchNorm{spatial}d")(0.5, 3.0, 5)
    x = torch.randn(SHAPES[spatial])
    axes = tuple(axis for axis in range(x.dim()) if axis != 2)
    torch.testing.assert_close(layer(x), 1.5 * normed(x, axes), rtol=1e-4, atol=1e-5)
    with pytest.raises(OptionError, match="affine=True"):
        getattr(zoo, f"ThresholdDependentBatchNorm{spatial}d")(0.5, 3.0, 5, affine=False)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_temporal_effective(spatial):
    layer = getattr(zoo, f"TemporalEffectiveBatchNorm{spatial}d")(4, 5)
    with torch.no_grad():
        layer.scale.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    x = torch.randn(SHAPES[spatial])
    axes = tuple(axis for axis in range(x.dim()) if axis != 2)
    wanted = normed(x, axes) * layer.scale.reshape(4, *[1] * (x.dim() - 1))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_through_time(spatial):
    layer = getattr(zoo, f"BatchNormThroughTime{spatial}d")(4, 5)
    x = torch.randn(SHAPES[spatial])
    axes = tuple(axis for axis in range(1, x.dim()) if axis != 2)
    torch.testing.assert_close(layer(x), normed(x, axes), rtol=1e-4, atol=1e-5)
    assert {name.rpartition(".")[2] for name, _ in layer.named_parameters()} == {"weight"}
    assert not torch.equal(layer.norms[0].running_mean, layer.norms[1].running_mean)


@pytest.mark.parametrize("cls", [zoo.TemporalEffectiveBatchNorm2d, zoo.BatchNormThroughTime2d])
def test_steps_are_counted(cls):
    layer = cls(4, 5).eval()
    x = torch.randn(SHAPES[2])
    layer(x)
    for step in range(4):
        layer_of = getattr(layer, "norms", [layer.norm] if hasattr(layer, "norm") else None)
        layer_of[min(step, len(layer_of) - 1)].running_mean.normal_()
    whole = layer(x)
    with nn.streaming(layer):
        assert torch.equal(torch.cat([layer(x[:1]), layer(x[1:])]), whole)
        with pytest.raises(ShapeError, match="num_steps=4, got 1 after 4: reset_state"):
            layer(x[:1])
        nn.reset_state(layer)
        layer(x[:1])
    nn.set_step_mode(layer, "single")
    torch.testing.assert_close(torch.stack([layer(step) for step in x]), whole)
    nn.set_step_mode(layer, "multi")
    for steps in (3, 5):
        with pytest.raises(ShapeError, match=f"num_steps=4, got {steps} after 0"):
            layer(torch.randn(steps, 3, 5, 2, 2))
    with pytest.raises(ShapeError, match="takes 5 axes"):
        layer(torch.randn(4, 3, 5))


@pytest.mark.parametrize("shared", [False, True])
def test_neunorm_follows_its_equation(shared):
    layer = zoo.NeuNorm(3, 2, 2, k=0.7, shared_across_channels=shared)
    assert layer.weight.shape == (1 if shared else 3, 2, 2)
    x = (torch.rand(5, 2, 3, 2, 2) < 0.5).float()
    a, wanted = torch.zeros(2, 1, 2, 2), []
    for step in x:
        a = 0.7 * a + 0.3 / 9 * (step[:, :1] + step[:, 1:2] + step[:, 2:])
        wanted.append(step - layer.weight * a)
    torch.testing.assert_close(layer(x), torch.stack(wanted))
    with nn.streaming(layer):
        torch.testing.assert_close(torch.cat([layer(x[:2]), layer(x[2:])]), torch.stack(wanted))
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    with pytest.raises(ShapeError, match="takes \\[T, B, 3, 2, 2\\]"):
        layer(torch.zeros(5, 2, 3, 2, 3))
    with pytest.raises(OptionError, match="k must be"):
        zoo.NeuNorm(3, 2, 2, k=1.5)


@pytest.mark.parametrize("kind", ["TemporalEffectiveBatchNorm", "BatchNormThroughTime"])
def test_a_step_of_other_channels_is_refused_and_not_counted(kind):
    layer = getattr(zoo, f"{kind}1d")(2, 5, step_mode="single")
    for _ in range(3):
        with pytest.raises(ShapeError, match="num_features=5 channels along axis 1"):
            layer(torch.zeros(3, 4))
    layer(torch.randn(3, 5)), layer(torch.randn(3, 5))
    with pytest.raises(ShapeError, match="num_features=5 channels along axis 2"):
        getattr(zoo, f"{kind}2d")(2, 5)(torch.zeros(2, 3, 4, 2, 2))
