"""The pytest plugin is imported in every pytest session of a user, and imports nothing heavy; nor does `spike test`."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "hypothesis", "click", "rich", "matplotlib", "safetensors", "pluggy"}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import spikecore.testing.pytest_plugin", {"pluggy"}),  # pytest itself is built on it
        ("import spikecore.testing.proving, spikecore.testing.report", set()),
    ],
)
def test_nothing_heavy_is_loaded(code, allowed):
    code += "; import sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "spikecore" in loaded
    assert not loaded & (HEAVY - allowed)


def test_a_session_without_suites_imports_none(tmp_path):
    tmp_path.joinpath("test_mine.py").write_text(
        "import sys\n\n\ndef test_lean():\n"
        "    assert 'spikecore.testing.pytest_plugin' in sys.modules\n"
        "    assert not {'torch', 'numpy', 'spikecore.testing.suite', 'spikecore.registry'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
