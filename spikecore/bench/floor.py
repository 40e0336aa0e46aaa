"""The floor: the bytes that a pass must move, divided by the bandwidth of the fastest copy in the run.

    forward             read x, write out                              2 values     8 bytes in float32
    forward+backward    the same; read x and grad_out, write grad_x    5 values    20 bytes

per element-step, and per recorded state 1 value forward, 2 forward and backward (the state's dtype). States and
parameters are touched once per sequence and not counted. The bandwidth is that of the fastest copy of a tensor as large
as the input: `copy_`, or a backend's `stream_copy(destination, source)`. A copy of n bytes moves 2 n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch

from spikecore.bench.cases import FORWARD, Case
from spikecore.interfaces.backend import Backend

COPY = "copy_"


def bytes_per_step(measure: str, dtype: torch.dtype, num_recorded: int = 0) -> int:
    """Bytes that one element must move in one step of a pass.

    Args:
        measure: `forward` or `forward+backward`.
        dtype: of the input.
        num_recorded: states whose sequence is kept.
    """
    state_size = max(dtype.itemsize, 4)  # the state of half-precision input is float32
    if measure == FORWARD:
        return 2 * dtype.itemsize + state_size * num_recorded
    return 5 * dtype.itemsize + 2 * state_size * num_recorded


class Bandwidth:
    """The best copies of a run, by size."""

    def __init__(self) -> None:
        self._best: dict[int, float] = {}

    def add(self, num_bytes: int, seconds: Iterable[float]) -> None:
        """Copies of a tensor of `num_bytes`, each `seconds` long."""
        for second in seconds:
            if second > 0:
                self._best[num_bytes] = max(self._best.get(num_bytes, 0.0), 2 * num_bytes / second)

    def of(self, num_bytes: int) -> float | None:
        """Bytes per second, best of all copies of this size; None when there was none."""
        return self._best.get(num_bytes)

    def floor_s(self, case: Case, measure: str, num_recorded: int = 0) -> float | None:
        """The least time of one pass."""
        best = self.of(case.num_bytes)
        moved = case.num_elements * bytes_per_step(measure, case.dtype, num_recorded)
        return None if best is None else moved / best


def copies(case: Case, backends: Iterable[tuple[str, Backend]]) -> dict[str, Callable[[], object]]:
    """Copies of a tensor as large as the input of a case: torch's, and that of each backend.

    Args:
        case: gives size, dtype and device.
        backends: `(name, backend)`.
    """
    source = torch.randn(case.shape, device=case.device).to(case.dtype)
    destination = torch.empty_like(source)
    by_name: dict[str, Callable[[], object]] = {COPY: lambda: destination.copy_(source)}
    for name, backend in backends:
        by_name[f"{name}.stream_copy"] = partial(backend.stream_copy, destination, source)
    return by_name
