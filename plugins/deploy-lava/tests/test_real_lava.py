"""lava-nc itself, in a Python 3.10: every bit of the neuron and of networks, all cases in one process.

SPIKE_LAVA_PYTHON names that Python; `make test` makes it. Where it is there, it must work.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from loihi import loihi

from spikecore import nn
from spikecore.errors import PluginUnavailable
from spikecore.interfaces import Artefact
from spikecore.testing.small_nets import settle_weights, small_nets
from spikecore_deploy_lava import Lava, runner
from spikecore_deploy_lava.files import write_network
from spikecore_deploy_lava.interpreter import lava_python
from spikecore_deploy_lava.network import Layer, Network, Population, Synapses

NETS = ("if", "lif", "if, v_init -3, without bias", "core's mlp", "core's convnet")
POPULATIONS = 3


@pytest.fixture(scope="module")
def python():
    try:
        return lava_python()
    except PluginUnavailable as error:
        if Path(os.environ.get("SPIKE_LAVA_PYTHON", "/nowhere")).exists():
            raise
        pytest.skip(str(error))


def random_population(index):
    """One Dense and one LIF with numbers that make it wrap, saturate and fire."""
    rng = np.random.default_rng(index)
    weight = rng.integers(-128, 128, (16, 24)) * 2.0
    population = Population(
        float(rng.integers(0, 4096)), float(rng.integers(0, 4096)), float((300, 3000, 90_000)[index]), np.zeros(1)
    )
    bias = rng.integers(-300, 900, 16).astype(float)
    return Network("fixed_pt", (24,), (Layer("only", -1, (16,), Synapses(weight), bias, population),))


def loop_net():
    """A population that takes its own spikes, between two others."""
    loop = nn.LateralRecurrent(nn.CubaLIF(c_decay=0.5, v_decay=0.8, v_threshold=1.5, backend="torch"), 6)
    parts = [torch.nn.Linear(4, 5, bias=False), nn.LIF(tau=3.0, v_threshold=0.2, backend="torch")]
    parts += [torch.nn.Linear(5, 6, bias=False), loop, torch.nn.Linear(6, 3, bias=False), nn.IF(backend="torch")]
    return settle_weights(torch.nn.Sequential(*parts), 0, -40, 60)


@pytest.fixture(scope="module")
def results(python, tmp_path_factory):
    """Case → (directory, input, outputs of its layers by lava-nc)."""
    folder = tmp_path_factory.mktemp("lava")
    cases = {}
    for index in range(POPULATIONS):
        directory = folder / f"population{index}"
        directory.mkdir()
        write_network(random_population(index), directory)
        x = np.random.default_rng(index).integers(0, (2, 2, 200)[index], (40, 2, 24))
        cases[f"population{index}"] = (directory, x)
    nets = {net.name: net for net in small_nets()}
    for index, name in enumerate(NETS):
        for precision in ("fixed_pt", "floating_pt"):
            directory = folder / f"{precision}{index}"
            Lava(precision=precision).export(nets[name].make(), nets[name].input(), directory)
            cases[f"{name}, {precision}"] = (directory, nets[name].input(3).numpy())
    x = torch.randint(0, 2, (16, 3, 4), generator=torch.Generator().manual_seed(1)).float()
    Lava().export(loop_net(), x, folder / "loop")
    cases["loop, fixed_pt"] = (folder / "loop", x.numpy())
    jobs = []
    for index, (directory, x) in enumerate(cases.values()):
        np.save(folder / f"in{index}.npy", x)
        jobs.append([str(directory), str(folder / f"in{index}.npy"), str(folder / f"out{index}")])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [str(python), "-I", str(Path(runner.__file__)), str(folder / "jobs.json")]
    subprocess.run(command, check=True, timeout=600)
    given = {}
    for (name, (directory, x)), (_, _, output) in zip(cases.items(), jobs, strict=True):
        count = len(list(folder.glob(f"{Path(output).name}.*.npy")))
        given[name] = (directory, x, [np.load(f"{output}.{index}.npy") for index in range(count)])
    return given


@pytest.mark.parametrize("index", range(POPULATIONS))
def test_a_population_equals_the_equations(results, index):
    _, x, (spikes,) = results[f"population{index}"]
    layer = random_population(index).layers[0]
    population, bias = layer.population, layer.bias.astype(np.int64)
    sums = x @ layer.synapses.weight.T.astype(np.int64)
    for sample in range(2):
        early = np.concatenate([np.zeros((1, 16), np.int64), sums[:, sample]])
        right = loihi(early, int(population.du), int(population.dv), int(population.vth), bias)[0][1:]
        assert np.array_equal(spikes[:, sample], right)
    assert 0.02 < spikes.mean() < 0.98


@pytest.mark.parametrize("name", [*NETS, "loop"])
def test_a_network_equals_the_simulation(results, name):
    """Fixed point: every spike of every layer, and the sums that are read out."""
    directory, x, outs = results[f"{name}, fixed_pt"]
    given = torch.from_numpy(x)
    traced = Lava().trace(Artefact(directory), given)
    for out, (layer, spikes) in zip(outs, traced.items(), strict=False):
        assert 0.02 < float(spikes.mean()) < 0.98
        assert np.array_equal(out, spikes.numpy()), layer
    np.testing.assert_allclose(outs[-1], Lava().simulate(Artefact(directory), given).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_a_network_in_floating_point(results, name):
    directory, x, outs = results[f"{name}, floating_pt"]
    traced = Lava().trace(Artefact(directory), torch.from_numpy(x))
    for out, (layer, spikes) in zip(outs, traced.items(), strict=False):
        assert np.mean(out != spikes.numpy()) < 0.01, layer


def test_the_deployer_runs_it(results, monkeypatch, python):
    monkeypatch.setenv("SPIKE_LAVA_PYTHON", str(python))
    directory, x, outs = results["lif, fixed_pt"]
    out = Lava(executor="lava").simulate(Artefact(directory), torch.from_numpy(x))
    assert np.array_equal(out.numpy(), outs[-1])
