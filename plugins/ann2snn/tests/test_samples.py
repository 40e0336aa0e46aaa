"""Time is folded into the batch: calls along the batch, or with its size, are refused; others keep their numbers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikecore import nn as snn
from spikecore.errors import ConversionError
from spikecore_ann2snn import Ann2SNN
from spikecore_ann2snn.quantize import prepare_training
from spikecore_ann2snn.quantize.converter import Quantize

from .nets import mean_output

X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
CONVERTERS = {
    "ann2snn": lambda: Ann2SNN(recipe="temporal_difference", T=(4,)),
    "quantize": lambda: Quantize(weight_bits=16, activation_bits=16),
}


class Between(nn.Module):
    """A call between a rectifier `[B, 4]` and the output."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x).relu())


ALONG_THE_BATCH = {
    "shape": lambda h: h / h.shape[0],
    "size": lambda h: h * h.size(0),
    "size method": lambda h: h * h.size()[0],
    "numel": lambda h: h / h.numel(),
    "root of size": lambda h: h / h.shape[0] ** 0.5,
    "size of a later value": lambda h: h + h.unsqueeze(1).shape[0],
    "size in a tensor": lambda h: h * torch.full((h.shape[0], 1), 1 / h.shape[0]),
    "index": lambda h: h + torch.arange(h.shape[0]).unsqueeze(1),
    "slope": lambda h: F.leaky_relu(h - 0.3, 1 / h.shape[0]),
    "mean": lambda h: h - h.mean(0),
    "mean of all": lambda h: h - h.mean(),
    "sum by keyword": lambda h: h / h.sum(dim=0),
    "negative mean": lambda h: h - h.mean(-2, keepdim=True),
    "mean after a transpose": lambda h: h.transpose(0, 1).mean(1),
    "softmax": lambda h: F.softmax(h, dim=0),
    "softmax after a transpose": lambda h: h.transpose(0, 1).softmax(1).transpose(0, 1),
    "norm": lambda h: F.normalize(h, dim=0),
    "batch statistics": lambda h: F.batch_norm(h, None, None, training=True),
    "batch statistics by hand": lambda h: (h - h.mean(0)) / h.var(0),
    "cat": lambda h: torch.cat([h, h], dim=0),
    "negative cat": lambda h: torch.cat([h, h], dim=-2),
    "repeat": lambda h: h.repeat(2, 1),
    "first": lambda h: h - h[0],
    "slice": lambda h: h + h[:1],
    "last": lambda h: h + h[-1:],
    "flip": lambda h: h.flip(0),
    "negative flip": lambda h: h.flip(-2),
    "roll": lambda h: torch.roll(h, 1, 0),
    "chunk": lambda h: h.chunk(2, 0)[0],
    "unbind": lambda h: h.unbind(0)[0],
    "view": lambda h: h.view(2, -1),
    "products of samples": lambda h: h @ h.t(),
    "sum over samples": lambda h: torch.einsum("bi,bj->ij", h, h),
}


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("call", ALONG_THE_BATCH)
def test_calls_along_the_batch_are_refused_with_their_line(converter, call):
    with pytest.raises(ConversionError, match="runs along the batch, or computes with its size") as caught:
        CONVERTERS[converter]().convert(Between(ALONG_THE_BATCH[call]).eval(), X[:1], [X])
    message = str(caught.value)
    assert "test_samples.py:" in message
    assert f'"{call}": lambda h:' in message


