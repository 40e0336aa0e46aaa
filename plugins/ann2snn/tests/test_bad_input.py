"""What must be refused, or survived: each message names the place and the cure."""

import gc
import io
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikecore import nn as snn
from spikecore.errors import ConversionError, NetTraceError, OptionError
from spikecore_ann2snn import Ann2SNN, SpikingReLU
from spikecore_ann2snn.quantize.converter import Quantize

from .nets import Everything, mean_output, settled


def chain():
    return settled(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))


X = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))


def test_no_data():
    with pytest.raises(ConversionError, match="calibration batches are missing"):
        Ann2SNN().convert(chain(), X[:1], [])
    assert not Ann2SNN(recipe="temporal_difference").capabilities.needs_calibration
    assert Ann2SNN().capabilities.needs_calibration


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.rand(4, 5), r"batch 1 is \(4, 5\), expected \[B, 4\]"),
        (torch.randint(0, 255, (4, 4), dtype=torch.uint8), "batch 1 is torch.uint8"),
        (torch.full((4, 4), float("nan")), "batch 1 holds NaN"),
    ],
)
def test_data_of_another_form(batch, message):
    with pytest.raises(ConversionError, match=message):
        Ann2SNN().convert(chain(), X[:1], [X, batch])


def test_batches_stream_by():
    """None is kept while the next one is read: memory is that of one batch, but for the copy of the first."""
    alive = []

    def batches():
        for index in range(6):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 1, f"before batch {index}"
            batch = X + 0.01 * index
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    for recipe in ("max", "percentile", "threshold_balancing"):
        alive.clear()
        Ann2SNN(recipe=recipe).convert(chain(), X[:1], batches())
        assert len(alive) == 6


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_progress_bar_is_shown_to_whoever_sits_there(monkeypatch, is_terminal):
    class Screen(io.StringIO):
        def isatty(self):
            return is_terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    Ann2SNN(measure=0).convert(chain(), X[:1], [X, X])
    assert ("calibration" in screen.getvalue()) is is_terminal


def test_a_spiking_net_is_called_so_whatever_form_its_data_have():
    """The net of a run takes sequences [T, B, ...], and so has no batches of the form that this converter wants."""
    net = nn.Sequential(nn.Linear(4, 8), snn.LIF(), nn.Linear(8, 3))
    steps = X.expand(3, 16, 4)
    with pytest.raises(ConversionError, match=r"1 of 3 calls cannot(.|\n)*1 \(LIF\).*spiking layer already.*name=relu"):
        Ann2SNN().convert(net, steps[:, :1], [steps])


def test_data_of_another_range_are_noticed_where_a_norm_knows_better():
    net = settled(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)))
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = net[0](x)
        net[1].running_mean.copy_(y.mean((0, 2, 3)))
        net[1].running_var.copy_(y.var((0, 2, 3)))
    Ann2SNN().convert(net, x[:1], [x])
    with pytest.raises(
        ConversionError, match=r"(?s)1 \(BatchNorm2d\).*not like those that the net has been trained on"
    ):
        Ann2SNN().convert(net, x[:1], [x * 255])


def test_a_layer_that_never_fires_is_named_and_has_a_sane_threshold():
    net = chain()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    for recipe in ("max", "percentile", "threshold_balancing"):
        made, report = Ann2SNN(recipe=recipe, per="layer", fold=False).convert(net, X[:1], [X])
        assert "never fires for the calibration data" in report.layers[1].reason
        assert report.layers[1].threshold == 1.0
        assert mean_output(made, X, 8).isfinite().all()
    with torch.no_grad():
        net[0].bias.fill_(0.0)
        net[0].bias[3] = -100.0
    _, report = Ann2SNN(recipe="max").convert(net, X[:1], [X])
    assert "of 8 channels never fire" in report.layers[1].reason
    assert report.layers[1].threshold[3] == max(report.layers[1].threshold)


