"""`spike share` and `spikecore.load` of what it wrote; `spike run --seeds` and the means of `spike compare`."""

import json
import statistics

import pytest
import torch
from safetensors.torch import load_file, save_file

import spikecore
from spikecore.errors import CheckpointError, ConfigError

SMALL = [
    *("--set", "model.name=mlp", "--set", "model.hidden=[8]", "--set", "trainer.epochs=1"),
    *("--set", "neuron.tau=1.3", "--set", "dataset.test_share=0.9", "-q"),
]


@pytest.fixture
def shared(spike, tmp_path):
    assert spike("run", *SMALL, "--out", "r")[0] == 0
    status, said = spike("share", "r", "--out", "net")
    assert status == 0, said
    return tmp_path / "net"


def test_a_shared_net_is_the_net_of_the_run(shared, spike, tmp_path):
    assert {path.name for path in shared.iterdir()} == {"config.json", "model.safetensors"}
    x = torch.rand(4, 3, 1, 8, 8) * 3
    own, given = spikecore.load(tmp_path / "r"), spikecore.load(shared, backend="torch")
    assert torch.equal(given(x), own(x))
    assert given.layers[1].tau == 1.3 if hasattr(given.layers[1], "tau") else True
    assert not given.training
    config = json.loads((shared / "config.json").read_text())
    assert config["tables"]["neuron"]["tau"] == 1.3
    assert set(config["tables"]) == {"model", "neuron", "backend"}
    assert spike("share", "r", "--out", "net")[0] == 2  # never over what is there
    with pytest.raises(CheckpointError, match="no checkpoints"):
        spikecore.load(shared, "best")


def test_what_is_damaged_or_foreign_is_refused(shared):
    path = shared / "model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, path)
    with pytest.raises(CheckpointError, match="is damaged"):
        spikecore.load(shared)
    config = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps({**config, "library_name": "transformers"}))
    with pytest.raises(ConfigError, match="no net of spikecore"):
        spikecore.load(shared)
    config["tables"]["neuron"] = {"name": "no_such_neuron"}
    (shared / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"no_such_neuron(.|\n)*written with(.|\n)*neuron: from spikecore"):
        spikecore.load(shared)


def test_seeds_and_their_mean(spike, tmp_path):
    status, said = spike("run", *SMALL, "--seeds", "3,1,8", "--out", "sweep")
    assert status == 0, said
    accuracies = []
    for seed in (3, 1, 8):
        record = json.loads((tmp_path / f"sweep/seed-{seed}/run.json").read_text())
        assert record["seed"] == seed
        accuracies.append(record["metrics"]["test_accuracy"])
    assert len(set(accuracies)) > 1
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert f"{mean:.2%} ± {deviation:.2%}" in said
    assert "mean of 3 seeds" in said
    directories = [f"sweep/seed-{seed}" for seed in (3, 1)]
    status, compared = spike("compare", *directories)
    assert f"{statistics.mean(accuracies[:2]):.2%} ± {statistics.stdev(accuracies[:2]):.2%}" in compared
    assert spike("run", *SMALL, "--out", "other", "--set", "neuron.tau=1.4", "--set", "run.seed=9")[0] == 0
    _, mixed = spike("compare", "sweep/seed-3", "other")
    assert "mean of" not in mixed  # they differ in more than the seed


@pytest.mark.parametrize("seeds", ["", "1,1", "a", "-1", "1.5"])
def test_seeds_that_are_none(spike, seeds):
    status, said = spike("run", *SMALL, "--seeds", seeds)
    assert status == 2
    assert "0,1,2" in said
