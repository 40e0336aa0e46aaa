"""The registry by itself: the built-in table, qualified names, registration in this process, re-scans."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import spikecore
from spikecore.errors import BrokenPluginError, ContractError, PluginError, PluginUnavailable, UnknownComponentError
from spikecore.registry import Blocking, Registry, use
from spikecore.registry import metadata as metadata_module
from spikecore.registry.commands import COMMANDS
from spikecore.registry.metadata import GROUPS, kind_and_name, source_tree
from spikecore.testing.distributions import fake_distribution, isolated_registry
from tests.faulty_plugins import SOUND

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(spikecore.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {
    kind_and_name(group, name): target
    for group, points in PROJECT["entry-points"].items()
    if group in GROUPS
    for name, target in points.items()
}


def test_the_version_is_that_of_pyproject():
    assert PROJECT["version"] == spikecore.__version__


def test_a_core_without_metadata_and_source_tree_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata_module, "__file__", str(tmp_path / "spikecore/registry/metadata.py"))
    with pytest.raises(PluginError, match=r"no pyproject\.toml of its own beside it: install it again"):
        source_tree()
    with pytest.raises(PluginError, match="install it again"):
        Registry(path=[], blocking=Blocking(), builtins=True).entries()


@pytest.mark.parametrize(
    "text",
    ['[project]\nname = "mine"\nversion = "2"\n', "[tool.x]\n", "[project"],
)
def test_the_pyproject_of_another_program_is_not_taken_for_that_of_core(tmp_path, monkeypatch, text):
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(metadata_module, "__file__", str(tmp_path / "spikecore/registry/metadata.py"))
    with pytest.raises(PluginError, match="of its own beside it"):
        source_tree()


def test_every_command_has_its_module():
    assert {name for name in COMMANDS if not (ROOT / f"spikecore/cli/{name.replace('-', '_')}.py").is_file()} == set()


def test_core_works_from_a_source_tree_without_metadata(tmp_path):
    bare = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)
    assert {(entry.kind, entry.name): entry.target for entry in bare.entries()} == DECLARED
    assert bare.plugins()[0].id == "core"


def test_metadata_of_another_core_are_not_believed(tmp_path):
    fake_distribution(tmp_path, "spikecore", {"spikecore.neurons": {"lif": "old.place:LIF"}}, version="0.0.1")
    entries = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True).components("neuron")
    assert {entry.target for entry in entries if entry.name == "lif"} == {DECLARED["neuron", "lif"]}


def test_a_plugin_installed_later_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=False)
    with pytest.raises(UnknownComponentError):
        registry.find("backend", "late")
    fake_distribution(tmp_path, "l", {"spikecore.backends": {"late": "late_mod:Good"}}, modules={"late_mod.py": SOUND})
    assert registry.load("backend", "late").__name__ == "Good"


def test_a_name_may_have_a_colon_of_its_own(tmp_path):
    points = {"spikecore.datasets": {"other:Set": "a:Set", "Set": "a:Plain"}}
    fake_distribution(tmp_path, "a", points)
    fake_distribution(tmp_path, "other", {"spikecore.datasets": {"Own": "b:Own"}})
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=False)
    assert registry.find("dataset", "other:Set").target == "a:Set"
    assert registry.find("dataset", "a:Set").target == "a:Plain"
    assert all(registry.find("dataset", entry.qualified) == entry for entry in registry.components("dataset"))
    assert registry.find("dataset", "other:Own").target == "b:Own"
    with pytest.raises(UnknownComponentError):
        registry.find("dataset", "other:Nothing")


def test_damaged_metadata_are_broken_only_for_who_asks(tmp_path):
    fake_distribution(tmp_path, "d", {"spikecore.backends": {"hurt": "hurt:Good"}})
    (tmp_path / "d-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe no")
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)
    assert registry.find("neuron", "lif").status == "ok"
    with pytest.raises(BrokenPluginError, match="cannot be read"):
        registry.find("backend", "hurt")


def test_unavailable_is_told_with_its_hint_and_owner(tmp_path, monkeypatch):
    source = "from spikecore.errors import PluginUnavailable\nraise PluginUnavailable('needs CUDA', 'get a GPU')"
    fake_distribution(tmp_path, "u", {"spikecore.backends": {"gpu": "gpu_mod:Good"}}, modules={"gpu_mod.py": source})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginUnavailable, match=r"u 1\.0.*needs CUDA \(get a GPU\)"):
        Registry(path=[str(tmp_path)], blocking=Blocking()).load("backend", "gpu")


def test_strict_lets_the_original_through(tmp_path, monkeypatch):
    source = "raise KeyError('mine')"
    fake_distribution(tmp_path, "k", {"spikecore.backends": {"k": "k_mod:Good"}}, modules={"k_mod.py": source})
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry(path=[str(tmp_path)], blocking=Blocking())
    with pytest.raises(BrokenPluginError, match="KeyError"):
        registry.load("backend", "k")
    monkeypatch.setenv("SPIKE_PLUGIN_STRICT", "1")
    with pytest.raises(KeyError, match="mine"):
        registry.load("backend", "k")


def sound():
    space = {}
    exec(SOUND, space)
    return space["Good"]


def test_registration_in_this_process():
    registry = isolated_registry()
    good = registry.register("backend", "mine")(sound())
    assert registry.load("backend", "mine") is good
    assert registry.name_of(good) == registry.name_of(good()) == "mine"
    with pytest.raises(PluginError, match="already offered"):
        registry.register("backend", "mine", sound())
    other = sound()
    assert registry.register("backend", "mine", other, replace=True) is registry.load("backend", "mine") is other
    for name in ("", "a:b", " x"):
        with pytest.raises(PluginError, match="cannot be named"):
            registry.register("backend", name, sound())
    with pytest.raises(ContractError, match="not a backend"):
        registry.register("backend", "three", 3)


def test_a_registry_in_use_answers_the_module_functions():
    registry = isolated_registry()
    with use(registry):
        spikecore.register("backend", "here", sound())
        assert registry.find("backend", "here").plugin.is_runtime
    with pytest.raises(UnknownComponentError):
        spikecore.registry.find("backend", "here")


def test_plugins_are_switched_off_for_a_copy_only(tmp_path):
    fake_distribution(tmp_path, "x", {"spikecore.backends": {"x": "x:X"}})
    registry = Registry(path=[str(tmp_path)], blocking=Blocking())
    less = registry.without(["X"], by="a test")
    assert less.components("backend")[-1].reason == "switched off by a test"
    assert registry.components("backend")[-1].status == "ok"
    with pytest.raises(PluginError, match="cannot be blocked"):
        registry.without(["core"])


def test_our_entry_points_are_those_python_sees():
    seen = {
        kind_and_name(p.group, p.name): p.value
        for group in GROUPS
        for p in entry_points(group=group)
        if "spikecore." in p.value
    }
    missing = {key: value for key, value in DECLARED.items() if seen.get(key) != value}
    assert not missing, "installed metadata are older than pyproject.toml: install again"
