"""From a run, a file and an ONNX model to a directory that loads: the whole way of `spike convert ann2snn`."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spikecore
from spikecore.bench.candidates import backends
from spikecore.nn import set_step_mode

LEVELS = 8
SPIKE = [sys.executable, "-m", "spikecore"]


def spike(*arguments, cwd):
    done = subprocess.run([*SPIKE, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_becomes_a_spiking_net_that_loads(tmp_path):
    settings = ("neuron.name=relu", "encoder.num_steps=1", "model.name=convnet", "trainer.epochs=2")
    spike("run", *(part for text in settings for part in ("--set", text)), "--out", "ann", cwd=tmp_path)
    said = spike(
        "convert", "ann2snn", "ann", "--set", "recipe=percentile", "--set", "T=8,16", "--out", "snn", cwd=tmp_path
    )
    assert "agreement over T" in said
    assert "accuracy over T: 1: " in said
    page = (tmp_path / "snn/report.html").read_text()
    assert "Accuracy against T" in page
    assert "Correlation of each layer" in page
    assert "SynOps of the new net, T = 16" in said
    manifest = json.loads((tmp_path / "snn/converted.json").read_text())
    assert manifest["converter"]["options"]["T"] == [8, 16]
    assert [layer["outcome"] for layer in manifest["report"]["layers"]].count("became") == 4
    net, ann = spikecore.load(tmp_path / "snn"), spikecore.load(tmp_path / "ann")
    split = spikecore.create("dataset", "digits").split("test")
    x = torch.stack([split[index][0] for index in range(64)])
    with torch.no_grad():
        right = ann(x.unsqueeze(0))[0].argmax(-1)
        agreement = (net(x.expand(64, *x.shape)).mean(0).argmax(-1) == right).float().mean()
    assert agreement > 0.9
    assert len(right.unique()) > 4


def test_a_quantized_resnet18_is_computed_exactly_by_few_spikes(quantized_resnet18):
    """At T = levels, in float64: in float32 a value next to the edge of a level may land on its other side."""
    from spikecore_ann2snn import Ann2SNN, FewSpikeReLU

    net = copy.deepcopy(quantized_resnet18).double()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    made, report = Ann2SNN(recipe="few_spike", T=(LEVELS,), measure=2).convert(net, x[:1], [x])
    with torch.no_grad():
        right, out = net(x), made(x.expand(LEVELS, *x.shape)).mean(0)
    torch.testing.assert_close(out, right, rtol=0, atol=1e-9)
    assert right.std() > 0.05
    assert sum(isinstance(part, FewSpikeReLU) for part in made.modules()) == 17
    neurons = [layer for layer in report.layers if layer.threshold is not None]
    assert len(neurons) == 17
    assert min(layer.correlation[-1] for layer in neurons) > 0.999
    assert all(0.01 < layer.rate < 0.99 for layer in neurons)


def test_temporal_differences_compute_it_exactly_at_every_step(quantized_resnet18):
    """Causal, where few spikes are not; the values are graded."""
    from spikecore_ann2snn import Ann2SNN

    net = copy.deepcopy(quantized_resnet18).double()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    made, _ = Ann2SNN(recipe="temporal_difference", T=(3,), measure=0).convert(net, x[:1])
    with torch.no_grad():
        right, out = net(x), made(x.expand(3, *x.shape))
    for steps in (1, 3):
        torch.testing.assert_close(out[:steps].mean(0), right, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def quantized_resnet18():
    """ResNet-18 for 32² of zoo-resnet, its neurons QCFS; norms with the statistics of some inputs."""
    pytest.importorskip("spikecore_ann2snn")
    pytest.importorskip("spikecore_zoo_resnet")
    torch.manual_seed(0)

    def neuron():
        return spikecore.create("neuron", "qcfs", levels=LEVELS, v_threshold=3.0)

    net = spikecore.create("model", "spiking_resnet18", neuron, (3, 32, 32), 10, stem="small")
    set_step_mode(net, "single")
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return net.eval()


def test_an_onnx_model_becomes_one(tmp_path):
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    torch.onnx.export(net, (torch.rand(1, 1, 8, 8),), str(tmp_path / "net.onnx"), dynamo=False)
    x = torch.rand(40, 1, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    spike("convert", "ann2snn", "net.onnx", "--data", "x.npy", "--set", "recipe=max", "--out", "snn", cwd=tmp_path)
    made = spikecore.load(tmp_path / "snn")
    with torch.no_grad():
        assert (made(x.expand(256, *x.shape)).mean(0) - net(x)).abs().max() < 0.05
    done = subprocess.run([*SPIKE, "eval", "snn"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "converted from net.onnx, which is no run and has no data" in " ".join(done.stderr.split())
    spike("convert", "quantize", "net.onnx", "--data", "x.npy", "--out", "int8", cwd=tmp_path)
    quantized = spikecore.load(tmp_path / "int8")
    with torch.no_grad():
        assert (quantized(x.unsqueeze(0))[0] - net(x)).abs().max() < 0.05
    Path(tmp_path / "cut.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:200])
    done = subprocess.run(
        [*SPIKE, "convert", "ann2snn", "cut.onnx", "--data", "x.npy", "--out", "no"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "truncated" in done.stderr + done.stdout
    assert not (tmp_path / "no").exists()


def test_a_converted_net_runs_on_every_backend_trains_on_and_deploys(tmp_path):
    settings = {
        "neuron": {"name": "relu"},
        "encoder": {"num_steps": 1},
        "model": {"name": "convnet", "channels": [8, 8]},
        "trainer": {"epochs": 2},
    }
    spikecore.run(settings, out=tmp_path / "ann")
    spike("convert", "ann2snn", "ann", "--set", "T=8,16", "--out", "snn", cwd=tmp_path)
    split = spikecore.create("dataset", "digits").split("test")
    x = torch.stack([split[index][0] for index in range(32)]).expand(16, 32, 1, 8, 8)
    labels = torch.tensor([split[index][1] for index in range(32)])
    right = spikecore.load(tmp_path / "snn", backend="torch")
    with torch.no_grad():
        wanted = right(x)
    others = [candidate.name for candidate in backends()[0][1:]]
    assert "cpu" in others
    for name in others:
        net = spikecore.load(tmp_path / "snn", backend=name)
        with torch.no_grad():
            out = net(x)
        assert float(((out - wanted).abs() > 1e-4).double().mean()) < 1e-3, name
    net = right.train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(net(x).mean(0) * 4, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    for name in ("onnx", "lynxi"):
        spike("deploy", name, "snn", "--out", name, "--verify", "16", cwd=tmp_path)
        fidelity = json.loads((tmp_path / name / "fidelity.json").read_text())
        assert all(layer["expected_spikes"] > 0 for layer in fidelity["layers"])
        assert fidelity["agreement"] >= 0.9999
