"""Files of other distributions on which torch's import fails, and imports that end the process, are named."""

import pytest

from spikecore.registry.metadata import malformed_entry_points
from spikecore.testing.distributions import fake_distribution

MALFORMED = {"latin-1": b"[some.group]\na = \xe9:b\n", "no equals": b"[some.group]\njust a line\n"}


@pytest.fixture(params=MALFORMED)
def site(request, tmp_path):
    fake_distribution(tmp_path / "site", "innocent", {})
    (tmp_path / "site" / "innocent-1.0.dist-info" / "entry_points.txt").write_bytes(MALFORMED[request.param])
    return tmp_path / "site"


def test_a_malformed_file_is_named(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    (problem,) = malformed_entry_points()
    assert problem.startswith(f"{site}/innocent-1.0.dist-info/entry_points.txt: ")


def test_commands_survive_it(site, spike):
    dry = spike("run", "--dry-run")
    assert dry.returncode == 0
    assert "innocent-1.0.dist-info/entry_points.txt" in dry.stderr
    assert "uninstall" not in dry.stderr


def test_doctor_names_it(site, monkeypatch):
    from spikecore.cli.examine import of_core

    monkeypatch.syspath_prepend(site)
    findings = [finding for finding in of_core() if finding.status == "broken"]
    assert len(findings) == 1
    assert "innocent-1.0.dist-info" in findings[0].detail


def test_an_import_that_ends_the_process_was_named_before(tmp_path, spike):
    points = {"spikecore.neurons": {"gone": "gone_neuron:Gone"}}
    modules = {"gone_neuron.py": "import os; os._exit(0)"}
    fake_distribution(tmp_path / "site", "spikecore-gone", points, modules=modules)
    done = spike("run", "--dry-run", "--set", "neuron.name=gone")
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("importing neuron 'gone' (spikecore-gone 1.0")
