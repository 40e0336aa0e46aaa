"""Event data for spikecore: from raw files to batches."""

from spikecore_datasets_dvs.events import Events, make_events
from spikecore_datasets_dvs.formats import read_events
from spikecore_datasets_dvs.representations import Custom, Representation
from spikecore_datasets_dvs.statistics import Statistics, statistics
from spikecore_datasets_dvs.writing import write_events

__all__ = [
    "Custom",
    "Events",
    "Representation",
    "Statistics",
    "make_events",
    "read_events",
    "statistics",
    "write_events",
]
