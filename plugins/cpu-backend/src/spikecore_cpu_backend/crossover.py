"""The firing rate up to which a product runs faster by events: measured once per machine and class of shapes.

Both ways are timed on random spikes of a sample of the shape, packing included, at a few rates; between them the time
by events is a straight line, and the crossover is where it meets MARGIN of the dense time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikecore_cpu_backend.measured import Measured, best_times

Prepare = Callable[[float], tuple[Callable[[], object], Callable[[], object]]]

RATES = (0.05, 0.35, 0.65, 0.95)
MARGIN = 0.95
"""Events must be faster than dense by this much."""
ROUNDS = 5


@dataclass(frozen=True)
class ShapeClass:
    """Products that have one crossover.

    Args:
        kernel, stride, channels, outputs: of the product.
        log_positions: binary logarithm of the number of positions of the output, rounded down.
        channels_first: one plane for each channel.
        saves: the gradient of the weight will follow.
        threads: of torch.
    """

    kernel: int
    stride: int
    channels: int
    outputs: int
    log_positions: int
    channels_first: bool
    saves: bool
    threads: int


class Crossovers:
    """Finds crossovers.

    Args:
        folder: where files are kept.
        identity: of processor, compiler and kernels, which the figures depend on.
        pinned: the crossover of all products; None: measure.
    """

    def __init__(self, folder: Path, identity: str, pinned: float | None) -> None:
        self._pinned = pinned
        self._measured = Measured(folder / "crossovers", "crossover", f"{identity}\n{RATES}\n{MARGIN}")

    def of(self, shape: ShapeClass, prepare: Prepare) -> float:
        """The crossover of a class.

        Args:
            shape: the class.
            prepare: gives, for a rate, the dense product and the one by events on the same input.
        """
        if self._pinned is not None:
            return self._pinned
        return self._measured.of(shape, lambda: _measure(prepare, shape.threads))


def _measure(prepare: Prepare, threads: int) -> float:
    runs = [prepare(rate) for rate in RATES]
    dense, *events = best_times([runs[0][0], *(event for _, event in runs)], ROUNDS, threads)
    return crossing(MARGIN * dense, events)


def crossing(limit: float, times: Sequence[float]) -> float:
    """The rate at which times, measured at `RATES`, reach a limit; 0 where none is below, 1 where all are."""
    if times[0] >= limit:
        return 0.0
    for index in range(1, len(times)):
        if times[index] >= limit:
            share = (limit - times[index - 1]) / (times[index] - times[index - 1])
            return RATES[index - 1] + share * (RATES[index] - RATES[index - 1])
    return 1.0
