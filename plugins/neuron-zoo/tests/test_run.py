"""Through `spike run`: declared neurons and torch modules train on real data; the record says where they ran."""

import json
import subprocess
import sys

import pytest

import spikecore
from spikecore.registry import find
from spikecore.run.config import resolve

STEPS = 8
CASES = {
    "izhikevich": {},
    "alif": {},
    "ilif": {},
    "floor_lif": {},
    "psn": {"neuron.num_steps": STEPS},
    "mpbn_lif": {"model.name": "mlp", "neuron.num_features": 256},
}


@pytest.mark.parametrize("name", CASES)
def test_spike_run_trains_with_it(name, tmp_path):
    assert find("neuron", name).plugin.distribution == "spikecore-neuron-zoo"
    options = {"trainer.epochs": 4, "encoder.num_steps": STEPS, **CASES[name]}
    config = resolve(None, [f"neuron.name={name}", *(f"{key}={value}" for key, value in options.items())])
    result = spikecore.run(config, out=tmp_path / "run")
    assert result.metrics["test_accuracy"] > 0.8
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"neuron-zoo", "core"} <= {plugin["id"] for plugin in record["plugins"]}
    assert record["backends"], "the record does not say what ran the neurons"
    assert all(entry["ran"] and entry["reason"] for entry in record["backends"].values())


def test_a_neuron_that_does_not_fit_the_layer_says_so(tmp_path):
    config = resolve(None, ["neuron.name=mpbn_lif", "neuron.num_features=3", "trainer.epochs=1"])
    with pytest.raises(spikecore.errors.ShapeError, match="3 channels"):
        spikecore.run(config, out=tmp_path / "run")


def test_importing_the_plugin_imports_no_torch():
    code = "import sys, spikecore_neuron_zoo.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
