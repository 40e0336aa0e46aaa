"""SynOps, sparsities and footprint against the neurobench package, on its own wrapper of snntorch nets.

The same weights are in a net of snntorch's Leaky, which neurobench measures, and in one of ours with `leaky`.
"""

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.analysis import count_operations
from tests.peers.compare import require

snntorch = require("snntorch")
require("neurobench")
metrics = require("neurobench.metrics.workload")
static = [require(f"neurobench.metrics.static.{name}") for name in ("connection_sparsity", "footprint")]
models = require("neurobench.models")

BETA, THRESHOLD = 0.9, 0.6


def layers(channels):
    """Convolutions with stride, padding and groups, a pool and a linear layer; some weights are 0."""
    torch.manual_seed(0)
    convs = [
        torch_nn.Conv2d(2, channels, 3, stride=2, padding=1),
        torch_nn.Conv2d(channels, 6, 3, padding=(0, 2), groups=2, bias=False),
    ]
    linear = torch_nn.Linear(6 * 2 * 6, 5)
    for layer in (*convs, linear):
        with torch.no_grad():
            layer.weight *= 3 * (torch.rand(layer.weight.shape) < 0.7)
    return [*convs, linear]


def theirs(parts):
    def neuron(**options):
        return snntorch.Leaky(beta=BETA, threshold=THRESHOLD, init_hidden=True, **options)

    first, second, last = parts
    return torch_nn.Sequential(first, neuron(), second, neuron(), torch_nn.Flatten(), last, neuron(output=True))


def ours(parts):
    def neuron():
        return nn.Leaky(beta=BETA, v_threshold=THRESHOLD)

    first, second, last = parts
    flat = torch_nn.Flatten(2)
    return torch_nn.Sequential(nn.fold_time(first), neuron(), nn.fold_time(second), neuron(), flat, last, neuron())


def measured(net, x):
    """What neurobench says of x `[B, T, ...]`."""
    model = models.SNNTorchModel(net)
    model.register_hooks()
    with torch.no_grad():
        spikes = model(x)
    synops = metrics.SynapticOperations()(model, spikes, (x, None))
    sparsity = metrics.ActivationSparsity()(model, spikes, (x, None))
    return synops, sparsity, static[0].ConnectionSparsity()(model), static[1].Footprint()(model)


@pytest.mark.parametrize("scale", [1.0, 0.7], ids=["spikes", "analog"])
def test_neurobench(scale):
    x = (torch.rand(3, 5, 2, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float() * scale
    parts = layers(4)
    synops, activation, connection, _ = measured(theirs(parts), x)
    operations = count_operations(ours(parts), x.transpose(0, 1))
    assert all(0.03 < layer.rate < 0.97 for layer in operations.layers if layer.spikes is not None)
    assert operations.total("acs") == pytest.approx(synops["Effective_ACs"], abs=1e-9)
    assert operations.total("effective_macs") == pytest.approx(synops["Effective_MACs"], abs=1e-9)
    assert operations.total("dense") == pytest.approx(synops["Dense"], abs=1e-9)
    assert (synops["Effective_MACs"] > 0) == (scale != 1.0)
    assert operations.activation_sparsity == pytest.approx(activation, abs=1e-12)
    assert round(operations.connection_sparsity, 4) == connection
    assert connection > 0.2


def test_footprint_is_that_of_the_same_tensors():
    """snntorch keeps thresholds and decays as buffers, and ours are options: so the very net is measured."""
    net = ours(layers(4))
    model = models.TorchModel(net)
    assert count_operations(net, torch.ones(1, 1, 2, 8, 8)).footprint == static[1].Footprint()(model) > 0
