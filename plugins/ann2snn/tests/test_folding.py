"""What is folded or written into a layer must reach the numbers: each net here silently lost something."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.nn.utils import spectral_norm as old_spectral_norm

from spikecore.errors import ConversionError
from spikecore_ann2snn import Ann2SNN, with_quantized_relus
from spikecore_ann2snn.quantize.converter import Quantize

from .nets import mean_output, settled

STEPS = 256
IMAGES = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.rand(16, 8, generator=torch.Generator().manual_seed(1))


def check(net, x, **options):
    """The converted net follows the given one to a few steps of rounding; returns the names of folded neurons."""
    net = settled(net)
    with torch.no_grad():
        right = net(x.clone())
    made, report = Ann2SNN(**{"recipe": "max", "T": (4,), "measure": 0, **options}).convert(net, x[:1], [x])
    with torch.no_grad():
        out = mean_output(made, x, STEPS)
    assert float((out - right).abs().max()) < 0.06 * float(right.abs().max())
    assert float(right.std()) > 0
    return [layer.name for layer in report.layers if "θ folded" in layer.reason]


@pytest.mark.parametrize(
    ("layers", "x", "is_folded"),
    [
        pytest.param([nn.Flatten(), nn.Linear(256, 5)], IMAGES, True, id="flat"),
        pytest.param([nn.Flatten(2), nn.Linear(64, 5)], IMAGES, False, id="linear over places"),
        pytest.param([nn.Linear(8, 5)], IMAGES, False, id="linear over the last axis"),
        pytest.param([nn.Flatten(2), nn.Conv1d(4, 5, 3)], IMAGES, True, id="convolution over flat places"),
        pytest.param([nn.Flatten(1, 2), nn.Conv1d(32, 5, 1)], IMAGES, False, id="channels and rows as one"),
        pytest.param([nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)], IMAGES, True, id="pool"),
    ],
)
def test_thresholds_of_channels_are_folded_where_channels_are_read(layers, x, is_folded):
    names = check(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *layers), x)
    assert names == (["1"] if is_folded else [])


def test_pooling_over_features_runs_across_thresholds():
    assert check(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.AvgPool1d(2), nn.Linear(4, 3)), ROWS) == []
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.AvgPool1d(2), nn.Linear(4, 3))
    assert check(net, ROWS, per="layer") == ["1"]


def pruned(layer):
    return prune.random_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize(
    "computed",
    [parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, old_spectral_norm, pruned],
    ids=["weight norm", "spectral norm", "weight norm by hooks", "spectral norm by hooks", "pruning"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_every_call_computes_are_plain_in_the_copy(computed):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8)
    norm.running_var.fill_(0.3)
    norm.running_mean.fill_(-0.2)
    net = nn.Sequential(computed(nn.Linear(8, 8)), norm, nn.ReLU(), computed(nn.Linear(8, 3))).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        right = net(ROWS)
    net(ROWS)  # the old hooks leave a weight with a graph, which torch does not copy
    made, report = Ann2SNN(recipe="max", T=(4,), measure=0).convert(net, ROWS[:1], [ROWS])
    assert "θ folded" in report.layers[2].reason
    assert {name for name, _ in made.named_parameters()} >= {"0.weight", "3.weight"}
    assert float((mean_output(made, ROWS, STEPS) - right).abs().max()) < 0.05 * float(right.abs().max())
    quantized, _ = Quantize(weight_bits=2).convert(net, ROWS[:1], [ROWS])
    assert max(len(row.unique()) for row in quantized.get_submodule("3").weight) <= 3
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_computes_weights_stays_where_a_net_is_trained_on():
    net = nn.Sequential(pruned(nn.Linear(8, 8)), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 3)))
    made = with_quantized_relus(net.train())
    names = {name for name, _ in made.named_parameters()}
    assert {"0.weight_orig", "2.parametrizations.weight.original0"} <= names
    made(ROWS).square().sum().backward()
    assert bool((made.get_submodule("0").weight_orig.grad == 0).any())


def test_a_norm_folded_into_a_layer_leaves_others_that_share_its_weight():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)
            self.b.weight, self.b.bias = self.a.weight, self.a.bias

        def forward(self, x):
            return self.b(F.relu(self.norm(self.a(x))))

    assert check(Tied(), ROWS) == ["relu"]


class Shortcut(nn.Module):
    """An in-place rectifier between two uses of one value."""

    def __init__(self, alias):
        super().__init__()
        self.a, self.b, self.alias, self.relu = nn.Linear(8, 8), nn.Linear(8, 8), alias, nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.a(x)
        kept = self.alias(h)
        return self.b(self.relu(h)) + kept


@pytest.mark.parametrize("alias", [nn.Identity(), nn.Dropout(), lambda h: F.dropout(h, 0.5, False)])
def test_a_shortcut_that_is_the_same_tensor_is_overwritten_too(alias):
    check(Shortcut(alias), ROWS)


@pytest.mark.parametrize("alias", [nn.Flatten(), lambda h: h.contiguous(), lambda h: h[:, :8]])
def test_a_view_that_is_overwritten_and_read_is_refused(alias):
    with pytest.raises(ConversionError, match=r"relu \(ReLU\).* writes into a view.*leave out the in-place"):
        Ann2SNN(T=(4,)).convert(Shortcut(alias).eval(), ROWS[:1], [ROWS])


def test_a_part_of_the_result_that_is_overwritten_is_refused():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            h = self.a(x)
            h[:, :4].relu_()
            return h

    with pytest.raises(ConversionError, match=r"relu_ \(.relu_\(\)\).*'a'"):
        Ann2SNN(T=(4,)).convert(Halves(), ROWS[:1], [ROWS])


def test_a_view_of_what_nobody_reads_later_may_be_overwritten():
    check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(144, 3)), IMAGES)
