"""Every example runs, by the command in its first line."""

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".toml"))


SHORT = {"cartpole_ppo.toml": ["--set", "trainer.iterations=2", "--set", "trainer.test_episodes=2"]}
"""Examples that train for more than a few seconds → what makes them shorter here."""
NEEDS = {"optuna_sweep.py": "optuna", "lightning_digits.py": "lightning"}
"""Examples that work with another tool. Without it they are skipped, in `make check` they fail."""


def command(path):
    return shlex.split(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def test_there_are_examples():
    assert len(EXAMPLES) >= 4
    assert all(str(path.relative_to(ROOT)) in command(path) for path in EXAMPLES)


@pytest.mark.parametrize("line", sorted({tuple(command(path)) for path in EXAMPLES}), ids=" ".join)
def test_an_example_runs(line, tmp_path):
    program, *arguments = line
    needed = NEEDS.get(Path(line[-1]).name)
    if needed and find_spec(needed) is None:
        assert not os.environ.get("SPIKE_EXAMPLES"), f"{needed} is not installed: make check installs it"
        pytest.skip(f"{needed} is not installed here; make check installs it")
    start = {"python": [sys.executable], "spike": [sys.executable, "-m", "spikecore"]}[program]
    # In an empty directory, so that nothing is left in the tree.
    whole = [str(ROOT / part) if part.startswith("examples/") else part for part in arguments]
    whole += next((more for name, more in SHORT.items() if line[-1].endswith(name)), [])
    done = subprocess.run([*start, *whole], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_neuron_of_the_examples_conforms(tmp_path):
    """What an example shows must pass the kit that the docs send its reader to."""
    file = str(ROOT / "examples" / "own_neuron.py")
    line = [sys.executable, "-m", "spikecore", "test", "neuron:adaptive_threshold", "--load", file]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " passed, " in done.stdout.splitlines()[-1]
