"""A newcomer's check: a new neuron in neuron-zoo is one file and one entry-point line, and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ZOO = Path(__file__).parents[2] / "plugins" / "neuron-zoo"

NEURON = '''"""A neuron that forgets half of what it holds."""

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.interfaces.component import Range
from spikecore.nn import Neuron, fire_and_reset


class Halving(Neuron):
    """h = keep v + x."""

    state = {"v": "v_init"}

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        keep: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = fire_and_reset(params.keep * state.v + x, params)
        return s, {"v": v}
'''
LINE = 'halving = "spikecore_neuron_zoo.halving:Halving"\n'
GROUP = '[project.entry-points."spikecore.neurons"]\n'

USE = """
import torch
from spikecore import create, explain
from spikecore.registry import components

halving = create("neuron", "halving", keep=0.25, record=("v",))
print(halving(torch.tensor([[0.8], [0.8], [0.9]])).flatten().tolist(), halving.recorded["v"].flatten().tolist())
print([entry.plugin.id for entry in components("neuron") if entry.name == "halving"])
print("0.25 * v + x" in explain(halving))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """neuron-zoo with the new file and the new line, installed into a directory of its own."""
    folder = tmp_path_factory.mktemp("newcomer")
    plugin = folder / "neuron-zoo"
    shutil.copytree(ZOO, plugin, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__", "tests"))
    project = plugin / "pyproject.toml"
    before = project.read_text(encoding="utf-8")
    assert before.count(GROUP) == 1
    project.write_text(before.replace(GROUP, GROUP + LINE), encoding="utf-8")
    plugin.joinpath("src/spikecore_neuron_zoo/halving.py").write_text(NEURON, encoding="utf-8")
    install = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    install += ["--no-build-isolation", "--no-index", "--target", folder / "site", plugin]
    subprocess.run([str(part) for part in install], check=True, capture_output=True, text=True, timeout=600)
    return folder / "site"


def run(site, folder, *arguments):
    """A process that finds the new distribution first."""
    path = f"{site}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_created_traced_and_explained(site, tmp_path):
    out = run(site, tmp_path, "-c", USE).splitlines()
    spikes, trace = out[0].split("] ")
    assert spikes == "[0.0, 1.0, 0.0"
    assert [round(float(v), 4) for v in trace.strip("[]").split(", ")] == [0.8, 0.0, 0.9]
    assert out[1:] == ["['neuron-zoo']", "True"]


def test_spike_knows_it_and_trains_with_it(site, tmp_path):
    assert "keep" in run(site, tmp_path, "-m", "spikecore", "info", "neuron", "halving")
    options = ["--set", "neuron.name=halving", "--set", "neuron.keep=0.75", "--set", "trainer.epochs=1", "--out", "run"]
    out = run(site, tmp_path, "-m", "spikecore", "run", *options)
    assert "halving" in tmp_path.joinpath("run/config.toml").read_text(encoding="utf-8"), out
