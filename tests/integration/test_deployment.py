"""Trained nets on every deployer of our plugins, by the commands that users type."""

import json
import subprocess
import sys

import pytest
import torch

import spikecore
from spikecore import nn
from spikecore.analysis import quantization_errors
from spikecore.interfaces import QuantizedLayer

RUNS = {
    "digits": {"model": {"name": "convnet", "channels": [8, 8]}, "neuron": {"name": "lif", "v_threshold": 0.5}},
    "ndigits": {
        "dataset": {"name": "ndigits"},
        "encoder": {"name": "direct", "sequences": True},
        "model": {"name": "mlp", "hidden": [32]},
        "neuron": {"name": "lif", "tau": 3.0, "v_threshold": 0.5},
    },
}
WAYS = {
    "nir": ("nir",),
    "onnx": ("onnx",),
    "onnx, unrolled": ("onnx", "--set", "form=unrolled"),
    "onnx, step": ("onnx", "--set", "form=step"),
    "lynxi": ("lynxi",),
    "lynxi, onnx": ("lynxi", "--set", "runs=onnx"),
}


@pytest.fixture(scope="module", params=RUNS)
def run_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    result = spikecore.run({**RUNS[request.param], "trainer": {"epochs": 3}}, out=folder)
    assert result.metrics["test_accuracy"] > 0.3
    return folder


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_trained_net_is_deployed_with_its_spikes(run_dir, tmp_path, way):
    name, *options = way
    line = ["deploy", name, str(run_dir), "--out", str(tmp_path / "out"), "--verify", "40", *options]
    done = subprocess.run([sys.executable, "-m", "spikecore", *line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    fidelity = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert all(layer["expected_spikes"] > 0 for layer in fidelity["layers"])
    assert fidelity["agreement"] >= 0.9999, done.stdout
    assert fidelity["decisions"]["num_different"] <= fidelity["num_different"]
    assert (tmp_path / "out" / "fidelity.html").stat().st_size > 5_000


def test_the_error_of_quantized_weights_is_told():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), nn.LIF())
    scale = torch.tensor(0.25)
    values = (net[0].weight.detach() / scale).round().int()
    nn.quantized.attach(net[0], QuantizedLayer(values, scale, torch.tensor(0, dtype=torch.int32), bits=4))
    (error,) = quantization_errors(net)
    distance = (net[0].weight.detach() - values * scale).abs()
    assert (error.layer, error.bits) == ("0", 4)
    assert error.max_error == pytest.approx(float(distance.max()))
    assert 0 < error.mean_error == pytest.approx(float(distance.mean()))
    assert error.max_weight == pytest.approx(float(net[0].weight.detach().abs().max()))
