"""`--json` where there is nothing to print as JSON, or no place for it, is refused before anything runs."""

import pytest

from spikecore.bench.show import _Console


@pytest.mark.parametrize("stops", ["--dry-run", "--print-config"])
def test_nothing_is_printed_where_no_run_takes_place(spike, stops):
    status, said = spike("run", stops, "--json")
    assert status == 2
    assert said.startswith("spike: --json prints the outcome of a run")


@pytest.mark.parametrize("place", ["-", "missing/report.json"])
def test_a_report_of_checks_needs_a_file(spike, place):
    status, said = spike("test", "surrogate:atan", "--json", place)
    assert status == 2
    assert said.startswith(f"spike: --json {place}: ")
    assert "passed" not in said


def test_a_pipe_that_is_closed_early_is_no_fault_of_a_plugin():
    """rich would end the process by itself, and the blame fell on it as on a plugin."""
    with pytest.raises(BrokenPipeError):
        _Console().on_broken_pipe()
