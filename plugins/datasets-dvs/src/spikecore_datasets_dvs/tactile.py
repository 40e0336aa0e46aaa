"""ST-MNIST: digits written on a tactile sensor of 10 × 10 elements.

data_submission/3/….mat    an array `spiketrain` [101, N]: 100 rows of -1, 0 and 1, one an element, and a row of seconds
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import declarations
from spikecore_datasets_dvs.catalogue import Shared, Splits
from spikecore_datasets_dvs.dataset import Recording
from spikecore_datasets_dvs.events import Events, make_events
from spikecore_datasets_dvs.folder import by_class
from spikecore_datasets_dvs.formats import reading_errors
from spikecore_datasets_dvs.formats.mat import read_mat
from spikecore_datasets_dvs.named import the_directory

ELEMENTS, SIDE = 100, 10


class STMNIST(Shared):
    """ST-MNIST; a seeded split per class."""

    name: ClassVar[str] = "st-mnist"
    info = declarations.ST_MNIST
    present: ClassVar[tuple[str, ...]] = ("**/data_submission/0/*.mat",)

    def recordings(self, directory: Path) -> Splits:
        top = the_directory(directory, "data_submission")
        recordings = by_class(top, self.info.classes, "*.mat", directory)
        return self.divided([recording for recording in recordings if "LUT" not in Path(recording.path).name])

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path):
            (flat,) = read_mat(path, ("spiketrain",))
        if len(flat) % (ELEMENTS + 1):
            raise DatasetError(f"{path}: spiketrain holds {len(flat)} numbers; 101 rows are expected")
        columns = flat.reshape(-1, ELEMENTS + 1)  # MATLAB keeps columns one after the other
        spikes, seconds = columns[:, :ELEMENTS], columns[:, ELEMENTS]
        moment, element = np.nonzero(spikes)
        return make_events(
            seconds[moment].astype(np.float64),
            element % SIDE,
            element // SIDE,
            spikes[moment, element],
            str(path),
            unit="s",
        )
