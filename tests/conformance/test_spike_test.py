"""`spike test`: many components at once, what cannot be proved here, and instances whose options move their devices."""

import json
import re
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from spikecore.backends.selection import configure_backend
from spikecore.cli import main
from spikecore.errors import PluginUnavailable, UnknownComponentError
from spikecore.interfaces.backend import BackendCapabilities, Support
from spikecore.interfaces.component import make_config
from spikecore.nn import LIF
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove, prove_all
from spikecore.testing.suite import suite_for
from tests.conformance.toys import ToyBackend, ToyDataset, ToySurrogate


class ForGPU(ToyBackend):
    """Runs on a GPU; with `interpret`, slowly, on the CPU."""

    capabilities = BackendCapabilities(priority=50, devices=("cuda",))

    @dataclass(frozen=True)
    class Config:
        interpret: bool = False

    def __init__(self, **options):
        super().__init__(**options)
        self.config = make_config(type(self), options)
        if self.config.interpret:
            self.capabilities = replace(self.capabilities, devices=("cpu",))

    def supports(self, program, device, dtype):
        is_mine = device.type in self.capabilities.devices
        return Support(is_mine, "" if is_mine else f"it does not run on {device.type}")


class Away(ToySurrogate):
    def __init__(self, **options):
        raise PluginUnavailable("needs a chip", "buy one")


class Doubled(ToySurrogate):
    @staticmethod
    def derivative(u, params):
        return 2 * ToySurrogate.derivative(u, params)


class Downloaded(ToyDataset):
    capabilities = replace(ToyDataset.capabilities, embedded=False)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with use(Registry(blocking=Blocking())) as own:
        yield own


@pytest.fixture
def spike(monkeypatch, capfd, registry):
    """`spike` in this process: `(exit status, what it printed)`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spike", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, "".join(capfd.readouterr())

    return call


def test_a_backend_without_its_device_is_status_2(registry, spike):
    registry.register("backend", "gpu", ForGPU)
    status, printed = spike("test", "backend:gpu")
    assert status == 2
    assert "backend 'gpu' runs on cuda, and no such device is here; nothing was checked" in printed


def test_in_pytest_it_is_a_skip(registry):
    registry.register("backend", "gpu", ForGPU)
    suite = suite_for("backend", "gpu")
    for name in (*suite.checks(), "test_enough_checks_were_executed"):
        with pytest.raises(pytest.skip.Exception, match="no such device is here"):
            getattr(suite(), name)()


def test_an_unavailable_component_is_status_2(registry, spike):
    registry.register("surrogate", "away", Away)
    status, printed = spike("test", "surrogate:away")
    assert status == 2
    assert "needs a chip (buy one)" in printed


def test_the_capabilities_of_the_instance_count(registry, spike, tmp_path):
    registry.register("backend", "gpu", ForGPU)
    report = prove("backend", "gpu", {"interpret": True})
    failed = {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"}
    assert report["ok"], failed
    assert report["executed"] >= 30
    assert report["options"] == {"interpret": "True"}


def test_auto_does_not_take_an_instance_that_options_moved(registry):
    registry.register("backend", "gpu", ForGPU)
    configure_backend("gpu", interpret=True)
    x = torch.full((3, 2, 4), 1.5)
    neuron = LIF()
    assert neuron(x).any()
    assert neuron.chosen.backend != "gpu"
    assert "gpu: it runs on cuda" in neuron.chosen.reason
    named = LIF(backend="gpu")
    assert torch.equal(named(x), neuron(x))
    assert named.chosen.backend == "gpu"


def test_all_of_one_plugin(registry, spike, tmp_path, monkeypatch):
    monkeypatch.setattr("spikecore.testing.proving.KINDS", {"surrogate": None, "dataset": None})
    registry.register("surrogate", "sound", ToySurrogate)
    registry.register("surrogate", "doubled", Doubled)
    registry.register("surrogate", "away", Away)
    registry.register("dataset", "downloaded", Downloaded)
    (plugin,) = {entry.plugin.id for entry in registry.components("surrogate") if entry.name == "sound"}
    status, printed = spike("test", "--all", plugin, "--json", str(tmp_path / "all.json"))
    assert status == 1, printed
    assert re.search(r"surrogate:sound .* passed", printed)
    assert re.search(r"test_primitive_has_this_derivative: AssertionError: .*the slope is another", printed)
    assert re.search(r"surrogate:away: not proved: .*needs a chip", printed)
    assert "dataset:downloaded: not proved: its files may have to be downloaded" in printed
    assert "1 components conform, 1 fail, 2 were not proved" in printed
    written = json.loads((tmp_path / "all.json").read_text())
    assert {report["name"]: report["ok"] for report in written["reports"]} == {"sound": True, "doubled": False}
    assert {left["name"] for left in written["not_proved"]} == {"away", "downloaded"}


def test_all_without_failures_tells_what_was_not_proved(registry, spike, monkeypatch):
    monkeypatch.setattr("spikecore.testing.proving.KINDS", {"surrogate": None})
    registry.register("surrogate", "sound", ToySurrogate)
    (plugin,) = {entry.plugin.id for entry in registry.components("surrogate") if entry.name == "sound"}
    assert spike("test", "--all", plugin)[0] == 0
    registry.register("surrogate", "away", Away)
    assert spike("test", "--all", plugin)[0] == 2


def test_an_unknown_plugin_is_told_with_those_that_exist(registry):
    with pytest.raises(UnknownComponentError, match=r"no plugin 'nothing' offers components: there are .*spikecore"):
        next(prove_all("nothing"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--all", "a", "b"), "one PLUGIN at most"),
        (("--all", "--set", "tau=3.0"), "no --set"),
        ((), "KIND:NAME"),
        (("neuron:lif", "--set", "tau"), "spike: --set tau: expected KEY=VALUE, as in tau=3.0"),
    ],
)
def test_wrong_arguments(arguments, says, spike):
    status, printed = spike("test", *arguments)
    assert status == 2
    assert says in printed
