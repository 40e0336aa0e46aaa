"""A trained digits net, by the command that users type."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import spikecore
from spikecore.cli import spike

CONFIG = {
    "model": {"name": "convnet", "channels": [6, 6]},
    "neuron": {"name": "lif", "tau": 3.0, "v_threshold": 0.5},
    "encoder": {"num_steps": 6},
    "trainer": {"epochs": 2},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    result = spikecore.run(CONFIG, out=folder)
    assert result.metrics["test_accuracy"] > 0.3
    return folder


def deploy(*line):
    return CliRunner().invoke(spike, ["deploy", "lynxi", *map(str, line)])


def test_check_lists_every_operator(run_dir):
    done = deploy(run_dir, "--check", "--json")
    assert done.exit_code == 0, done.output
    outcomes = [row["outcome"] for row in json.loads(done.output)["operators"]]
    assert len(outcomes) > 5
    assert set(outcomes) <= {"mapped", "folded"}


@pytest.mark.parametrize(
    ("options", "least"), [((), 1.0), (("runs=onnx",), 0.9999), (("dtype=float16",), 0.98)], ids=str
)
def test_the_spikes_of_the_net(run_dir, tmp_path, options, least):
    settings = [word for option in options for word in ("--set", option)]
    done = deploy(run_dir, "--out", tmp_path / "out", "--verify", "32", "--batch", "8", *settings)
    assert done.exit_code == 0, done.output
    fidelity = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert all(layer["expected_spikes"] > 0 for layer in fidelity["layers"])
    assert least <= fidelity["agreement"] <= 1
    assert (tmp_path / "out" / "fidelity.html").stat().st_size > 5_000
    manifest = json.loads((tmp_path / "out" / "net" / "manifest.json").read_text())
    assert manifest["lead"] == [6, 8]
    assert manifest["input"]["shape"] == [48, 1, 8, 8]
    assert manifest["largest_rank"] == 4
    if not options:
        assert manifest["agreement"] == {"equal": True, "largest_difference": 0.0}
        script = torch.jit.load(Path(tmp_path / "out" / "net" / "net.pt"))
        assert script(torch.zeros(48, 1, 8, 8)).shape == (48, 10)
