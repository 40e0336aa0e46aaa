"""Plugins that go wrong, each really installed: listing goes on; asked for by name, the error says all."""

import sys
from pathlib import Path

import pytest

import spikecore
from spikecore.errors import BrokenPluginError, ContractError, OptionError, UnknownComponentError
from spikecore.registry import Blocking, Registry
from spikecore.registry.catalogue import install_hint, known
from spikecore.testing.distributions import fake_distribution
from tests.faulty_plugins import FAULTS, SOUND, install, rows

if sys.version_info >= (3, 11):
    pass
else:
    pass

ROOT = Path(spikecore.__file__).parents[1]


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_bad_plugin_harms_only_those_who_ask_for_it(name, spike, tmp_path):
    fault = FAULTS[name]
    install(tmp_path, "rotten", fault.source, fault.requires, fault.target)
    install(tmp_path, "sound", SOUND, target="sound:Good", component="good")
    listing = rows(spike("list-plugins", "--format", "json"))
    assert ("spikecore-rotten", "backend", "mine") in listing
    assert spike("info", "backend", "good").returncode == 0
    asked = spike("info", "backend", "mine")
    assert asked.returncode == 2
    assert fault.says in asked.stderr
    assert "spikecore-rotten 1.0" in asked.stderr
    assert fault.target in asked.stderr
    assert "Traceback" not in asked.stderr


def test_check_tells_broken_from_unavailable(spike, tmp_path):
    install(tmp_path, "a", FAULTS["raises"].source, target="a_mod:Good", component="one")
    install(tmp_path, "b", FAULTS["dependency"].source, ("certainly-missing",), "b_mod:Good", "two")
    install(tmp_path, "c", SOUND, target="c_mod:Good", component="three")
    listing = rows(spike("list-plugins", "--check", "--kind", "backend", "--format", "json"))
    states = {name: row["status"] for (owner, _, name), row in listing.items() if owner != "spikecore"}
    assert states == {"one": "broken", "two": "unavailable", "three": "ok"}


def test_the_same_name_twice_is_ambiguous_until_qualified(spike, tmp_path):
    install(tmp_path, "a", SOUND, target="a_mod:Good")
    install(tmp_path, "b", SOUND, target="b_mod:Good")
    listing = rows(spike("list-plugins", "--format", "json"))
    assert {listing[f"spikecore-{x}", "backend", "mine"]["status"] for x in "ab"} == {"ambiguous"}
    asked = spike("info", "backend", "mine")
    assert asked.returncode == 2
    assert "spikecore-a:mine" in asked.stderr
    assert "spikecore-b:mine" in asked.stderr
    assert spike("info", "backend", "spikecore-b:mine").returncode == 0
    assert spike("info", "backend", "a:mine").returncode == 0


def test_a_built_in_name_is_reserved(spike, tmp_path):
    install(tmp_path, "a", SOUND, component="torch")
    listing = rows(spike("list-plugins", "--format", "json"))
    assert listing["spikecore-a", "backend", "torch"]["status"] == "shadowed"
    assert listing["spikecore", "backend", "torch"]["status"] == "ok"
    assert "spikecore-a" in spike("info", "backend", "spikecore-a:torch").stdout


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (("--no-plugin", "a"), {}),
        (("--no-plugin", "spikecore-a"), {}),
        (("--no-plugin", "all"), {}),
        ((), {"SPIKE_DISABLE_PLUGINS": "b,a"}),
        ((), {"SPIKE_PLUGINS": ""}),
    ],
)
def test_a_blocked_plugin_is_never_imported(flags, environment, spike, tmp_path):
    install(tmp_path, "a", "open('imported', 'w')\n" + SOUND)
    listing = rows(spike(*flags, "list-plugins", "--format", "json", **environment))
    assert listing["spikecore-a", "backend", "mine"]["status"] == "blocked"
    asked = spike(*flags, "info", "backend", "mine", **environment)
    assert asked.returncode == 2
    assert "blocked" in asked.stderr
    assert not (tmp_path / "imported").exists()
    assert spike("info", "backend", "mine").returncode == 0
    assert (tmp_path / "imported").exists()


