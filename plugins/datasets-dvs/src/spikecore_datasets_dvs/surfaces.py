"""Further representations, as in `representations`: windows that overlap, numbers of bits, histograms of surfaces.

windows                 counts in windows of a fixed duration that may overlap; T varies       [T, 2, H, W]
bina_rep                N binary frames read as one number of N bits, from 0 to 1              [T, 2, H, W]
averaged_time_surface   mean surface of the events of each cell                                [T, 2, S ⌈H/K⌉, S ⌈W/K⌉]

Parity: Tonic's ToFrame with an overlap, ToBinaRep, ToAveragedTimesurface (tests/test_surfaces.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events, check_inside
from spikecore_datasets_dvs.frames import bounds_by_number, bounds_by_time, count_frames
from spikecore_datasets_dvs.representations import Representation, Sensor, Steps
from spikecore_datasets_dvs.slices import ByTime

Whole = Annotated[int, Range(ge=1)]


@dataclass(frozen=True)
class Windows(Representation):
    """Counts in windows: those of `slices.by_time`.

    Args:
        duration_us: of a window.
        overlap_us: what it shares with the next one.
        include_incomplete: the last window may be shorter.
        max_steps: a longer recording is an error.
    """

    name: ClassVar[str] = "windows"
    version: ClassVar[str] = "1"
    is_variable: ClassVar[bool] = True
    duration_us: Whole = 50_000
    overlap_us: Annotated[int, Range(ge=0)] = 25_000
    include_incomplete: bool = True
    max_steps: Steps = 10_000

    def __post_init__(self) -> None:
        self._slices()

    def _slices(self) -> ByTime:
        return ByTime(self.duration_us, self.overlap_us, self.include_incomplete)

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        bounds = self._slices()(events)
        if len(bounds) > self.max_steps:
            raise DatasetError(
                f"a recording makes {len(bounds)} windows, more than max_steps = {self.max_steps}: raise it"
            )
        if not len(bounds):  # shorter than one window, or without events: one step, so that there is a sample
            bounds = np.array([[0, len(events)]])
        parts = [count_frames(events, np.array(pair), sensor_size) for pair in bounds.tolist()]
        return np.concatenate(parts)


@dataclass(frozen=True)
class BinaRep(Representation):
    """B[j, c, y, x] = Σ_i 2^(N - 1 - i) b_{j N + i} / (2^N - 1), with b = 1 where there is an event in that frame.

    Source: Barchid et al., Bina-Rep Event Frames (ICIP 2022), (1).

    Args:
        num_steps: T.
        num_bits: N; T · N frames are made.
        by: segments of equal time, or of an equal number of events.
    """

    name: ClassVar[str] = "bina_rep"
    version: ClassVar[str] = "1"
    num_steps: Steps = 10
    num_bits: Annotated[int, Range(ge=2, le=24)] = 8
    by: Literal["time", "number"] = "time"

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        number = self.num_steps * self.num_bits
        bounds = bounds_by_time(events, number) if self.by == "time" else bounds_by_number(events, number)
        frames = count_frames(events, bounds, sensor_size).reshape(self.num_steps, self.num_bits, 2, *sensor_size)
        weights = 2.0 ** np.arange(self.num_bits - 1, -1, -1) / (2.0**self.num_bits - 1)
        total = np.zeros((self.num_steps, 2, *sensor_size))
        for bit, weight in enumerate(weights):
            total += weight * (frames[:, bit] > 0)
        return total.astype(np.float32)


@dataclass(frozen=True)
class AveragedTimeSurface(Representation):
    """HATS: around each event the traces of the events before it in its cell and of its polarity, averaged.

    h[z] = 1/N Σ_i (δ[z] + Σ_{j < i, t_i - t_j <= window} d(t_i - t_j) [place_j - place_i = z]),  |z| <= (S - 1) / 2

    d(τ) = exp(-τ / tau), or 1 - τ / (3 tau). Cells of K × K pixels lie in the picture as they lie on the sensor. Each
    segment (by time) has surfaces of its own.

    Source: Sironi et al., HATS: Histograms of Averaged Time Surfaces (CVPR 2018), (4) to (6).

    Args:
        num_steps: T.
        cell_size: K.
        surface_size: S, odd, at most K.
        window_us: how old an event may be that leaves a trace.
        tau_us: of the decay.
        decay: exponential or linear.
    """

    name: ClassVar[str] = "averaged_time_surface"
    version: ClassVar[str] = "1"
    num_steps: Steps = 1
    cell_size: Whole = 10
    surface_size: Whole = 7
    window_us: Whole = 100_000
    tau_us: Annotated[float, Range(gt=0.0)] = 50_000.0
    decay: Literal["exp", "lin"] = "exp"

    def __post_init__(self) -> None:
        if self.surface_size % 2 == 0 or self.surface_size > self.cell_size:
            raise OptionError(
                f"averaged_time_surface: surface_size must be odd and at most cell_size = {self.cell_size}; got "
                f"{self.surface_size}"
            )

    def _cells(self, sensor_size: Sensor) -> Sensor:
        return -(-sensor_size[0] // self.cell_size), -(-sensor_size[1] // self.cell_size)

    def step_shape(self, sensor_size: Sensor) -> tuple[int, ...]:
        rows, columns = self._cells(sensor_size)
        return (2, rows * self.surface_size, columns * self.surface_size)

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        check_inside(events, sensor_size)
        bounds = bounds_by_time(events, self.num_steps).tolist()
        steps = [self._step(events[low:high], sensor_size) for low, high in zip(bounds, bounds[1:], strict=False)]
        return np.stack(steps).astype(np.float32)

    def _step(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        rows, columns = self._cells(sensor_size)
        side, reach, num_groups = self.surface_size, self.surface_size // 2, 2 * rows * columns
        y, x = events.y.astype(np.int64), events.x.astype(np.int64)
        group = (events.p * rows + y // self.cell_size) * columns + x // self.cell_size
        order = np.argsort(group, kind="stable")  # within a group, time stays in order
        group, y, x, t = group[order], y[order], x[order], events.t[order]
        sums = np.zeros((num_groups, side, side))
        counts = np.bincount(group, minlength=num_groups)
        sums[:, reach, reach] = counts
        later = np.arange(len(t))
        lag = 0
        while len(later):  # pairs of each event with the one, two, three … before it, until all are too old
            lag += 1
            later = later[later >= lag]
            earlier = later - lag
            age = t[later] - t[earlier]
            is_pair = (group[later] == group[earlier]) & (age <= self.window_us)
            later, earlier, age = later[is_pair], earlier[is_pair], age[is_pair]
            down, right = y[earlier] - y[later] + reach, x[earlier] - x[later] + reach
            near = (down >= 0) & (down < side) & (right >= 0) & (right < side)
            trace = np.exp(-age / self.tau_us) if self.decay == "exp" else 1 - age / (3 * self.tau_us)
            place = ((group[later] * side + down) * side + right)[near]
            sums += np.bincount(place, trace[near], sums.size).reshape(sums.shape)
        mean = sums / np.maximum(counts, 1)[:, None, None]
        picture = mean.reshape(2, rows, columns, side, side).transpose(0, 1, 3, 2, 4)
        return picture.reshape(2, rows * side, columns * side)
