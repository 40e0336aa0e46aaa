"""Where the writers of HDF5 files put events, and what the columns of arrays `[N, 4]` are.

writer          place                     what is there                             times
v2e             events                    uint32 [N, 4]: t x y p                    µs
MVSEC           davis/left|right/events   float64 [N, 4]: x y t p                   s
DSEC            events                    datasets t, x, y, p; `ms_to_idx` beside   µs (from `t_offset` on)
others          anywhere                  datasets or fields t, x, y, p             attribute `unit`, or the user
Metavision      CD/events                 compound x y p t, packed with ECF         µs
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from spikecore_datasets_dvs.events import Unit

USUAL_PLACES = ("events", "CD/events")
"""Looked at first, in this order."""


@dataclass(frozen=True)
class Matrix:
    """An array `[N, 4]` of a known writer.

    Args:
        writer: its name.
        place: pattern of its path.
        dtype: of its numbers.
        columns: their order.
        unit: of times.
    """

    writer: str
    place: str
    dtype: type
    columns: str
    unit: Unit


MATRICES = (
    Matrix("v2e", r"/events", np.uint32, "txyp", "us"),
    Matrix("MVSEC", r"/davis/(left|right)/events", np.float64, "xytp", "s"),
)
FILTERS = {
    0x8ECF: "install Prophesee's hdf5_ecf codec and name its directory in HDF5_PLUGIN_PATH, or write the recording "
    "anew as .raw or without ECF",
    32001: "pip install hdf5plugin, and import it first (blosc)",
    32015: "pip install hdf5plugin, and import it first (zstd)",
    32026: "pip install hdf5plugin, and import it first (blosc2)",
}
"""Number of a filter → how to get it."""


def known_matrix(place: str, dtype: np.dtype) -> Matrix | None:
    """The layout of an array at this path, where it is one of the known ones."""
    for layout in MATRICES:
        if re.fullmatch(layout.place, place) and dtype == layout.dtype:
            return layout
    return None


def known_unit(place: str, beside: set[str]) -> Unit | None:
    """The unit of times in a group or compound at this path, where a known writer made it.

    Args:
        place: its path.
        beside: names at the top of the file.
    """
    is_dsec = place == "/events" and "ms_to_idx" in beside  # an index by the millisecond of times in µs
    is_metavision = place == "/CD/events"
    return "us" if is_dsec or is_metavision else None
