"""A file of components is taken whole or not at all."""

import os

import pytest

from spikecore.errors import BrokenPluginError, PluginError
from spikecore.registry import Blocking, Registry, use
from tests.faulty_plugins import SOUND

GOOD = f"{SOUND}\nimport spikecore\nspikecore.register('backend', 'first', Good{{more}})\n"


def backends(registry):
    return [entry.name for entry in registry.components("backend") if entry.plugin.is_runtime]


@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit", "spikecore.register('backend', 'first', Good)"])
def test_a_file_that_fails_leaves_nothing_registered(fault, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD.format(more="") + fault)
    with use(Registry(path=(), blocking=Blocking())) as registry:
        with pytest.raises(PluginError):
            registry.load_file(path)
        assert backends(registry) == []
        assert registry.files == []
        path.write_text(GOOD.format(more=""))  # repaired, as in a notebook: its name is not taken by its own remains
        registry.load_file(path)
        assert backends(registry) == ["first"]


def test_what_it_was_about_to_replace_comes_back(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(more=""))
    (tmp_path / "two.py").write_text(GOOD.format(more=", replace=True") + "1 / 0")
    with use(Registry(path=(), blocking=Blocking())) as registry:
        registry.load_file(tmp_path / "one.py")
        before = registry.load("backend", "first")
        with pytest.raises(BrokenPluginError, match="ZeroDivisionError"):
            registry.load_file(tmp_path / "two.py")
        assert registry.load("backend", "first") is before
        assert registry.name_of(before) == "first"
        assert [plugin.id for plugin in registry.files] == ["one"]


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(PluginError, match=r"--load .*pipe\.py: cannot be read: not a regular file"):
        Registry(path=(), blocking=Blocking()).load_file(tmp_path / "pipe.py")
