"""Quantizers against their formulas, gradients, integer arithmetic bit by bit with numpy, training."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikecore import nn as snn
from spikecore.errors import ConversionError, OptionError
from spikecore.nn import quantized, set_step_mode
from spikecore_ann2snn.quantize import (
    FixedPoint,
    FixedPointLIF,
    LearnedStep,
    MinMax,
    finish_training,
    integer_scale,
    prepare_training,
    straight_through,
    to_integers,
)
from spikecore_ann2snn.quantize.converter import Quantize

from .nets import Everything, settled


def numbers(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (straight_through.round, np.round),
        (straight_through.ceil, np.ceil),
        (straight_through.floor, np.floor),
        (lambda x: straight_through.step(x, 0.3), lambda x: np.round(x / 0.3) * 0.3),
        (lambda x: straight_through.k_bit(x, 3), lambda x: np.round(x * 7) / 7),
    ],
)
def test_straight_through_values_and_gradients(function, reference):
    x = numbers(200, scale=3.0).requires_grad_()
    out = function(x)
    np.testing.assert_array_equal(out.detach().numpy(), reference(x.detach().numpy()))
    weight = numbers(200, seed=1)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.equal(gradient, weight)


def test_clamp_affine_and_unit_range():
    x = torch.tensor([-2.0, -0.5, 0.3, 1.7], requires_grad=True)
    (gradient,) = torch.autograd.grad(straight_through.clamp(x, -1.0, 1.0).sum(), x)
    assert gradient.tolist() == [0, 1, 1, 0]
    weight, bias = torch.tensor(2.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    values = torch.tensor([0.1, 0.6, 0.9])
    straight_through.affine_k_bit(values, 2, weight, bias).sum().backward()
    assert float(weight.grad) == pytest.approx(float((values * 3).round().sum() / 3))
    assert float(bias.grad) == 3
    ranged = straight_through.unit_range(x)
    assert float(ranged.min()) == 0
    assert float(ranged.max()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="low 1"):
        straight_through.clamp(x, 1.0, -1.0)
    with pytest.raises(ValueError, match="got 0"):
        straight_through.k_bit(x, 0)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_learned_step_has_the_gradients_of_the_paper(axis):
    x = numbers(3, 4, 5, scale=2.0).requires_grad_()
    quantizer = LearnedStep(x, bits=3, axis=axis).double()
    with torch.no_grad():
        quantizer.step_size.copy_(torch.linspace(0.3, 0.6, quantizer.step_size.numel()).reshape_as(quantizer.step_size))
    weight = numbers(3, 4, 5, seed=1)
    out = quantizer(x)
    (to_x, to_s) = torch.autograd.grad((out * weight).sum(), (x, quantizer.step_size))
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    s = quantizer.step_size.detach().reshape(shape)
    ratio = x.detach() / s
    torch.testing.assert_close(out.detach(), ratio.clamp(-4, 3).round() * s)
    inside = (ratio >= -4) & (ratio <= 3)
    assert inside.any()
    assert not inside.all()
    torch.testing.assert_close(to_x, weight * inside)
    per_value = torch.where(inside, ratio.round() - ratio, ratio.clamp(-4, 3)) * weight
    factor = 1 / (x.numel() / quantizer.step_size.numel() * 3) ** 0.5
    dims = [place for place in range(3) if place != axis]
    wanted = per_value.sum() if axis is None else per_value.sum(dims)
    torch.testing.assert_close(to_s, (wanted * factor).reshape_as(to_s))


def test_min_max_and_fixed_point():
    x = numbers(4, 6)
    out = MinMax(bits=5, axis=0)(x)
    scale = x.abs().amax(1, keepdim=True) / 15
    torch.testing.assert_close(out, (x / scale).round() * scale)
    fixed = FixedPoint(bits=8, fraction=5)(numbers(500, scale=4.0))
    assert torch.equal(fixed * 32, (fixed * 32).round())
    assert float(fixed.max()) == 127 / 32
    assert float(fixed.min()) == -4
    with pytest.raises(OptionError, match="bits must be 2 to 32"):
        MinMax(bits=1)


@pytest.mark.parametrize("axis", [None, 0])
def test_quantizers_round_as_torchs_fake_quantization(axis):
    """torch's operators as the reference: values, and gradients to the input."""
    x = numbers(6, 40, scale=2.0).float().requires_grad_()
    steps = torch.linspace(0.2, 0.5, 6) if axis == 0 else torch.tensor(0.3)
    learned = LearnedStep(x.detach(), bits=4, axis=axis)
    with torch.no_grad():
        learned.step_size.copy_(steps.reshape_as(learned.step_size))
    if axis is None:
        wanted = torch.fake_quantize_per_tensor_affine(x, 0.3, 0, -8, 7)
    else:
        wanted = torch.fake_quantize_per_channel_affine(x, steps, torch.zeros(6), 0, -8, 7)
    out = learned(x)
    torch.testing.assert_close(out, wanted)
    weight = numbers(6, 40, seed=1).float()
    (ours,) = torch.autograd.grad((out * weight).sum(), x)
    (right,) = torch.autograd.grad((wanted * weight).sum(), x)
    # The paper cuts the gradient where the ratio leaves -8 .. 7, torch where its rounded value does.
    ratio = x.detach() / (steps.reshape(-1, 1) if axis == 0 else steps)
    outside = (ratio - ratio.clamp(-8, 7)).abs()
    is_same = (outside == 0) | (outside > 0.5)
    torch.testing.assert_close(ours[is_same], right[is_same])
    assert is_same.float().mean() > 0.9
    assert 0 < int((ours[is_same] == 0).sum()) < x.numel() / 2
    largest = x.detach().abs().amax(1) if axis == 0 else x.detach().abs().max()
    if axis is None:
        wanted = torch.fake_quantize_per_tensor_affine(x.detach(), float(largest / 15), 0, -15, 15)
    else:
        wanted = torch.fake_quantize_per_channel_affine(x.detach(), largest / 15, torch.zeros(6), 0, -15, 15)
    torch.testing.assert_close(MinMax(bits=5, axis=axis)(x.detach()), wanted)


