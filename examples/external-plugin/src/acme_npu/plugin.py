"""The hooks of this plugin, loaded at every run: nothing heavy is imported here."""

from __future__ import annotations

from spikecore import hookimpl


@hookimpl
def spike_report_header() -> str:
    """A line in the header of runs."""
    return "acme-npu: emulated"
