"""The parts of the plugin together, from its wheel."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import acme_npu
import pytest
import torch
from acme_npu import AcmeCell, AcmeDeployer

from spikecore import nn
from spikecore.analysis import compare_traces, record_spikes


def spike(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spikecore", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_runs_from_its_wheel():
    assert "site-packages" in Path(acme_npu.__file__).parts
    files = [str(file) for file in importlib.metadata.files("acme-npu")]
    assert "acme_npu/py.typed" in files
    assert any(file.endswith("licenses/LICENSE") for file in files)


def test_the_cell_is_that_of_its_equation():
    cell = AcmeCell(keep=0.5, limit=1.5, v_threshold=1.0, reset="soft", backend="acme")
    out = cell(torch.tensor([0.8, 0.7, 9.0, 0.6, -9.0, 2.0]).reshape(-1, 1, 1)).flatten()
    # h: 0.8, 1.1 → 0.1, 1.5 (saturated) → 0.5, 0.85, -1.5 (saturated), 1.25
    assert out.tolist() == [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]


def test_the_emulator_has_the_numbers_of_the_reference():
    torch.manual_seed(0)
    results = []
    x, weight = 2 * torch.randn(30, 4, 6), torch.randn(30, 4, 6)
    for backend in ("torch", "acme"):
        cell = AcmeCell(keep=0.9, limit=1.4, v_threshold=0.7, learnable=("keep",), backend=backend)
        given = x.clone().requires_grad_()
        out = cell(given)
        (out * weight).sum().backward()
        results.append((out, given.grad, cell.param_keep.grad))
    assert results[0][0].sum() > 20
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(results[0][1:], results[1][1:], strict=True))


@pytest.mark.parametrize("options", [{}, {"reset": "soft", "fires": "above"}, {"v_reset": -0.25, "v_init": 0.5}])
def test_a_deployed_net_has_the_spikes_of_the_net(options, tmp_path):
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(6, 12), AcmeCell(keep=0.6, limit=1.2, **options), nn.Linear(12, 4), AcmeCell(v_threshold=0.3)
    )
    x = 3 * torch.rand(20, 5, 6)
    deployer = AcmeDeployer()
    artefact = deployer.export(net, x, tmp_path / "net.json")
    out, spikes = record_spikes(net, x)
    assert out.sum() > 0
    assert compare_traces(spikes, deployer.trace(artefact, x)).is_exact
    layers = json.loads(artefact.path.read_text())["layers"]
    assert [layer["type"] for layer in layers] == ["matrix", "cell", "matrix", "cell"]


def test_what_the_device_lacks_is_refused():
    records = AcmeDeployer().check(nn.Sequential(nn.Linear(6, 4), nn.LIF()), torch.rand(3, 2, 6))
    assert [record.outcome for record in records] == ["mapped", "refused"]
    assert "LIF" in records[1].reason


def test_it_trains_and_deploys_from_the_command_line(tmp_path):
    assert "acme_cell" in spike("list-plugins", "--plugin", "acme-npu", "--check", cwd=tmp_path)
    chosen = ("neuron.name=acme_cell", "model.name=mlp", "model.hidden=[16]", "backend.name=acme", "trainer.epochs=1")
    spike("run", *(part for pair in chosen for part in ("--set", pair)), "--out", "run", cwd=tmp_path)
    assert "acme-npu: emulated" in (tmp_path / "run/run.json").read_text()
    spike("deploy", "acme", "run", "--out", "deployed", "--verify", "8", cwd=tmp_path)
    fidelity = json.loads((tmp_path / "deployed/fidelity.json").read_text())
    assert fidelity
