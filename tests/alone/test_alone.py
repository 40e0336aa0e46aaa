"""Run with every plugin's tests: its environment holds core, this plugin and what they require, and no other plugin."""

import os
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

import spikecore
from spikecore.registry import components, load, plugins

SOURCE = Path(spikecore.__file__).resolve().parents[1]


@pytest.fixture
def folder(request):
    return Path(request.config.rootpath)


def test_only_this_plugin_is_here(folder):
    ours = {plugin.distribution for plugin in plugins()}
    assert ours == {"spikecore", f"spikecore-{folder.name}"}


def test_the_environment_is_its_own_and_shares_torch_by_hard_links():
    """All that is importable lies in this environment; the bytes of torch are those of every other environment."""
    import torch

    env = Path(sys.prefix)
    places = {Path(str(distribution.locate_file(""))).resolve() for distribution in distributions()}
    assert {place for place in places if env not in place.parents} <= {SOURCE, Path.cwd()}
    assert Path(torch.__file__).stat().st_nlink > 1
    base = env.parent / "core"
    assert os.path.samefile(torch.__file__, base / Path(torch.__file__).relative_to(env))


def test_the_base_holds_no_plugin():
    base = next(Path(sys.prefix).parent.joinpath("core", "lib").glob("python*/site-packages"))
    names = {path.name for path in base.glob("*.dist-info") if path.name.startswith("spikecore")}
    assert len(names) == 1, "core alone"


def test_names_follow_from_the_folder(folder):
    (plugin,) = [plugin for plugin in plugins() if plugin.distribution != "spikecore"]
    assert plugin.id == folder.name
    assert plugin.target.split(".")[0] == f"spikecore_{folder.name.replace('-', '_')}"
    assert (folder / "CHANGELOG.md").read_text().split("## ")[1].split()[0] == plugin.version


def test_every_component_loads(folder):
    mine = [entry for entry in components() if entry.plugin.id == folder.name]
    for entry in mine:
        assert entry.status == "ok"
        load(entry.kind, entry.name)


def test_every_component_is_proved(folder, request):
    if request.config.option.keyword or request.config.option.markexpr:
        pytest.skip("some tests were left out by -k or -m")
    from spikecore.testing.suite import Suite

    classes = {item.cls for item in request.session.items if getattr(item, "cls", None)}
    proved = {(cls.kind, cls.component.rpartition(":")[2]) for cls in classes if issubclass(cls, Suite)}
    mine = {(entry.kind, entry.name) for entry in components() if entry.plugin.id == folder.name}
    # What waits for its suite is told by name and reason, and leaves the list as soon as it has one.
    waiting = folder / "tests" / "unproved.txt"
    lines = waiting.read_text(encoding="utf-8").splitlines() if waiting.is_file() else []
    reasons = {tuple(what.split(":", 1)): reason for what, _, reason in (line.partition("  ") for line in lines)}
    assert all(reasons.values()), "each line of tests/unproved.txt is KIND:NAME, two spaces and a reason"
    assert mine - proved == set(reasons), "a conformance suite for each is missing in the plugin's tests"