BY_SAMPLE = {
    "reshape": lambda h: h.reshape(h.shape[0], 2, 2).flatten(1),
    "size of another axis": lambda h: h / h.shape[1],
    "size of the batch, cancelled": lambda h: h / (h.numel() / h.shape[0]),
    "there and back": lambda h: (h.view(-1, 2) * 3).view(h.shape[0], -1),
    "a constant for each": lambda h: torch.cat([h, torch.zeros(h.shape[0], 2)], 1),
    "all samples, by index": lambda h: h[torch.arange(h.shape[0]), 1:],
    "mean after a transpose": lambda h: h.transpose(0, 1).mean(0),
    "sum after moving": lambda h: h.movedim(0, 1).sum(0),
    "turned and back": lambda h: h.t().contiguous().t() * 2,
    "mean of a stack": lambda h: torch.stack([h, 2 * h]).mean(0),
    "squeeze": lambda h: h.unsqueeze(1).squeeze(1),
    "flip": lambda h: h.flip(1),
    "positions": lambda h: h + torch.linspace(0, 1, 4),
    "einsum": lambda h: torch.einsum("bi,ij->bj", h, torch.arange(16.0).reshape(4, 4)),
}


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("call", BY_SAMPLE)
def test_calls_by_sample_keep_their_numbers(converter, call):
    net = Between(BY_SAMPLE[call]).eval()
    made, _ = CONVERTERS[converter]().convert(net, X[:1], [X])
    for batch in (1, 2, 5):
        with torch.no_grad():
            right = net(X[:batch])
        assert right.abs().max() > 0.05
        for num_steps in (1, 2, 3, 4):
            torch.testing.assert_close(mean_output(made, X[:batch], num_steps), right, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("call", [lambda h: h.t(), lambda h: h.view(-1, 2)])
def test_an_output_without_the_batch_first_is_refused(call):
    """It might have as many rows as there are steps and samples, by chance."""
    for converter in CONVERTERS.values():
        with pytest.raises(ConversionError, match=r"first axis is not the batch"):
            converter().convert(Between(call).eval(), X[:1], [X])


@pytest.mark.parametrize("dead", [True, False])
def test_a_call_is_tried_whatever_comes_before_it(dead):
    """Behind a layer that never fires the mean over the batch changes nothing that the calibration data show."""
    net = Between(ALONG_THE_BATCH["mean"]).eval()
    if dead:
        with torch.no_grad():
            net.fc.bias.fill_(-100.0)
    with pytest.raises(ConversionError, match="runs along the batch"):
        Ann2SNN().convert(net, X[:1], [X])


def test_a_batch_size_that_is_written_down_is_refused():
    with pytest.raises(ConversionError, match=r"fails for another size of the batch(.|\n)*view"):
        Ann2SNN(recipe="temporal_difference").convert(Between(lambda h: h.view(7, 4)).eval(), X[:1].expand(7, 4))


def test_allowed_calls_stay():
    net = Between(ALONG_THE_BATCH["shape"]).eval()
    _, report = Ann2SNN(recipe="max", T=(4,), measure=0, allow=("truediv",)).convert(net, X[:1], [X])
    assert report.names("refused") == ["truediv"]


class Spiking(nn.Module):
    def __init__(self, is_right):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.neuron, self.last = nn.Linear(4, 8), snn.LIF(v_threshold=0.2), nn.Linear(8, 3)
        self.is_right = is_right

    def forward(self, x):
        y = self.last(self.neuron(self.fc(x).unsqueeze(1)).flatten(1))
        return y if self.is_right else y / x.shape[0]


def test_spiking_nets_are_tried_too():
    """Neurons treat samples one by one, by their contract; what stands between them is tried."""
    x = X.expand(3, *X.shape)
    with pytest.raises(ConversionError, match="runs along the batch"):
        Quantize().convert(Spiking(False).eval(), x, [x])
    with pytest.raises(ConversionError, match="runs along the batch"):
        prepare_training(Spiking(False), X)
    made, _ = Quantize(weight_bits=16).convert(Spiking(True).eval(), x, [x])
    right = Spiking(True).eval()
    snn.set_step_mode(right, "single")
    with torch.no_grad(), snn.streaming(right):
        steps = torch.stack([right(step) for step in x])
    torch.testing.assert_close(made(x), steps, atol=1e-3, rtol=1e-3)
    assert not torch.equal(steps[0], steps[1])
