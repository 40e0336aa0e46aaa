"""`spike share` and `spikecore.load` of what it wrote; `spike run --seeds` and the means of `spike compare`."""

import contextlib
import json
import statistics

import pytest
import torch
from safetensors.torch import load_file, save_file

import spikecore
from spikecore.errors import CheckpointError, ConfigError, ContractError, SpikeError

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


ODD = (None, [], {}, "x", 10**30, -1, 1.5, True, "/etc/passwd", float("nan"))


def places(value, place=()):
    """All of a document, as lists of keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*place, key)
        yield from places(inner, (*place, key))


def put(plain, place, value):
    changed = json.loads(json.dumps(plain))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def test_values_of_other_types_are_refused_or_do_no_harm(shared):
    config = json.loads((shared / "config.json").read_text())
    num_refused = 0
    everywhere = list(places(config))
    sizes = [place for place in everywhere if place[0] in ("nets", "sha256", "components")]
    for number, place in enumerate([*everywhere, *sizes, *sizes, *sizes]):
        (shared / "config.json").write_text(json.dumps(put(config, place, ODD[number % len(ODD)])))
        with contextlib.suppress(SpikeError):
            spikecore.load(shared)
            num_refused -= 1
        num_refused += 1
    assert num_refused > 20
    for size in (10**30, 1 << 31, -1):
        (shared / "config.json").write_text(json.dumps(put(config, ("nets", "", "num_outputs"), size)))
        with pytest.raises(ContractError, match="sizes must be from 0 to"):
            spikecore.load(shared)
    (shared / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="100 deep"):
        spikecore.load(shared)


def test_a_link_as_in_the_cache_of_a_hub_is_followed_and_a_device_is_not_read(shared, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (shared / name).rename(tmp_path / name)
        (shared / name).symlink_to(tmp_path / name)
    spikecore.load(shared)
    (shared / "config.json").unlink()
    (shared / "config.json").symlink_to("/dev/zero")
    with pytest.raises(SpikeError):
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


def test_seeds_as_json(spike, tmp_path):
    status, said = spike("run", *SMALL, "--seeds", "3,1", "--out", "sweep", "--json")
    assert status == 0, said
    (line,) = (line for line in said.splitlines() if line.startswith("{"))  # the rest is on stderr
    outcome = json.loads(line)
    assert outcome["schema"] == 1
    assert [run["directory"] for run in outcome["runs"]] == ["sweep/seed-3", "sweep/seed-1"]
    for run in outcome["runs"]:
        record = json.loads((tmp_path / run["directory"] / "run.json").read_text())
        assert run["metrics"] == record["metrics"]
        assert run["timings"].keys() == record["timings_s"].keys()


@pytest.mark.parametrize("seeds", ["", "1,1", "a", "-1", "1.5"])
def test_seeds_that_are_none(spike, seeds):
    status, said = spike("run", *SMALL, "--seeds", seeds)
    assert status == 2
    assert "0,1,2" in said
