"""The plugin of every kind, as `spike new-plugin` makes it: installs, lists, conforms, passes its tests, lints clean.

`make check` gives SPIKE_SCAFFOLD_PYTHON, the interpreter of an environment that holds core with [testing] and ruff.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from spikecore.kinds import KINDS

PYTHON = os.environ.get("SPIKE_SCAFFOLD_PYTHON", "")
LONGEST = "a23456789-b23456789-c23456789-d23456"
ROOT = Path(__file__).parents[2]


def run(*arguments, cwd):
    """Output of `python -m …`; its failure fails the test, with all that it said."""
    done = subprocess.run([PYTHON, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def plugin(tmp_path, request):
    kind = request.param
    run("spikecore", "new-plugin", f"fresh-{kind}", "--kind", kind, "--dest", tmp_path, cwd=tmp_path)
    directory = tmp_path / f"fresh-{kind}"
    run("pip", "install", "-q", "-c", ROOT / "constraints.txt", "-e", f"{directory}[testing]", cwd=tmp_path)
    yield kind, directory
    run("pip", "uninstall", "-q", "-y", f"spikecore-fresh-{kind}", cwd=tmp_path)


def test_the_kinds_are_there():
    assert len(KINDS) >= 9


@pytest.mark.parametrize("plugin", sorted(KINDS), indirect=True)
def test_a_new_plugin_needs_no_edit(plugin, tmp_path):
    kind, directory = plugin
    listed = json.loads(run("spikecore", "list-plugins", "--plugin", f"fresh-{kind}", "--format", "json", cwd=tmp_path))
    (row,) = listed["components"]
    assert (row["kind"], row["name"], row["status"]) == (kind, "fresh", "ok")
    run("spikecore", "doctor", f"fresh-{kind}", cwd=tmp_path)
    run("spikecore", "info", kind, "fresh", cwd=tmp_path)
    passed = run("spikecore", "test", f"{kind}:fresh", cwd=tmp_path)
    assert int(re.search(r"(\d+) passed", passed)[1]) >= 3
    run("pytest", "-q", cwd=directory)
    run("ruff", "check", ".", cwd=directory)
    run("ruff", "format", "--check", ".", cwd=directory)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_longest_name_lints_clean_too(kind, tmp_path):
    run("spikecore", "new-plugin", LONGEST, "--kind", kind, "--dest", tmp_path, cwd=tmp_path)
    run("ruff", "check", LONGEST, cwd=tmp_path)
    run("ruff", "format", "--check", LONGEST, cwd=tmp_path)
