"""Layers that fold time under `torch.compile(dynamic=True)`: one graph for all T and B."""

import torch
from torch import nn

from spikecore.nn import layers


def test_a_new_length_or_batch_needs_no_new_graph():
    graphs = []

    def count(module, example_inputs):
        graphs.append(module)
        return module.forward

    net = nn.Sequential(layers.Linear(11, 5), layers.BatchNorm1d(5), layers.Linear(5, 2)).eval()
    torch._dynamo.reset()
    run = torch.compile(net, fullgraph=True, dynamic=True, backend=count)
    generator = torch.Generator().manual_seed(0)
    for steps, batch in ((2, 3), (5, 3), (7, 4), (16, 9)):
        x = torch.randn(steps, batch, 11, generator=generator)
        assert torch.equal(run(x), net(x))
    torch._dynamo.reset()
    assert len(graphs) == 1
