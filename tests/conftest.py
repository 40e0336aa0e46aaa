import os
import subprocess
import sys

import pytest

import spikecore

SOURCE = os.path.dirname(os.path.dirname(spikecore.__file__))


@pytest.fixture
def spike(tmp_path):
    """Run `spike` in a process of its own, with `tmp_path/site` on its path."""

    def call(*args, **environment):
        path = os.pathsep.join([str(tmp_path / "site"), SOURCE])
        env = {**os.environ, "PYTHONPATH": path, **environment}
        command = [sys.executable, "-m", "spikecore", *args]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    return call
