"""The table of suites: what each runs, its CPU budget, and which has all threads.

A budget is the CPU time of the tests, children included, in seconds of the machine that `speed.py` names; on another it
is stretched as much as that one is slower. It is at least 1.5 times what the tests need, since a loaded machine needs
more for the same work. A suite that outgrows its budget fails with its name: make it faster, put full products behind
SPIKE_FULL, or raise the budget here and say why.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spikecore.pythons import find_python
from tests.suites import environments
from tests.suites.environments import ENVS, call, copy_by_links, pip
from tests.suites.places import BUILD, ROOT, plugins
from tests.tools import release

OTHER_PYTHONS = ("3.10", "3.12", "3.13")
NOT_CORE = ("closing", "alone", "browser", "examples", "firsthour", "integration", "scaffold", "peers", "site")
"""Folders of tests that are not part of the suite `core`."""

BUDGETS_S = {
    "core": 3000,  # every component of core, planted faults, processes that are killed: 1700 s
    "plugin-cpu-backend": 1250,  # products, norms and their choice compile C for each program: 790 s
    "plugin-cupy-backend": 480,
    "plugin-triton-backend": 300,
    "plugin-neuron-zoo": 400,
    "plugin-layer-zoo": 150,
    "plugin-ann2snn": 200,
    "plugin-datasets-dvs": 500,
    "plugin-datasets-vision": 300,
    "plugin-deploy-lava": 220,
    "plugin-deploy-lynxi": 250,
    "plugin-deploy-nir": 220,
    "plugin-deploy-onnx": 220,
    "plugin-rl-agents": 580,
    "plugin-training": 340,
    "plugin-zoo-resnet": 300,
    "plugin-zoo-transformer": 300,
    "plugin-zoo-vgg": 250,
    "check-wheels": 400,  # sdists too, and an environment of lowest versions
    "check-examples": 300,  # with Optuna and Lightning
    "check-scaffold": 375,
    "check-peers": 300,
    "check-browser": 180,
    "check-integration": 1050,
    "check-external": 375,
    "check-site": 375,  # builds it; its pages in a browser
    "check-first-hour": 1000,  # README and ten tutorials of 10 to 20 s each, in a clone with an environment of its own
    **{f"python{version}": 180 for version in OTHER_PYTHONS},
}
NEW_PLUGIN_BUDGET_S = 450
"""A plugin that the table does not name yet."""

EXTERNAL = ROOT / "examples/external-plugin"
"""A plugin as a third party writes it."""

ALL_THREADS = {
    "plugin-cpu-backend": "its tests count the threads of the pool, pin them to cores and fork while they run",
}
"""Suites that may use every core, with the reason; the others have one thread."""


@dataclass(frozen=True)
class Suite:
    """One suite.

    Args:
        name: what users type, and what the closing report shows.
        action: `test` or `check`.
        prepare: makes its environment and returns its Python; None where that Python is not on this machine.
        pytest_arguments: what its pytest runs; empty where `prepare` is all there is.
        environment: further variables.
    """

    name: str
    action: str
    prepare: Callable[[], Path | None]
    pytest_arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def budget_s(self) -> float | None:
        """The most CPU time that its tests may take; the full products have no budget."""
        return None if os.environ.get("SPIKE_FULL") else BUDGETS_S.get(self.name, NEW_PLUGIN_BUDGET_S)


def suites() -> dict[str, Suite]:
    """All suites by name."""
    return {suite.name: suite for suite in (*_tests(), *_checks())}


def _tests() -> list[Suite]:
    """Core, each plugin alone, and the torch-free part on other Pythons."""
    ignored = tuple(f"--ignore=tests/{name}" for name in NOT_CORE)
    tests = [Suite("core", "test", _this_python, ("tests", *ignored), {})]
    for plugin in plugins():
        arguments = rooted(plugin)
        paths = (str(plugin / "tests"), str(ROOT / "tests/alone"))
        prepare, variables = _of_plugin(plugin), {}
        if plugin.name == "deploy-lava":
            prepare, variables = _with_lava(prepare), {"SPIKE_LAVA_PYTHON": str(ENVS / "lava/bin/python")}
        tests.append(Suite(f"plugin-{plugin.name}", "test", prepare, (*arguments, *paths), variables))
    tests += [Suite(f"python{v}", "test", _other_python(v), ("tests/torchfree",), {}) for v in OTHER_PYTHONS]
    return tests


def rooted(project: Path) -> tuple[str, ...]:
    """What pytest needs to run the tests of a project of its own in this repository."""
    return ("-c", str(ROOT / "pyproject.toml"), f"--rootdir={project}")


def _checks() -> list[Suite]:
    """Wheels, examples, new plugins, parity with other libraries, a browser, all plugins together."""
    read = ("formats", "streams", "writing", "other_readers")
    computed = ("frames", "filters", "surfaces", "slices", "tonic")
    events = [f"plugins/datasets-dvs/tests/test_{name}.py" for name in (*read, *computed)]
    scaffold = {"SPIKE_SCAFFOLD_PYTHON": str(ENVS / "scaffold/bin/python")}
    return [
        Suite("check-wheels", "check", wheels, (), {}),
        Suite("check-examples", "check", _examples, ("tests/examples",), {"SPIKE_EXAMPLES": "1"}),
        Suite("check-scaffold", "check", _scaffold, ("tests/scaffold",), scaffold),
        Suite("check-peers", "check", _peers, ("tests/peers", *events), {"SPIKE_PEERS": "1"}),
        Suite("check-browser", "check", _browser, ("tests/browser",), {}),
        Suite("check-integration", "check", _all_plugins, ("tests/integration",), {}),
        Suite("check-external", "check", _external, (*rooted(EXTERNAL), str(EXTERNAL / "tests")), {}),
        Suite("check-site", "check", _site, ("tests/site",), {}),
        Suite("check-first-hour", "check", _first_hour, ("tests/firsthour",), {}),
    ]


def _this_python() -> Path:
    return Path(sys.executable)


def _of_plugin(plugin: Path) -> Callable[[], Path]:
    return lambda: environments.environment(plugin.name, [plugin]) / "bin/python"


def _with_lava(prepare: Callable[[], Path]) -> Callable[[], Path]:
    """With an environment for lava-nc beside it; where there is no Python 3.10, the tests that need it say so."""

    def prepare_both() -> Path:
        interpreter = find_python("3.10")
        if interpreter is not None:
            environments.lava_environment(interpreter)
        return prepare()

    return prepare_both


def _other_python(version: str) -> Callable[[], Path | None]:
    def prepare() -> Path | None:
        interpreter = find_python(version)
        if interpreter is None:
            return None
        return environments.torchfree_environment(version, interpreter) / "bin/python"

    return prepare


def _scaffold() -> Path:
    """Core and ruff: the new plugins are installed into it by the tests; the tests themselves run in this Python."""
    base, env = environments.core_base(), ENVS / "scaffold"

    def make() -> None:
        copy_by_links(base, env)
        pip(env, "ruff", "setuptools")

    environments.make_once(env, [base / environments.STAMP], make)
    return Path(sys.executable)


def _peers() -> Path | None:
    if sys.version_info < (3, 11):
        return None  # spikingjelly needs it
    return environments.peers_environment() / "bin/python"


def _all_plugins() -> Path:
    return environments.plugins_environment() / "bin/python"


def _external() -> Path:
    return environments.external_environment(EXTERNAL) / "bin/python"


def _site() -> Path:
    return environments.site_environment() / "bin/python"


def _first_hour() -> Path:
    """Its environment is made by what README says, from the files of this one."""
    environments.core_base()
    return Path(sys.executable)


def _examples() -> Path:
    """Some examples name a plugin's trainer, others work with Optuna or Lightning."""
    return environments.examples_environment() / "bin/python"


