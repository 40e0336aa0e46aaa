"""`torch.compile(fullgraph=True)`, traced without a GPU: on the meta device, where tensors have only shapes."""

from dataclasses import replace

import torch
from torch import nn

from spikecore.nn import LIF, layers

NAME = "cupy"


def test_one_graph_serves_sequences_of_every_length(on_host, monkeypatch):
    """No graph break, and no new graph for a new T: one for sequences of one segment, one for longer ones."""
    graphs = []
    monkeypatch.setattr(on_host, "capabilities", replace(on_host.capabilities, devices=("meta",)))

    def count(module, example_inputs):
        graphs.append(module)
        return module.forward

    net = nn.Sequential(layers.Conv2d(4, 8, 3), LIF(tau=3.0, learnable=("tau",), backend=NAME)).to("meta")
    torch._dynamo.reset()
    run = torch.compile(net, fullgraph=True, dynamic=True, backend=count)
    for steps in (3, 7, 9, 16, 33, 34, 35, 36):
        x = torch.empty(steps, 2, 4, 6, 6, device="meta", requires_grad=True)
        out = run(x)
        assert out.shape == (steps, 2, 8, 4, 4)
        out.sum().backward()
        assert x.grad.shape == x.shape
    assert 1 <= len(graphs) <= 2
    for graph in graphs:
        texts = [module.code for module in graph.modules() if hasattr(module, "code")]
        assert any(f"spikecore.run_{NAME}" in text for text in texts), "the neuron did not reach the backend"
        assert any(f"spikecore.run_bwd_{NAME}" in text for text in texts), "its gradient did not"
    torch._dynamo.reset()
