"""What a net is given of a recording: `representation(events, sensor_size)` → `[T, *step_shape(sensor_size)]`.

frames           counts in a fixed number of steps, by time or by number             [T, 2, H, W]
fixed_duration   counts in steps of a fixed duration; T varies                       [T, 2, H, W]
binary           1 where there is an event                                           [T, 2, H, W]
voxel_grid       polarities spread over the two nearest of T moments                 [T, 1 or 2, H, W]
time_surface     exp(-(age of the last event) / tau) at the end of each step         [T, 2, H, W]
units            counts per unit of a cochlea, polarities together                   [T, W]

A dataset's option `representation` takes one of them by name, as a table, or as an instance. A function of one's own is
an instance of `Custom`, or a frozen dataclass of this form, which `@spikecore.register("event_representation", NAME)`
gives a name. What code does cannot be told from its text (a closure, a global, a function that it calls), so what has
no `version` is not cached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from spikecore.errors import DatasetError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events, check_inside
from spikecore_datasets_dvs.frames import (
    bounds_by_duration,
    bounds_by_number,
    bounds_by_time,
    compact,
    count_frames,
    places,
)

Steps = Annotated[int, Range(ge=1, le=100_000)]
Sensor = tuple[int, int]


class Representation:
    """Base: a frozen dataclass with `name`, that is called with events and `(H, W)`."""

    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    """Raised whenever what it computes changes; without one of its own (a base's does not count) it is not cached."""
    is_variable: ClassVar[bool] = False
    """T differs between recordings."""

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        """`[T, *step_shape]`: whole numbers in a small dtype, or float32."""
        raise NotImplementedError

    def step_shape(self, sensor_size: Sensor) -> tuple[int, ...]:
        """Shape of one step."""
        return (2, *sensor_size)

    @property
    def key(self) -> Any:
        """What the cache tells it apart by, as JSON data; None: nothing does for certain."""
        kind = type(self)
        version = vars(kind).get("version", "")
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return [kind.__module__, kind.__qualname__, version, values] if version else None


def _bounds(events: Events, num_steps: int, by: str) -> np.ndarray:
    return bounds_by_time(events, num_steps) if by == "time" else bounds_by_number(events, num_steps)


@dataclass(frozen=True)
class Frames(Representation):
    """Counts in a fixed number of steps; see `spikecore_datasets_dvs.frames` for the formulas.

    Args:
        num_steps: T.
        by: segments of equal time, or of an equal number of events.
    """

    name: ClassVar[str] = "frames"
    version: ClassVar[str] = "1"
    num_steps: Steps = 10
    by: Literal["time", "number"] = "time"

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        return count_frames(events, _bounds(events, self.num_steps, self.by), sensor_size)


@dataclass(frozen=True)
class FixedDuration(Representation):
    """Counts in steps of a fixed duration; the number of steps varies.

    Args:
        duration_us: of one step.
        max_steps: a longer recording is an error.
    """

    name: ClassVar[str] = "fixed_duration"
    version: ClassVar[str] = "1"
    is_variable: ClassVar[bool] = True
    duration_us: Annotated[int, Range(ge=1)] = 50_000
    max_steps: Steps = 10_000

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        return count_frames(events, bounds_by_duration(events, self.duration_us, self.max_steps), sensor_size)


@dataclass(frozen=True)
class Binary(Representation):
    """1 where at least one event fell, else 0.

    Args:
        num_steps, by: as in `frames`.
    """

    name: ClassVar[str] = "binary"
    version: ClassVar[str] = "1"
    num_steps: Steps = 10
    by: Literal["time", "number"] = "time"

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        counts = count_frames(events, _bounds(events, self.num_steps, self.by), sensor_size)
        return (counts > 0).astype(np.uint8)


@dataclass(frozen=True)
class VoxelGrid(Representation):
    """Polarities spread over time by linear interpolation.

    τ_i = (T - 1) (t_i - t_first) / (t_last - t_first);    V[j, x, y] = Σ_i s_i max(0, 1 - |j - τ_i|)

    signed: s_i = ±1 and one channel;  split: s_i = 1 and a channel per polarity. All events of one moment have τ = 0.

    Source: Zhu et al., Unsupervised Event-based Learning of Optical Flow, Depth, and Egomotion (CVPR 2019), (1), (2).

    Args:
        num_steps: T, the number of moments.
        polarity: one signed channel, or two.
    """

    name: ClassVar[str] = "voxel_grid"
    version: ClassVar[str] = "1"
    num_steps: Steps = 10
    polarity: Literal["signed", "split"] = "signed"

    def step_shape(self, sensor_size: Sensor) -> tuple[int, ...]:
        return (1 if self.polarity == "signed" else 2, *sensor_size)

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        check_inside(events, sensor_size)
        channels, height, width = self.step_shape(sensor_size)
        size = channels * height * width
        if not len(events):
            return np.zeros((self.num_steps, channels, height, width), np.float32)
        place = places(events, sensor_size) % size  # a signed grid has one channel for both polarities
        sign = np.where(events.p != 0, 1.0, -1.0) if channels == 1 else np.ones(len(events))
        moment = (events.t - events.t[0]) * ((self.num_steps - 1) / max(events.duration_us, 1))
        low = np.minimum(moment.astype(np.int64), max(self.num_steps - 2, 0))
        share = moment - low
        grid = np.bincount(low * size + place, sign * (1 - share), self.num_steps * size)
        if self.num_steps > 1:
            grid += np.bincount((low + 1) * size + place, sign * share, self.num_steps * size)
        return grid.reshape(self.num_steps, channels, height, width).astype(np.float32)


@dataclass(frozen=True)
class TimeSurface(Representation):
    """How long ago the last event was: S[j, c, y, x] = exp(-(e_j - t_last(c, x, y)) / tau); 0 where none was yet.

    e_j is the end of segment j (by time; of the last one the last event), t_last the last event before it.

    Source: Lagorce et al., HOTS: A Hierarchy of Event-Based Time-Surfaces for Pattern Recognition (TPAMI 2017).

    Args:
        num_steps: T.
        tau_us: decay.
    """

    name: ClassVar[str] = "time_surface"
    version: ClassVar[str] = "1"
    num_steps: Steps = 10
    tau_us: Annotated[float, Range(gt=0.0)] = 50_000.0

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        check_inside(events, sensor_size)
        out = np.zeros((self.num_steps, 2 * sensor_size[0] * sensor_size[1]), np.float32)
        bounds = bounds_by_time(events, self.num_steps)
        place = places(events, sensor_size)
        width = events.duration_us // self.num_steps
        last = np.full(out.shape[1], -1, np.int64)
        for step in range(self.num_steps if len(events) else 0):
            part = slice(bounds[step], bounds[step + 1])
            last[place[part]] = events.t[part] - events.t[0]  # in time order, so the latest one stays
            is_final = step == self.num_steps - 1
            end = events.duration_us if is_final else width * (step + 1)
            out[step] = np.where(last >= 0, np.exp((last - end) / self.tau_us), 0.0)
        return out.reshape(self.num_steps, 2, *sensor_size)


@dataclass(frozen=True)
class Units(Representation):
    """Counts per unit (x), polarities and rows together; for cochlea data.

    Args:
        num_steps: T by time; 0: as many steps of `duration_us` as the recording has.
        duration_us: of one step, where `num_steps` is 0.
        max_steps: a longer recording is an error.
        group: so many neighbouring units are added up.
    """

    name: ClassVar[str] = "units"
    version: ClassVar[str] = "1"
    num_steps: Annotated[int, Range(ge=0, le=100_000)] = 10
    duration_us: Annotated[int, Range(ge=1)] = 10_000
    max_steps: Steps = 10_000
    group: Annotated[int, Range(ge=1)] = 1

    @property
    def is_variable(self) -> bool:  # type: ignore[override]
        """T differs between recordings."""
        return self.num_steps == 0

    def step_shape(self, sensor_size: Sensor) -> tuple[int, ...]:
        return (-(-sensor_size[1] // self.group),)

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        check_inside(events, sensor_size)
        if self.num_steps:
            bounds = bounds_by_time(events, self.num_steps)
        else:
            bounds = bounds_by_duration(events, self.duration_us, self.max_steps)
        (num_units,) = self.step_shape(sensor_size)
        step = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        place = step * num_units + events.x // self.group
        return compact(np.bincount(place, minlength=(len(bounds) - 1) * num_units)).reshape(-1, num_units)


@dataclass(frozen=True)
class Custom(Representation):
    """A function of one's own; from Python only, since a configuration names what is registered.

    Args:
        function: `(events, sensor_size)` → `[T, *shape]`.
        shape: of one step; () takes `[2, H, W]`.
        variable: T differs between recordings.
        version: names the function in the cache: another one, or whatever it uses, needs another version. Without one
            samples are not cached.
    """

    name: ClassVar[str] = "custom"
    function: Callable[[Events, Sensor], np.ndarray]
    shape: tuple[int, ...] = ()
    variable: bool = False
    version: str = ""  # type: ignore[misc]

    @property
    def is_variable(self) -> bool:  # type: ignore[override]
        """T differs between recordings."""
        return self.variable

    @property
    def key(self) -> Any:
        """What the cache tells it apart by, as JSON data; None without a version."""
        if not self.version:
            return None
        kind = type(self.function)
        names = [getattr(self.function, part, getattr(kind, part)) for part in ("__module__", "__qualname__")]
        return [*names, self.version, list(self.shape), self.variable]

    def step_shape(self, sensor_size: Sensor) -> tuple[int, ...]:
        return self.shape or (2, *sensor_size)

    def __call__(self, events: Events, sensor_size: Sensor) -> np.ndarray:
        frames = np.asarray(self.function(events, sensor_size))
        wanted = self.step_shape(sensor_size)
        if frames.ndim != len(wanted) + 1 or frames.shape[1:] != wanted:
            raise DatasetError(
                f"{self.function!r} gave {frames.shape}, not [T, {', '.join(map(str, wanted))}] was expected"
            )
        return frames