def test_blocking_what_is_not_there_is_an_error(spike, tmp_path):
    install(tmp_path, "a", SOUND)
    done = spike("--no-plugin", "aa", "list-plugins")
    assert done.returncode == 2
    assert "--no-plugin aa: not installed (plugins: a, " in done.stderr


def test_unknown_names_answer_with_the_nearest(spike):
    asked = spike("info", "neuron", "lit")
    assert asked.returncode == 2
    assert "Did you mean 'li' or 'lif'?" in asked.stderr
    assert "did you mean 'neuron'" in spike("info", "neurons", "lif").stderr


def test_known_plugins_that_are_not_installed_come_with_their_line():
    line = "mnist is in the plugin datasets-vision: pip install ./plugins/datasets-vision in a checkout of spikecore"
    assert install_hint("dataset", "mnist") == install_hint("dataset", "spikecore-datasets-vision:mnist") == line
    assert install_hint("dataset", "tonic:SHD").startswith("tonic:SHD is in the plugin datasets-dvs")
    assert install_hint("neuron", "lif") == install_hint("neuron", "mnist") == ""


def test_a_known_name_is_not_guessed_at(tmp_path):
    """`n-mnist` is near, but `mnist` is a name: where it can be had comes first, and no guess misleads."""
    fake_distribution(tmp_path, "a", {"spikecore.datasets": {"n-mnist": "a:A"}})
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=False)
    with pytest.raises(UnknownComponentError) as refused:
        registry.find("dataset", "mnist")
    assert str(refused.value).startswith("no dataset 'mnist'. mnist is in the plugin datasets-vision: pip install")
    assert "Did you mean" not in str(refused.value)
    with pytest.raises(UnknownComponentError, match="Did you mean 'n-mnist'"):
        registry.find("dataset", "n-mnis")


@pytest.mark.parametrize("text", [None, "{", "[]"], ids=["missing", "damaged", "of another shape"])
def test_without_the_catalogue_only_suggestions_are_missing(tmp_path, monkeypatch, text):
    if text is not None:
        (tmp_path / "known.json").write_text(text)
    monkeypatch.setattr("spikecore.registry.catalogue.files", lambda package: tmp_path)
    known.cache_clear()
    try:
        assert known() == {}
        with pytest.raises(UnknownComponentError, match=r"^no dataset 'mnist'\. (Did you mean .*)?Known datasets: "):
            Registry(blocking=Blocking()).find("dataset", "mnist")
        assert Registry(blocking=Blocking()).find("neuron", "lif").status == "ok"
    finally:
        known.cache_clear()


def test_a_broken_command_stays_visible(spike, tmp_path):
    fake_distribution(tmp_path / "site", "x", {"spikecore.commands": {"fly": "no_such:fly"}})
    assert "fly" in spike("--help").stdout
    asked = spike("fly")
    assert asked.returncode == 2
    assert "no_such" in asked.stderr


COMMAND = """
import click

@click.command()
@click.option("--code", type=int)
@click.pass_context
def fly(context, code):
    context.exit(code)
"""


def test_the_exit_status_of_a_plugins_command_is_kept(spike, tmp_path):
    fake_distribution(tmp_path / "site", "x", {"spikecore.commands": {"fly": "fly:fly"}}, modules={"fly.py": COMMAND})
    assert spike("fly", "--code", "3").returncode == 3
    assert spike("fly", "--code", "0").returncode == 0


