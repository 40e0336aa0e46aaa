"""From a run, a file and an ONNX model to a directory that loads: the whole way of `spike convert ann2snn`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spikecore

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
