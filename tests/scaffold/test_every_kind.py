"""The plugin of every kind, as `spike new-plugin` makes it: installs, lists, conforms, passes its tests, lints clean.

`make check` gives SPIKE_SCAFFOLD_PYTHON, the interpreter of an environment that holds core with [testing] and ruff. All
kinds are made, installed and tested in one go: each start of a process with torch costs more than most of the checks.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spikecore.kinds import KINDS

PYTHON = os.environ.get("SPIKE_SCAFFOLD_PYTHON", "")
LONGEST = "a23456789-b23456789-c23456789-d23456"
ROOT = Path(__file__).parents[2]
PLUGINS = [f"fresh-{kind}" for kind in sorted(KINDS)]
PIP = [sys.executable, "-m", "pip", "--python", PYTHON, "--disable-pip-version-check"]


def call(*command, cwd, **environment):
    """Output of a command; its failure fails the test, with all that it said."""
    env = {**os.environ, **environment}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run(*arguments, cwd):
    return call(PYTHON, "-m", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind's plugin, made and installed."""
    directory = tmp_path_factory.mktemp("plugins")
    for kind, name in zip(sorted(KINDS), PLUGINS, strict=True):
        run("spikecore", "new-plugin", name, "--kind", kind, "--dest", directory, "--core", ROOT, cwd=directory)
    editable = [part for name in PLUGINS for part in ("-e", directory / name)]
    call(*PIP, "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", *editable, cwd=directory)
    yield directory
    call(*PIP, "uninstall", "-q", "-y", *(f"spikecore-{name}" for name in PLUGINS), cwd=directory)


def test_all_are_listed_and_sound(folder):
    listed = json.loads(run("spikecore", "list-plugins", "--format", "json", cwd=folder))["components"]
    rows = {(row["plugin"], row["kind"], row["name"]): row["status"] for row in listed}
    for kind in KINDS:
        assert rows[f"fresh-{kind}", kind, "fresh"] == "ok"
    run("spikecore", "doctor", *PLUGINS, cwd=folder)


def test_info_of_each(folder):
    code = "import sys; from spikecore.cli import spike\nfor kind in sys.argv[1:]: spike(['info', kind, 'fresh'], "
    out = call(PYTHON, "-c", f"{code}standalone_mode=False)", *sorted(KINDS), cwd=folder)
    for kind in KINDS:
        assert f"fresh-{kind}" in out


def test_their_own_tests_pass_and_hold_the_conformance_suite(folder):
    """In one session; each plugin's tests hold the suite of its kind, which `spike test` runs too."""
    report = folder / "report.xml"
    paths = [folder / name / "tests" for name in PLUGINS]
    options = ["-q", "-p", "no:cacheprovider", "-c", folder / PLUGINS[0] / "pyproject.toml", f"--rootdir={folder}"]
    run("pytest", *options, f"--junitxml={report}", *paths, cwd=folder)
    passed = Counter()
    for case in ET.parse(report).iter("testcase"):
        if not list(case):  # neither skipped nor failed
            plugin, _, module = case.get("classname").split(".")[:3]
            passed[plugin, module] += 1
    for name in PLUGINS:
        assert passed[name, "test_conformance"] >= 3
        assert passed[name, "test_component"] >= 1


@pytest.mark.parametrize("kind", ["surrogate", "deployer"])
def test_the_command_proves_them(folder, kind):
    out = run("spikecore", "test", f"{kind}:fresh", cwd=folder)
    assert f"{kind}:fresh" in out


def test_alone_in_its_own_directory(folder):
    """As an author types it, with the settings of its own pyproject.toml."""
    run("pytest", "-q", cwd=folder / "fresh-surrogate")


def test_the_longest_names_too_lint_clean(folder, tmp_path):
    for kind in sorted(KINDS):
        shutil.copytree(folder / f"fresh-{kind}", tmp_path / f"fresh-{kind}")
        into = tmp_path / kind
        run("spikecore", "new-plugin", LONGEST, "--kind", kind, "--dest", into, cwd=tmp_path)
    run("ruff", "check", ".", cwd=tmp_path)
    run("ruff", "format", "--check", ".", cwd=tmp_path)


class Index(BaseHTTPRequestHandler):
    """A package index that has nothing, and remembers what it was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path.strip("/"))
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def steps_of(workflow):
    """The shell text of the workflow's first two steps that run something: core, then the plugin."""
    lines = workflow.read_text().splitlines()
    start = lines.index("        run: |") + 1
    end = next(number for number, line in enumerate(lines) if line.startswith("      - run: pip install"))
    core = "\n".join(line.strip() for line in lines[start:end])
    return core, lines[end].removeprefix("      - run: ")


def test_ci_never_asks_an_index_for_core(folder, index, tmp_path):
    """The workflow's own lines, with an index that remembers: core comes from the place that `--core` gave."""
    plugin = tmp_path / "fresh-neuron"
    shutil.copytree(folder / "fresh-neuron", plugin)
    core, install = steps_of(plugin / ".github/workflows/test.yml")
    shims = tmp_path / "bin"
    shims.mkdir()
    # Only what the constraint decides is wanted: no build in isolation, nothing is installed.
    shims.joinpath("pip").write_text(f'#!/bin/sh\nexec "{PYTHON}" "{tmp_path}/pip.py" "$@"\n')
    shims.joinpath("pip").chmod(0o755)
    dry = "arguments[1:1] = ['--dry-run', '--ignore-installed'] if arguments[0] == 'install' else []"
    tmp_path.joinpath("pip.py").write_text(
        f"import runpy, sys\nsys.path.insert(0, {pip_location()!r})\narguments = sys.argv[1:]\n"
        f"arguments[1:1] = ['--no-build-isolation']\n{dry}\nsys.argv[1:] = arguments\n"
        "runpy.run_module('pip', run_name='__main__')\n"
    )
    install = install.replace(" ruff", "")  # pip stops at the first that the index lacks; the plugin's own come then
    host, port = index.server_address
    environment = {
        **os.environ,
        "PATH": f"{shims}:{os.environ['PATH']}",
        "PIP_INDEX_URL": f"http://{host}:{port}",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "SPIKECORE": str(ROOT),
    }

    def shell(text, **changes):
        env = {**environment, **changes}
        return subprocess.run(["bash", "-e", "-c", text], cwd=plugin, env=env, capture_output=True, text=True)

    done = shell(core)
    assert done.returncode == 0, done.stderr
    assert [path.name[:10] for path in plugin.glob(".core/*.whl")] == ["spikecore-"]
    done = shell(install)
    assert index.asked, f"the requirements of core and plugin are asked for\n{done.stdout}\n{done.stderr}"
    assert "spikecore" not in index.asked
    # Without the constraint it would have been, which is what makes this test bite.
    shell(install.replace("-c .core/constraint.txt ", ""))
    assert "spikecore" in index.asked
    for wrong in ("", "spikecore", "spikecore==0.1.0"):
        done = shell(core, SPIKECORE=wrong)
        assert done.returncode == 1
        assert "set the repository variable SPIKECORE" in done.stdout


def pip_location():
    import pip

    return str(Path(pip.__file__).parents[1])
