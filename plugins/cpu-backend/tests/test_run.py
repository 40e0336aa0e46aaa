"""A whole run: the record says that this backend ran, and the result is the reference's."""

import json

import spikecore
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
