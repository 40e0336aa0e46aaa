"""Whole runs through parts of several plugins."""

import json

import pytest

import spikecore

RUNS = {
    "events, a zoo's neuron, the C backend": {
        "dataset": {"name": "ndigits"},
        "model": {"name": "mlp", "hidden": [32]},
        "neuron": {"name": "izhikevich"},
        "backend": {"name": "cpu"},
    },
    "a population code, a zoo's surrogate": {
        "encoder": {"name": "population", "low": 0.0, "high": 1.0, "std": 0.2, "size": 4},
        "model": {"name": "mlp", "hidden": [32]},
        "neuron": {"name": "lif", "surrogate": {"name": "s2nn"}},
    },
    "phases, a neuron that no backend fuses": {
        "encoder": {"name": "weighted_phase", "num_steps": 8, "saturate": True},
        "model": {"name": "mlp", "hidden": [32]},
        "neuron": {"name": "sliding_psn"},
        "backend": {"name": "auto"},
    },
}


@pytest.mark.parametrize("tables", RUNS.values(), ids=RUNS)
def test_a_run(tables, tmp_path):
    direct = {"encoder": {"name": "direct", "sequences": True}} if tables.get("dataset") else {}
    result = spikecore.run({**direct, **tables, "trainer": {"epochs": 5}}, out=tmp_path / "run")
    assert result.metrics["test_accuracy"] > 0.3
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    wanted = "torch" if tables["neuron"]["name"] == "sliding_psn" else "cpu"
    assert {layer["ran"] for layer in record["backends"].values()} == {wanted}
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    spikecore.load(tmp_path / "run")