def _browser() -> Path:
    """Reports are looked at in a headless Chromium, which this does not install: a missing one is a failure."""
    if shutil.which("chromium") is None:
        raise OSError("chromium is not installed: apt-get install -y chromium")
    return Path(sys.executable)


def wheels() -> Path:
    """Core alone from its wheel, then with every plugin's wheel, in an empty directory outside the source tree.

    Each wheel is built from its sdist. At the end all of it once more, on the lowest versions that we declare.
    """
    built, env, empty = BUILD / "wheels", ENVS / "wheels", BUILD / "empty"
    for path in (empty, env):
        shutil.rmtree(path, ignore_errors=True)
    empty.mkdir(parents=True)
    sources = [ROOT, *plugins()]
    release.build(sources, built)
    wrong = [problem for source in sources for problem in release.problems(source, built)]
    if wrong:
        raise OSError("\n".join(wrong))
    copy_by_links(environments.torch_base(), env)
    spike = env / "bin/spike"
    pip(env, *built.glob("spikecore-*.whl"))
    call(spike, "list-plugins", "--check", cwd=empty)
    call(spike, "run", cwd=empty)
    for kind in ("neuron", "backend"):  # the templates are in the wheel
        call(spike, "new-plugin", f"fresh-{kind}", "--kind", kind, cwd=empty)
    pip(env, *(path for path in built.glob("*.whl") if not path.name.startswith("spikecore-")))
    call(sys.executable, "-m", "pip", "--python", env / "bin/python", "check", cwd=empty)
    call(spike, "doctor", cwd=empty)
    call(spike, "run", "--set", "neuron.name=izhikevich", "--set", "trainer.epochs=2", cwd=empty)
    lowest = environments.floors_environment(built, release.floors())
    call(lowest / "bin/spike", "list-plugins", "--check", cwd=empty)  # imports every component
    call(lowest / "bin/spike", "run", "--set", "trainer.epochs=1", cwd=empty)
    return env / "bin/python"