def test_control_flow_shows_the_line():
    class Branching(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(NetTraceError, match=r"(?s)test_bad_input.py.*if x.sum\(\) > 0"):
        Ann2SNN().convert(Branching(), X[:1], [X])


def test_every_refused_call_is_named_at_once():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return torch.sort(torch.cos(self.fc(x).relu()), -1).values

    with pytest.raises(ConversionError) as caught:
        Ann2SNN().convert(Strange(), X[:1], [X])
    message = str(caught.value)
    for name in ("cos (cos)", "sort (sort)", "test_bad_input.py", "allow="):
        assert name in message
    _, report = Ann2SNN(allow=("cos", "sort", "values")).convert(Strange(), X[:1], [X])
    assert report.names("refused") == ["cos", "sort", "values"]
    assert all("by the option allow" in layer.reason for layer in report.layers if layer.outcome == "refused")
    with pytest.raises(ConversionError, match="allow names nothing"):
        Ann2SNN(allow=("nothing",)).convert(chain(), X[:1], [X])


def test_a_softmax_is_refused_by_recipes_of_rates_alone():
    net = nn.Sequential(*chain(), nn.Softmax(-1))
    with pytest.raises(ConversionError, match=r"3 \(Softmax\).*temporal_difference"):
        Ann2SNN().convert(net, X[:1], [X])


def test_one_module_called_twice_is_two_neurons():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.relu, self.bn = nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.bn(self.fc(self.relu(self.bn(self.fc(self.relu(self.fc(x)))))))

    net = settled(Shared())
    made, report = Ann2SNN(recipe="max").convert(net, X[:1], [X])
    neurons = [part for part in made.modules() if isinstance(part, SpikingReLU)]
    assert len(neurons) == 2
    assert not torch.equal(neurons[0].threshold, neurons[1].threshold)
    assert not any("folded into fc" in layer.reason for layer in report.layers)
    with torch.no_grad():
        torch.testing.assert_close(mean_output(made, X, 512), net(X), atol=0.03, rtol=0)


def test_a_net_in_training_mode_is_converted_as_in_evaluation():
    net, x = settled(Everything()), torch.rand(16, 1, 8, 8)
    right, _ = Ann2SNN().convert(net, x[:1], [x])
    made, _ = Ann2SNN().convert(net.train(), x[:1], [x])
    assert net.training
    torch.testing.assert_close(mean_output(made, x, 4), mean_output(right, x, 4))


def test_half_precision():
    with pytest.raises(ConversionError, match=r"0.weight is of half precision.*net.float\(\)"):
        Ann2SNN().convert(chain().half(), X[:1], [X])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_inputs_of_another_type_than_the_weights(dtype):
    x = (X * 255).to(dtype)
    cure = "divided by 255" if not dtype.is_floating_point else "as for training"
    with pytest.raises(ConversionError, match=rf"inputs are {dtype}, the weights torch.float32: .*{cure}"):
        Ann2SNN().convert(chain(), x[:1], [x])


def test_a_spiking_net_is_no_ann():
    with pytest.raises(ConversionError, match=r"1 \(LIF\).*spiking layer already"):
        Ann2SNN().convert(nn.Sequential(nn.Linear(4, 4), snn.LIF()), X[:1], [X])


def test_recipes_and_activations_that_do_not_belong_together():
    from spikecore_ann2snn import with_quantized_relus

    with pytest.raises(ConversionError, match="trained with QCFS"):
        Ann2SNN(recipe="qcfs").convert(chain(), X[:1], [X])
    with pytest.raises(ConversionError, match="would ignore its levels"):
        Ann2SNN(recipe="max").convert(with_quantized_relus(chain()), X[:1], [X])
    with pytest.raises(OptionError, match="T"):
        Ann2SNN(T=())
    with pytest.raises(OptionError, match=r"'T' must be a list, got 32; write \[32\]"):
        Ann2SNN(T=32)


def test_what_mixes_samples_is_refused():
    class Mixing(nn.Module):
        def forward(self, x):
            return F.relu(x) - x.mean(0)

    with pytest.raises(ConversionError, match=r"mean \(.mean\(\)\)"):
        Ann2SNN().convert(Mixing(), X[:1], [X])


class Between(nn.Module):
    """A call between a rectifier and the output."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.fc(x).relu())


@pytest.mark.parametrize(
    "function",
    [
        lambda h: F.softmax(h, 0),
        lambda h: F.softmax(h, dim=-2),
        lambda h: h - h.amax(0, keepdim=True),
        lambda h: h - h.mean(-2, True),
        lambda h: h.flip(0),
        lambda h: torch.roll(h, 1),
        lambda h: torch.cat([h, h]),
        nn.Softmax(0),
    ],
)
def test_calls_along_the_batch_are_refused(function):
    """Time lies along it in the new net, also where the shape does not change."""
    with pytest.raises(ConversionError, match="runs along the batch"):
        Ann2SNN(recipe="temporal_difference").convert(Between(function), X[:1])


@pytest.mark.parametrize("function", [lambda h: F.softmax(h, 1), lambda h: h.flip(1), lambda h: h.amax(1, True)])
def test_calls_along_other_axes_are_not(function):
    net = Between(function)
    made, _ = Ann2SNN(recipe="temporal_difference", T=(3,)).convert(net, X[:1])
    torch.testing.assert_close(mean_output(made, X, 3), net(X))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda h: torch.div(h, 0.3, rounding_mode="floor"), "with these arguments"),
        (lambda h: h.div(0.3, rounding_mode="trunc"), "with these arguments"),
        (lambda h: (h * 5).to(torch.int64), "with these arguments"),
        (lambda h: torch.mul(h, other=h), "not linear"),
        (lambda h: torch.div(torch.ones(4), other=h + 1), "not linear"),
        (lambda h: torch.einsum("bi,bj->bij", [h, h]), "not linear"),
        (lambda h: F.linear(h, h[:, :4]), "not linear"),
    ],
)
def test_what_is_not_linear_is_not_kept_as_if_it_were(function, reason):
    with pytest.raises(ConversionError, match=reason):
        Ann2SNN(recipe="max").convert(Between(function), X[:4], [X])


@pytest.mark.parametrize("recipe", ["max", "percentile", "threshold_balancing"])
@pytest.mark.parametrize("batches", [[X, X[:0]], [X[:0], X]])
def test_an_empty_batch_adds_nothing(recipe, batches):
    right = Ann2SNN(recipe=recipe).convert(chain(), X[:1], [X])[1].layers[1].threshold
    assert Ann2SNN(recipe=recipe).convert(chain(), X[:1], batches)[1].layers[1].threshold == right
    with pytest.raises(ConversionError, match="calibration batches are missing"):
        Ann2SNN(recipe=recipe).convert(chain(), X[:1], [X[:0]])


@pytest.mark.parametrize("converter", [Ann2SNN(recipe="max"), Ann2SNN(recipe="percentile"), Ann2SNN(), Quantize()])
def test_numbers_that_are_none(converter):
    net = chain()
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="0.weight holds NaN"):
        converter.convert(net, X[:1], [X])
    with torch.no_grad():
        net[0].weight.fill_(2e38)
    with pytest.raises(ConversionError, match=r"1 \(ReLU\).* gives NaN or infinity"):
        converter.convert(net, X[:1], [X])


@pytest.mark.parametrize("layers", [[nn.Linear(4, 4)], []])
def test_a_norm_without_statistics(layers):
    net = nn.Sequential(*layers, nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU())
    with pytest.raises(ConversionError, match="track_running_stats=False"):
        Ann2SNN().convert(net, X[:1], [X])


def test_tokens_whose_batch_is_not_first_are_refused():
    net = nn.MultiheadAttention(8, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = net

        def forward(self, x):
            return self.attention(x, x, x)[0]

    with pytest.raises(ConversionError, match="batch_first=True"):
        Ann2SNN(recipe="temporal_difference").convert(Net(), torch.rand(2, 5, 8))

    class Turned(nn.Module):
        def forward(self, x):
            return x.transpose(0, 1).softmax(-1).transpose(0, 1)

    with pytest.raises(ConversionError, match="not the first axis"):
        Ann2SNN(recipe="temporal_difference").convert(Turned(), torch.rand(2, 5, 8))
