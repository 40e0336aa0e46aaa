"""The architecture is enforced: each planted fault breaks a contract of `.importlinter`, which holds as it is.

Faults are planted into copies of the sources, and `lint-imports` is run there as `make lint` runs it. A run takes
seconds, so faults share a copy where they change different files and the linter reports them differently.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).parents[2]
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import spikecore_layer_zoo"
ZOO, LAYERS = "plugins/neuron-zoo/src/spikecore_neuron_zoo", "plugins/layer-zoo/src/spikecore_layer_zoo"


@dataclass(frozen=True)
class Fault:
    """Text that is added to files, and what the linter must say.

    Args:
        added: file → text at its end; a file that does not exist is made, so that no fault depends on today's files.
        says: a part of the linter's output.
    """

    added: dict[str, str]
    says: str


FAULTS = {
    "a module in no layer": Fault({"spikecore/helpers.py": ""}, "helpers"),
    "a lower layer imports a higher one": Fault(
        {"spikecore/backends/planted.py": "import spikecore.nn"},
        "spikecore.backends is not allowed to import spikecore.nn",
    ),
    "inside a function too": Fault(
        {"spikecore/dynamics/planted.py": "def late():\n    import spikecore.backends"},
        "spikecore.dynamics is not allowed to import spikecore.backends",
    ),
    "siblings of one layer": Fault(
        {"spikecore/models/planted.py": "import spikecore.trainers"},
        "spikecore.models is not allowed to import spikecore.trainers",
    ),
    "a lower layer goes round through the package": Fault(
        {"spikecore/dynamics/planted.py": "from spikecore import explain"},
        "spikecore.dynamics.planted (line",
    ),
    "a cycle inside dynamics": Fault(
        {
            "spikecore/dynamics/first.py": "import spikecore.dynamics.second",
            "spikecore/dynamics/second.py": "def late():\n    import spikecore.dynamics.first",
        },
        "No cycles are allowed in spikecore.dynamics.",
    ),
    "a cycle inside nn": Fault(
        {
            "spikecore/nn/layers/planted.py": "import spikecore.nn.planted",
            "spikecore/nn/planted.py": "import spikecore.nn.layers",
        },
        "No cycles are allowed in spikecore.nn.",
    ),
    "a cycle through the package around a module": Fault(
        {"spikecore/nn/layers/planted.py": "def late():\n    from spikecore.nn import Sequential"},
        "imports spikecore.nn, the package that it lies in",
    ),
    "a folder of core without __init__.py": Fault(
        {"spikecore/run/more/planted.py": "import spikecore_layer_zoo"}, "spikecore/run/more has no __init__.py"
    ),
    "a folder of a plugin without __init__.py": Fault(
        {f"{ZOO}/more/planted.py": "import spikecore_layer_zoo"}, "spikecore_neuron_zoo/more has no __init__.py"
    ),
    "a cycle inside a plugin": Fault(
        {f"{ZOO}/first.py": "from . import second", f"{ZOO}/second.py": "from . import first"},
        "No cycles are allowed in spikecore_neuron_zoo.",
    ),
    "a plugin imports a plugin": Fault(
        {f"{ZOO}/planted.py": "from spikecore_layer_zoo import steps"},
        "imports spikecore_layer_zoo.steps: a plugin must not import a plugin",
    ),
    "a plugin imports what is behind a door": Fault(
        {f"{LAYERS}/planted.py": "from spikecore.nn.layers import planted", "spikecore/nn/layers/planted.py": ""},
        "imports spikecore.nn.layers.planted: plugins import doors only",
    ),
    "a plugin imports a part of core without any door": Fault(
        {f"{ZOO}/planted.py": "from spikecore.registry.scan import scan"},
        "imports spikecore.registry.scan: plugins import doors only",
    ),
    "a plugin imports a plugin by a string": Fault(
        {f"{ZOO}/planted.py": "from importlib import import_module\nimport_module('spikecore_layer_zoo')"},
        "imports spikecore_layer_zoo: a plugin must not import a plugin",
    ),
    "a plugin imports a plugin for its types": Fault(
        {f"{ZOO}/planted.py": FOR_TYPES},
        "imports spikecore_layer_zoo: a plugin must not import a plugin",
    ),
    "a plugin imports by a string what is behind a door": Fault(
        {f"{ZOO}/planted.py": "import importlib\nimportlib.import_module('spikecore.nn.state')"},
        "imports spikecore.nn.state: plugins import doors only",
    ),
    "a plugin takes a name that a door does not export": Fault(
        {f"{ZOO}/planted.py": "from spikecore.nn import _planted"}, "uses spikecore.nn._planted"
    ),
    "a plugin reaches behind a door by attributes": Fault(
        {f"{ZOO}/planted.py": "from spikecore import nn\nKEPT = nn.state.stateful"}, "uses spikecore.nn.state"
    ),
    "a plugin reaches behind a door by attributes of core": Fault(
        {f"{ZOO}/planted.py": "import spikecore.nn\nKEPT = spikecore.nn.state.stateful"}, "uses spikecore.nn.state"
    ),
    "core imports a plugin for its types": Fault(
        {"spikecore/run/planted.py": FOR_TYPES},
        "imports spikecore_layer_zoo: core must not import a plugin",
    ),
    "core imports a plugin": Fault(
        {"spikecore/run/planted.py": "def late():\n    import spikecore_cpu_backend"},
        "imports spikecore_cpu_backend: core must not import a plugin",
    ),
    "core imports a plugin by a string": Fault(
        {"spikecore/run/planted.py": "from importlib import import_module\nimport_module('spikecore_cpu_backend')"},
        "holds the string 'spikecore_cpu_backend': core must not know a plugin",
    ),
    "a plugin that nothing checks": Fault(
        {"plugins/fresh/src/spikecore_fresh/__init__.py": "from spikecore_neuron_zoo import QIF"},
        "spikecore_fresh is missing in root_packages",
    ),
    "torch on the listing path": Fault({"spikecore/registry/scan.py": "import torch"}, "not allowed to import torch"),
    "torch behind a module on the listing path": Fault(
        {"spikecore/registry/files.py": "def late():\n    from spikecore.pythons import numbers",
         "spikecore/pythons.py": "def later():\n    import numpy"},
        "not allowed to import numpy",
    ),
    "torch in the package itself": Fault(
        {"spikecore/__init__.py": "import torch"}, "spikecore is not allowed to import torch"
    ),
    "torch in the package of commands": Fault(
        {"spikecore/cli/__init__.py": "def late():\n    import torch"}, "spikecore.cli is not allowed to import torch"
    ),
    "torch in the listing command": Fault(
        {"spikecore/cli/list_plugins.py": "def late():\n    from spikecore.nn import LIF"},
        "not allowed to import torch",
    ),
    "a run names a component's module": Fault(
        {"spikecore/run/planted.py": "def late():\n    from spikecore.datasets.digits import Digits"},
        "imports spikecore.datasets.digits, which holds a component",
    ),
    "a command names a component through a door": Fault(
        {"spikecore/cli/planted.py": "def late():\n    from spikecore.nn import (\n        Sequential,\n        LIF)"},
        "names the component LIF: ask the registry",
    ),
    "a run names a component by a relative import": Fault(
        {"spikecore/run/planted.py": "def late():\n    from ..nn import LIF"},
        "names the component LIF: ask the registry",
    ),
    "a run reaches a component as an attribute": Fault(
        {"spikecore/run/planted.py": "def late():\n    from spikecore import nn\n    return nn.Poisson()"},
        "names the component Poisson: ask the registry",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of all that the linter reads."""
    copy = tmp_path_factory.mktemp("sources") / "clean"
    ignored = shutil.ignore_patterns("__pycache__", "*.tmpl", "*.csv.gz", "*.egg-info")
    for name in ("spikecore", "tests/tools", *(f"{path.relative_to(ROOT)}" for path in ROOT.glob("plugins/*/src"))):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in (".importlinter", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    return copy


def lint(folder):
    """Exit status and output of the linter in a copy of the sources."""
    # Another process in another directory: nothing of this tree is on its path.
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "COLUMNS": "1000"}  # or long paths are broken in the middle of a word
    command = [sys.executable, "-c", code, "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_the_tree_as_it_is_keeps_all_contracts(sources):
    status, out = lint(sources)
    assert status == 0, out
    assert "0 broken" in out


def can_share(one, other):
    """Whether one output shows both: `says` must name the place that only this fault changes."""
    return not one.added.keys() & other.added.keys() and one.says not in other.says and other.says not in one.says


def groups():
    """Names of faults that share a copy."""
    made = []
    for name, fault in FAULTS.items():
        for group in made:
            if all(can_share(fault, FAULTS[other]) for other in group):
                group.append(name)
                break
        else:
            made.append([name])
    return made


@pytest.fixture(scope="module")
def outputs(sources, tmp_path_factory):
    """Fault → status and output of the linter where it is planted."""
    said = {}
    for group in groups():
        copy = tmp_path_factory.mktemp("planted") / "copy"
        shutil.copytree(sources, copy)
        for file, text in [added for name in group for added in FAULTS[name].added.items()]:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            with (copy / file).open("a") as source:
                source.write(f"\n{text}\n")
        said.update(dict.fromkeys(group, lint(copy)))
    return said


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(outputs, name):
    status, out = outputs[name]
    assert status == 1, f"not caught\n{out}"
    broken = out.partition("Broken contracts")[2]
    assert FAULTS[name].says in " ".join(broken.split()), out


def test_there_are_enough_faults():
    assert len(FAULTS) >= 14
