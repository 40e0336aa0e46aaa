"""What a recording is like, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecore_datasets_dvs.events import Events, check_inside


@dataclass(frozen=True)
class Statistics:
    """Of one recording.

    Args:
        num_events: how many.
        duration_us: from the first to the last.
        rate_hz: events per second; 0 for a single moment.
        share_on: share with p = 1.
        share_active: share of the pixels with any event.
        busiest: `(y, x, count)` of the pixel with the most events; many more than elsewhere mean a hot pixel.
    """

    num_events: int
    duration_us: int
    rate_hz: float
    share_on: float
    share_active: float
    busiest: tuple[int, int, int]


def statistics(events: Events, sensor_size: tuple[int, int]) -> Statistics:
    """Count.

    Raises:
        DatasetError: an event lies outside the sensor.
    """
    check_inside(events, sensor_size)
    height, width = sensor_size
    counts = np.bincount(events.y.astype(np.int64) * width + events.x, minlength=height * width)
    place = int(counts.argmax())
    duration = events.duration_us
    return Statistics(
        num_events=len(events),
        duration_us=duration,
        rate_hz=len(events) / (duration * 1e-6) if duration else 0.0,
        share_on=float((events.p != 0).mean()) if len(events) else 0.0,
        share_active=float((counts > 0).mean()),
        busiest=(place // width, place % width, int(counts[place])),
    )
