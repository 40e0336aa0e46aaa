"""What core exports to plugins is pinned: an accidental export, or a lost one, is seen in the review."""

from importlib import import_module

import pytest

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


def test_there_are_doors():
    assert {"spikecore", "spikecore.nn", "spikecore.interfaces", "spikecore.datasets"} <= set(doors.doors())
