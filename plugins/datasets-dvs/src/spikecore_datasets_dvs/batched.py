"""Integration of a whole batch on its device: one scatter-add, whatever the lengths of the recordings.

The formulas are those of `spikecore_datasets_dvs.frames`; counts are whole numbers, so the order of the sum is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs.events import Events, join


@dataclass(frozen=True)
class EventBatch:
    """The events of B recordings, one behind the other.

    Args:
        t: int64 `[N]`, microseconds.
        x, y, p: int16 or uint8 `[N]`.
        starts: int64 `[B + 1]`, where each recording begins; the last entry is N.
    """

    t: Tensor
    x: Tensor
    y: Tensor
    p: Tensor
    starts: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EventBatch:
        """On another device."""
        return EventBatch(*(part.to(device, non_blocking=non_blocking) for part in vars(self).values()))

    def __len__(self) -> int:
        return len(self.starts) - 1


def batch_events(recordings: Sequence[Events]) -> EventBatch:
    """Join recordings into tensors on the CPU."""
    all_events = join(recordings)
    lengths = torch.tensor([0, *map(len, recordings)], dtype=torch.int64)
    x, y = (torch.from_numpy(column.astype("int32")) for column in (all_events.x, all_events.y))
    return EventBatch(torch.from_numpy(all_events.t), x, y, torch.from_numpy(all_events.p), lengths.cumsum(0))


def integrate(
    batch: EventBatch, num_steps: int, sensor_size: tuple[int, int], by: Literal["time", "number"] = "time"
) -> Tensor:
    """Counts, float32 `[T, B, 2, H, W]`, on the device of the events.

    Raises:
        DatasetError: an event lies outside the sensor.
        OptionError: `by` is neither.
    """
    if by not in ("time", "number"):
        raise OptionError(f"by must be 'time' or 'number', got {by!r}")
    height, width = sensor_size
    starts, ends = batch.starts[:-1], batch.starts[1:]
    device, total = batch.t.device, len(batch.t)
    out = torch.zeros(num_steps * len(batch) * 2 * height * width, device=device)
    if total:
        if bool(((batch.x >= width) | (batch.y >= height) | (batch.x < 0) | (batch.y < 0)).any()):
            raise DatasetError(f"events lie outside the sensor of H, W = {height}, {width}")
        sample = torch.repeat_interleave(torch.arange(len(batch), device=device), ends - starts, output_size=total)
        if by == "number":
            width_of, since = (ends - starts) // num_steps, torch.arange(total, device=device) - starts[sample]
        else:
            first = batch.t[starts.clamp(max=total - 1)]
            last = batch.t[(ends - 1).clamp(min=0)]
            width_of, since = (last - first) // num_steps, batch.t - first[sample]
        wide = width_of[sample]
        # A width of zero puts everything into the last step, as the formula does.
        step = torch.where(wide > 0, since // wide.clamp(min=1), num_steps - 1).clamp(max=num_steps - 1)
        place = ((step * len(batch) + sample) * 2 + (batch.p != 0)) * height + batch.y
        place = place * width + batch.x
        out.scatter_add_(0, place, torch.ones((), device=device).expand(total))
    return out.view(num_steps, len(batch), 2, height, width)
