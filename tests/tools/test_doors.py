"""What core exports to plugins is pinned: an accidental export, or a lost one, is seen in the review."""

import ast
from importlib import import_module

import pytest

from spikecore.kinds import KINDS
from spikecore.scaffold import render
from tests.tools import doors


def test_the_exported_names_are_the_pinned_ones():
    assert doors.generated() == doors.FILE.read_text(encoding="utf-8"), "wanted? then run `make doors`"


@pytest.mark.parametrize("door", doors.doors())
def test_every_exported_name_exists(door):
    module = import_module(door)
    names = doors.exported(door)
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


@pytest.mark.parametrize("door", doors.doors())
def test_a_door_without_a_list_defines_nothing(door):
    module = import_module(door)
    if not hasattr(module, "__all__"):
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == door}
        assert own == set(), "list what plugins may import in __all__"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_new_plugin_imports_doors_only(kind, tmp_path):
    directory = render("fresh-thing", kind, tmp_path)
    for path in directory.glob("src/*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            ours = {module for module in modules if module.partition(".")[0] == "spikecore"}
            assert ours <= set(doors.doors()), path.name


def test_the_suite_of_every_kind_is_exported():
    assert {f"{kind.capitalize()}Suite" for kind in KINDS} <= set(doors.exported("spikecore.testing"))


def test_there_are_doors():
    assert {"spikecore", "spikecore.nn", "spikecore.interfaces", "spikecore.datasets"} <= set(doors.doors())
