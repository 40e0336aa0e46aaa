"""A whole run: the record says that this backend ran, and the result is the reference's."""

import json

import pytest

import spikecore
from spikecore.backends.selection import backend_named
from spikecore.errors import ConfigError
from spikecore.registry import use
from spikecore.run.build import prepare
from spikecore.run.config import resolve


def run(folder, *settings):
    result = spikecore.run(resolve(None, ["trainer.epochs=2", *settings]), out=folder)
    return result.metrics, json.loads((folder / "run.json").read_text())["backends"]


def test_spike_run_names_it_for_every_layer(tmp_path):
    ours, layers = run(tmp_path / "cpu")
    assert layers
    assert {layer["ran"] for layer in layers.values()} == {"cpu"}
    assert {layer["reason"] for layer in layers.values()} == {"first by priority"}
    right, layers = run(tmp_path / "torch", "backend.name=torch")
    assert {layer["ran"] for layer in layers.values()} == {"torch"}
    assert abs(ours["test_accuracy"] - right["test_accuracy"]) < 0.02


def test_options_come_from_the_config(tmp_path):
    asked = ["backend.name=cpu", "backend.keep=distance_bf16", f"backend.cache_dir={tmp_path / 'kernels'}"]
    resolved = resolve(None, asked)
    assert resolve(_file(tmp_path, resolved.to_toml())) == resolved
    prepare(resolved)
    with use(resolved.registry):
        assert backend_named("cpu").config.keep == "distance_bf16"
    _, layers = run(tmp_path / "run", *asked, "trainer.epochs=1")
    assert {layer["ran"] for layer in layers.values()} == {"cpu"}
    assert list((tmp_path / "kernels").iterdir())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["components"]["backend"]["plugin"] == "cpu-backend"
    plain = resolve(None)  # another run in this process: as if there had been none before
    prepare(plain)
    with use(plain.registry):
        assert backend_named("cpu").config.keep == "auto"


def test_wrong_options_in_the_config():
    with pytest.raises(ConfigError, match=r"backend\.keep: .*distance_bf16"):
        resolve(None, ["backend.name=cpu", "backend.keep=everything"])
    with pytest.raises(ConfigError, match=r"backend\.recycle_mib"):
        resolve(None, ["backend.name=cpu", "backend.recycle_mib=-1"])


def _file(folder, text):
    path = folder / "config.toml"
    path.write_text(text)
    return path
