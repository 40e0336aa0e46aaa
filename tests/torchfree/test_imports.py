"""Files of other distributions on which torch's import fails, and imports that end the process, are named."""

import os
from importlib.util import find_spec

import pytest

from spikecore.cli.importing import ERASE, named_while_imported
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


@pytest.mark.skipif(find_spec("torch") is None, reason="a run needs torch")
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


def test_an_import_that_ends_the_process_is_named(tmp_path, spike):
    points = {"spikecore.neurons": {"gone": "gone_neuron:Gone"}}
    modules = {"gone_neuron.py": "import os; os._exit(0)"}
    fake_distribution(tmp_path / "site", "spikecore-gone", points, modules=modules)
    done = spike("run", "--dry-run", "--set", "neuron.name=gone")
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("importing neuron 'gone' (spikecore-gone 1.0")
    assert last.endswith("it ended the process with os._exit(0)")


def test_on_a_terminal_the_line_is_there_before_and_gone_afterwards(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with named_while_imported("importing a\x1b[2J"):
        assert capsys.readouterr().err == "importing a\\x1b[2J"
    assert capsys.readouterr().err == ERASE


def test_what_is_imported_fits_a_line_of_the_terminal(monkeypatch, capsys):
    """The terminal would break a longer one, and wiping out would leave its first part."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    name = "importing backend 'cupy' (spikecore-cupy-backend 0.3.0, "
    with named_while_imported(name + "entry point 'spikecore_cupy_backend.backend:CuPyBackend')"):
        shown = capsys.readouterr().err
    assert shown.startswith(name)
    assert shown.endswith("…")
    assert len(shown) == 59


def test_nothing_is_printed_elsewhere_and_exit_is_as_before(capsys):
    before = os._exit
    with named_while_imported("importing a"):
        assert os._exit is not before
    assert os._exit is before
    with pytest.raises(ValueError, match="fault"), named_while_imported("importing a"):
        raise ValueError("fault")
    assert os._exit is before
    assert capsys.readouterr().err == ""


def test_children_and_later_calls_are_not_taken_for_the_import(tmp_path, spike):
    points = {"spikecore.neurons": {"kept": "kept_neuron:Kept"}}
    source = "import os\nfrom os import _exit\nif not os.fork(): _exit(0)\nos.wait()\nKept = 3\n"
    fake_distribution(tmp_path / "site", "spikecore-kept", points, modules={"kept_neuron.py": source})
    done = spike("run", "--dry-run", "--set", "neuron.name=kept")
    assert "importing" not in done.stderr
    assert "spikecore-kept" in done.stderr  # it is no neuron