def test_the_scale_of_least_error_is_not_worse_than_the_largest_magnitude():
    weight = numbers(8, 200) ** 3
    errors = []
    for method in ("max", "mse"):
        scale = integer_scale(weight, 4, 0, method)
        values = to_integers(weight, scale, 4, 0)
        assert values.dtype == torch.int8
        errors.append((values.double() * scale.unsqueeze(1) - weight).square().sum(1))
    assert (errors[1] <= errors[0]).all()
    assert (errors[1] < 0.8 * errors[0]).any()


def integer_lif(x, scale, decay, threshold, reset, bits, v_reset=0):
    """FixedPointLIF in numpy's int64: an arithmetic shift, saturation."""
    v, spikes = np.zeros(x.shape[1:], np.int64), []
    for current in np.rint(x / scale).astype(np.int64):
        h = np.clip(((v * decay) >> 12) + current, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        s = h >= threshold
        v = np.where(s, v_reset if reset == "hard" else h - threshold, h)
        spikes.append(s)
    return np.array(spikes), v


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(("bits", "scale"), [(24, 2.0**-14), (10, 2.0**-6)])
def test_fixed_point_neurons_are_integer_arithmetic_bit_by_bit(reset, bits, scale):
    x = numbers(60, 4, 50).float() + 0.2
    x[::7] *= 20  # saturates
    neuron = FixedPointLIF(
        scale=scale, decay=3777.0, v_threshold=1.5 / scale, reset=reset, v_reset=-3.0, state_bits=bits, record=("v",)
    )
    out = neuron(x)
    spikes, v = integer_lif(x.numpy(), scale, 3777, int(1.5 / scale), reset, bits, -3)
    np.testing.assert_array_equal(out.numpy().astype(bool), spikes)
    np.testing.assert_array_equal(neuron.recorded["v"][-1].numpy().astype(np.int64), v)
    assert 0.05 < spikes.mean() < 0.95


def spiking_net():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        snn.LIF(tau=3.0, decay_input=False, v_threshold=0.8, reset="soft"),
        nn.Flatten(),
        nn.Linear(4 * 25, 12),
        snn.IF(v_threshold=1.2),
        nn.Linear(12, 3),
    )
    settled(net)
    set_step_mode(net, "single")
    return net


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_a_spiking_net_in_integers_is_numpy_bit_by_bit(per):
    """Convolution, fixed-point LIF, linear layer, fixed-point IF, linear layer: integers from the records alone."""
    x = (torch.rand(30, 2, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    made, report = Quantize(neurons="fixed_point", per=per, state_bits=20).convert(spiking_net(), x[0], [x[0]])
    out = made(x)
    records = quantized.records(made)
    conv, lif, first, if_, last = (records[name] for name in ("0", "2", "4", "5", "6"))

    def shaped(value, rank):
        value = value.numpy().astype(np.int64)
        return value.reshape(-1, *([1] * (rank - 1))) if value.ndim else value

    def neuron(currents, record, reset):
        v, spikes = np.zeros(currents.shape[1:], np.int64), []
        rank = currents.ndim - 2
        threshold, decay = shaped(record.threshold, rank), int(record.decays["v"])
        for current in currents:
            h = np.clip(((v * decay) >> 12) + current, -(2**19), 2**19 - 1)
            s = h >= threshold
            v = np.where(s, 0 if reset == "hard" else h - threshold, h)
            spikes.append(s)
        return np.array(spikes).astype(np.int64)

    def add(record, sums, rank):
        return sums + (0 if record.bias is None else shaped(record.bias, rank))

    weight = conv.values.numpy().astype(np.int64)
    padded = np.pad(x.numpy().astype(np.int64), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(3, 4))
    sums = np.einsum("tbihwkl,oikl->tbohw", windows, weight)
    spikes = neuron(add(conv, sums, 3), lif, "soft").reshape(30, 2, -1)
    hidden = neuron(add(first, spikes @ first.values.numpy().astype(np.int64).T, 1), if_, "hard")
    scores = add(last, hidden @ last.values.numpy().astype(np.int64).T, 1) * last.scale.numpy()
    assert 0.05 < spikes.mean() < 0.9
    assert 0.05 < hidden.mean() < 0.9
    np.testing.assert_allclose(out.detach().numpy(), scores, rtol=1e-5, atol=1e-6)
    _, _, kinds = zip(*[(0, 0, type(part)) for part in made.modules()], strict=True)
    assert kinds.count(FixedPointLIF) == 2
    assert {layer.outcome for layer in report.layers if layer.name in ("0", "1", "2", "4", "5", "6")} == {"became"}


@pytest.mark.parametrize(
    "neuron",
    [
        lambda: snn.LIF(),
        lambda: snn.LIF(tau=5.0, reset="soft", v_threshold=0.4),
        lambda: snn.LIF(tau=3.0, v_init=0.75),
        lambda: snn.IF(reset="soft", v_init=0.5),
        lambda: snn.IF(v_reset=-0.5),
        lambda: snn.LIF(fires="above", decay_input=False, v_init=-0.5),
    ],
)
def test_fixed_point_neurons_fire_as_the_float_ones(neuron):
    """With 16 bits for weights integers are fine enough for nearly every spike to stay where it was."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), neuron())
    with torch.no_grad():
        net[0].weight.mul_(6)
    x = (torch.rand(12, 16, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    made, _ = Quantize(weight_bits=16, neurons="fixed_point").convert(net, x[:, :1], [x])
    right, out = net(x), made(x)
    assert isinstance(made.get_submodule("1"), FixedPointLIF)
    assert 0.05 < float(right.mean()) < 0.9
    assert float((out != right).double().mean()) < 0.01


def test_records_of_float_neurons_say_what_they_are():
    x = torch.rand(6, 2, 2, 5, 5)
    made, _ = Quantize(per="layer", weight_bits=6).convert(spiking_net(), x[0], [x[0]])
    records = quantized.records(made)
    assert int(records["0"].values.abs().max()) == 31
    assert int(records["2"].threshold) == round(0.8 / float(records["0"].scale))
    assert int(records["2"].decays["v"]) == round(2 / 3 * 4096)
    assert int(records["5"].decays["v"]) == 4096
    torch.testing.assert_close(made.get_submodule("0").weight.detach(), records["0"].dequantize())


def test_an_ann_computes_on_its_integer_grid():
    net, x = settled(Everything()), torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    made, report = Quantize(weight_bits=8, activation_bits=8).convert(net, x[:1], x.split(16))
    with torch.no_grad():
        right, out = net(x), made(x.unsqueeze(0))[0]
        coarse = Quantize(weight_bits=3, activation_bits=3).convert(net, x[:1], x.split(16))[0](x.unsqueeze(0))[0]
    errors = [float((value - right).norm() / (right - right.mean(0)).norm()) for value in (out, coarse)]
    assert errors[0] < 0.1
    assert errors[1] > 5 * errors[0]
    record = quantized.read(made.get_submodule("fc2"))
    assert record.input_scale == pytest.approx(float(made.get_submodule("relu_").threshold()) / 255)
    assert sum(layer.threshold is not None for layer in report.layers) == 5


@pytest.mark.parametrize("quantizer", ["learned", "max"])
def test_training_with_quantized_weights(quantizer):
    net = spiking_net().train()
    x = (torch.rand(8, 24, 2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    target = (x.mean((0, 2, 3, 4)) * 40).long() % 3
    made = prepare_training(net, x[0], bits=4, quantizer=quantizer)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in made.modules())
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(made(x).mean(0), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    before = made.eval()(x)
    names = finish_training(made)
    assert names == ["0", "4", "6"]
    record = quantized.read(made.get_submodule("4"))
    assert record.bits == 4
    assert -8 <= int(record.values.min()) <= -5
    assert 5 <= int(record.values.max()) <= 7
    assert len(record.values.unique()) > 4
    torch.testing.assert_close(made.get_submodule("4").weight.detach(), record.dequantize())
    # What was trained is what the integers stand for, but for rounding in the last place.
    assert float(((made(x) - before).abs() < 1e-5).double().mean()) > 0.99
    with pytest.raises(ConversionError, match="prepare_training"):
        finish_training(made)


def test_a_layer_with_inputs_of_two_units_has_none():
    layer = nn.Linear(8, 8)
    net, x = settled(nn.Sequential(nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 2))), torch.rand(32, 8)
    made, _ = Quantize().convert(net, x[:1], [x])
    assert quantized.read(made.get_submodule("1")).input_scale == 1.0
    assert quantized.read(made.get_submodule("5")).input_scale == pytest.approx(
        float(made.get_submodule("4").threshold()) / 255
    )


def test_choices_that_do_not_exist():
    for options in ({"per": "row"}, {"quantizer": "mean"}):
        with pytest.raises(OptionError, match="must be"):
            prepare_training(nn.Linear(4, 3), torch.rand(2, 4), **options)
    for size in (0.0, -1.0, float("nan"), torch.tensor([0.5, 0.0])):
        with pytest.raises(ValueError, match="above 0"):
            straight_through.step(torch.ones(2), size)


def test_numbers_that_do_not_fit_are_refused():
    net = nn.Sequential(nn.Linear(4, 3), snn.IF(v_threshold=500.0))
    set_step_mode(settled(net), "single")
    with pytest.raises(ConversionError, match=r"threshold is .* units .* more than 8 bits hold"):
        Quantize(state_bits=8).convert(net, torch.rand(2, 4), [torch.rand(2, 4)])
    with pytest.raises(OptionError, match="decay_bits"):
        Quantize(neurons="fixed_point", decay_bits=10)
    net = nn.Sequential(nn.Linear(4, 3), snn.CubaLIF())
    set_step_mode(net, "single")
    with pytest.raises(ConversionError, match=r"1 \(CubaLIF\) has no form in integers"):
        Quantize(neurons="fixed_point").convert(net, torch.rand(2, 4), [torch.rand(2, 4)])
