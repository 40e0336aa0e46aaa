"""Event data for spikecore: from raw files to batches."""

from spikecore_datasets_dvs.events import Events, make_events
from spikecore_datasets_dvs.formats import read_events

__all__ = ["Events", "make_events", "read_events"]
