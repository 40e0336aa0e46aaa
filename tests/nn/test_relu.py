"""`relu` is torch's ReLU, as a registered neuron: values, gradients, backends, and the artificial net by one option."""

import json
import math

import pytest
import torch

import spikecore
from spikecore import nn
from spikecore.registry import create
from spikecore.run import experiment
from spikecore.run.config import resolve
from spikecore.testing.probes import GraphBackend, registered_backend

VALUES = [-math.inf, -2.5, -1e-40, -0.0, 0.0, 1e-40, 0.75, 3.0, math.inf, math.nan]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("backend", ["torch", "graph"])
def test_it_is_torchs_relu(dtype, step_mode, backend):
    ours, theirs = (torch.tensor(VALUES, dtype=dtype).reshape(5, 1, 2).requires_grad_() for _ in range(2))
    with registered_backend(GraphBackend) as name:
        neuron = nn.ReLU(step_mode=step_mode, backend=name if backend == "graph" else backend)
        out, right = neuron(ours), torch.nn.functional.relu(theirs)
    assert torch.equal(out.nan_to_num(7.0), right.nan_to_num(7.0))
    assert out.dtype == dtype
    weights = torch.arange(10.0, dtype=dtype).reshape(5, 1, 2) + 1
    out.backward(weights)
    right.backward(weights)
    known = ~theirs.isnan()
    assert torch.equal(ours.grad[known], theirs.grad[known])


def test_it_has_neither_state_nor_options():
    neuron = create("neuron", "relu")
    assert nn.ReLU.state == {}
    assert vars(neuron.config) == {}
    x = torch.randn(6, 2, 3)
    with nn.streaming(neuron):
        neuron(x)
        assert nn.get_state(neuron) == {"": {}}
    with nn.streaming(neuron):  # another batch shape in the middle of a sequence: there is nothing that would not fit
        neuron(x)
        assert torch.equal(neuron(x[:, :1]), x[:, :1].relu())
    for option in ("surrogate", "v_threshold", "learnable"):
        with pytest.raises(spikecore.errors.OptionError, match=f"option '{option}' is unknown"):
            nn.ReLU(**{option: 1})


def test_a_run_trains_the_artificial_net_of_the_same_shape(tmp_path):
    settings = ["neuron.name=relu", "encoder.num_steps=1", "trainer.epochs=4", "run.device=cpu", "model.name=mlp"]
    result = experiment.run(resolve(None, settings), out=tmp_path / "run")
    assert result.metrics["test_accuracy"] > 0.85
    net = spikecore.load(tmp_path / "run")
    nn.set_step_mode(net, "single")
    x = torch.rand(4, 1, 8, 8)
    layers = [part for part in net.modules() if isinstance(part, torch.nn.Linear)]
    right = x.flatten(1)
    for layer in layers[:-1]:
        right = layer(right).relu()
    torch.testing.assert_close(net(x), layers[-1](right))
    assert sum(isinstance(part, nn.ReLU) for part in net.modules()) == len(layers) - 1 >= 1
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
