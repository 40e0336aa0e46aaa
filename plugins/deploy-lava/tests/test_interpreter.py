"""The Python that runs lava-nc: missing, broken, failing, hanging. No process is left, and every error has a cure."""

import os
import time

import numpy as np
import pytest
import torch

from spikecore import nn
from spikecore.errors import PluginUnavailable
from spikecore_deploy_lava import Lava, interpreter
from spikecore_deploy_lava.plugin import spike_doctor_checks


@pytest.fixture(autouse=True)
def _nothing_here(monkeypatch):
    monkeypatch.setattr(interpreter, "imports_here", lambda: False)


@pytest.fixture
def artefact(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), nn.IF())
    return Lava().export(net, torch.zeros(2, 1, 3), tmp_path / "net")


def named(monkeypatch, tmp_path, script):
    """An interpreter of this behaviour, as SPIKE_LAVA_PYTHON names it."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv(interpreter.VARIABLE, str(path))
    return path


def simulated(artefact, **options):
    return Lava(executor="lava", **options).simulate(artefact, torch.zeros(2, 1, 3))


def test_none(artefact, monkeypatch):
    monkeypatch.delenv(interpreter.VARIABLE, raising=False)
    monkeypatch.setattr(interpreter, "find_python", lambda version: None)
    with pytest.raises(PluginUnavailable, match=r"none here.*pip install lava-nc==0\.10\.0"):
        simulated(artefact)
    (check,) = spike_doctor_checks()
    assert check.status == "missing"
    assert "lava-nc==0.10.0" in check.hint


def test_one_that_does_not_exist(artefact, monkeypatch):
    monkeypatch.setenv(interpreter.VARIABLE, "/nowhere/python")
    with pytest.raises(PluginUnavailable, match="SPIKE_LAVA_PYTHON names /nowhere/python.*does not start"):
        simulated(artefact)


def test_one_without_lava(artefact, monkeypatch, tmp_path):
    named(monkeypatch, tmp_path, "echo \"ModuleNotFoundError: No module named 'lava'\" >&2; exit 1")
    with pytest.raises(PluginUnavailable, match="exit status 1: ModuleNotFoundError"):
        simulated(artefact)


def test_one_that_says_nothing(artefact, monkeypatch, tmp_path):
    named(monkeypatch, tmp_path, "exit 0")
    with pytest.raises(PluginUnavailable, match="printed nothing"):
        simulated(artefact)


ANSWERS = 'if [ "$2" = "-c" ]; then echo lava is here; exit 0; fi'


def test_a_run_that_fails(artefact, monkeypatch, tmp_path):
    named(monkeypatch, tmp_path, f"{ANSWERS}\necho it broke >&2; exit 3")
    with pytest.raises(PluginUnavailable, match=r"exit status 3:\nit broke"):
        simulated(artefact)


def test_a_run_that_hangs_is_ended_with_all_its_processes(artefact, monkeypatch, tmp_path):
    monkeypatch.setattr(interpreter, "GRACE_S", 0.3)
    pids = tmp_path / "pids"
    stubborn = f"trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $$ $! > {pids}"
    named(monkeypatch, tmp_path, f"{ANSWERS}\n{stubborn}; while :; do sleep 0.1; done")
    with pytest.raises(PluginUnavailable, match="did not end within 1 s"):
        simulated(artefact, timeout=1.0)
    for pid in map(int, pids.read_text().split()):
        assert not _runs(pid)


def test_processes_that_a_run_leaves_are_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(interpreter, "GRACE_S", 0.3)
    pids = tmp_path / "pids"
    status, text = interpreter.ended(["/bin/sh", "-c", f"sleep 1000 & echo $! > {pids}; echo done"], 60.0)
    assert (status, text) == (0, "done\n")
    assert not _runs(int(pids.read_text()))


def _runs(pid):
    """Whether it still does something; the parent of an orphan may need a moment to collect it."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return False
        time.sleep(0.02)
    return True


def test_an_input_that_is_not_whole_is_refused(artefact):
    with pytest.raises(Exception, match="whole numbers"):
        Lava().simulate(artefact, torch.full((2, 1, 3), 0.5))
    assert np.array_equal(Lava().simulate(artefact, torch.zeros(2, 1, 3)).shape, (2, 1, 2))