def test_a_command_that_may_not_run_says_why(spike, tmp_path):
    site = tmp_path / "site"
    for name in ("one", "two"):
        fake_distribution(site, name, {"spikecore.commands": {"fly": "fly:fly"}}, modules={"fly.py": COMMAND})
    fake_distribution(site, "newer", {"spikecore.commands": {"swim": "fly:fly"}}, requires=("spikecore>=99",))
    asked = spike("fly")
    assert asked.returncode == 2
    assert "write 'one:fly' or 'two:fly'" in asked.stderr
    assert spike("two:fly", "--code", "4").returncode == 4
    assert spike("--no-plugin", "two", "fly", "--code", "5").returncode == 5
    asked = spike("--no-plugin", "all", "two:fly")
    assert asked.returncode == 2
    assert "command 'fly' (two 1.0, entry point 'fly:fly') is blocked: switched off by --no-plugin" in asked.stderr
    asked = spike("swim")
    assert asked.returncode == 2
    assert "needs spikecore>=99" in asked.stderr


def test_a_mistyped_command_gets_the_nearest_name(spike):
    asked = spike("lst-plugins")
    assert asked.returncode == 2
    assert "Did you mean 'list-plugins'?" in asked.stderr


def test_a_plugin_of_commands_alone_is_listed(spike, tmp_path):
    fake_distribution(tmp_path / "site", "x", {"spikecore.commands": {"fly": "no_such:fly"}})
    assert rows(spike("list-plugins", "--format", "json"))["x", "command", "fly"]["status"] == "ok"
    assert list(rows(spike("list-plugins", "--kind", "command", "--format", "json"))) == [("x", "command", "fly")]
    checked = rows(spike("list-plugins", "--plugin", "x", "--check", "--format", "json"))
    assert checked["x", "command", "fly"]["status"] == "broken"


STARTS = {
    "KeyError: 'x'": "raise KeyError('x')",
    "SystemExit: 0": "raise SystemExit(0)",
    "GeneratorExit": "raise GeneratorExit",
    "TypeError: ": "len(3)",
}


@pytest.mark.parametrize("says", STARTS)
def test_whatever_a_constructor_raises_names_the_plugin_and_the_line(says, tmp_path, monkeypatch):
    source = SOUND + f"    def __init__(self):\n        {STARTS[says]}\n"
    number = source.count("\n")
    install(tmp_path, "rotten", source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "rotten", raising=False)
    registry = Registry(path=[str(tmp_path / "site")], blocking=Blocking())
    with pytest.raises(BrokenPluginError) as caught:
        registry.create("backend", "mine")
    assert "(spikecore-rotten 1.0, entry point 'rotten:Good') failed to start in " in str(caught.value)
    assert f"rotten.py:{number}: {says}" in str(caught.value)
    monkeypatch.setenv("SPIKE_PLUGIN_STRICT", "1")
    with pytest.raises(type(caught.value.__cause__)):
        registry.create("backend", "mine")


def test_a_wrong_call_and_an_error_of_ours_are_the_callers(tmp_path, monkeypatch):
    source = (
        "from spikecore.errors import OptionError\n"
        + SOUND
        + ("    def __init__(self, depth=1):\n        if depth < 0: raise OptionError('too small')\n")
    )
    install(tmp_path, "rotten", source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "rotten", raising=False)
    registry = Registry(path=[str(tmp_path / "site")], blocking=Blocking())
    with pytest.raises(TypeError, match="breadth"):
        registry.create("backend", "mine", breadth=2)
    with pytest.raises(OptionError, match="too small"):
        registry.create("backend", "mine", depth=-1)
    assert registry.create("backend", "mine", depth=1) is not None


def test_a_component_that_makes_nothing_is_named(tmp_path, monkeypatch):
    install(tmp_path, "rotten", SOUND + "    def __new__(cls): return None\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "rotten", raising=False)
    with pytest.raises(ContractError, match=r"spikecore-rotten 1\.0.* gave None in place of an instance"):
        Registry(path=[str(tmp_path / "site")], blocking=Blocking()).create("backend", "mine")
