"""Importing and listing load nothing heavy, whatever is installed."""

import os
import subprocess
import sys

import pytest

import spikecore
from spikecore.testing.distributions import fake_distribution

HEAVY = {"torch", "numpy", "pydantic", "rich", "matplotlib", "safetensors"}


@pytest.mark.parametrize(
    "code",
    [
        "import spikecore",
        "from click.testing import CliRunner; from spikecore.cli import spike; "
        "r = CliRunner().invoke(spike, ['list-plugins']); assert r.exit_code == 0 and 'plug7' in r.output, r.output",
        "import spikecore.interfaces.neuron, spikecore.interfaces.backend, spikecore.interfaces.trainer",
    ],
)
def test_nothing_heavy_is_loaded(code, tmp_path):
    for index in range(20):
        group = {
            "spikecore.neurons": {f"n{index}": f"plug{index}:N"},
            "spikecore.plugins": {f"plug{index}": f"plug{index}"},
        }
        source = {f"plug{index}.py": "raise SystemExit('imported')"}
        fake_distribution(tmp_path, f"plug{index}", group, modules=source, requires=("spikecore>=0.1",))
    path = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(spikecore.__file__))])
    tail = "; import sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "spikecore" in loaded
    assert not loaded & HEAVY
    assert not any(name.startswith("plug") and name[4:].isdigit() for name in loaded)
