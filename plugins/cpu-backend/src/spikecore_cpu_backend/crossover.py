"""The firing rate up to which a product runs faster by events: measured once per machine and class of shapes.

    dense(r) = d        event(r) = a + b r        crossover = (MARGIN d - a) / b, within [0, 1]

Both are timed on random spikes of a sample of the shape, packing included. What was measured is kept in files, so that
later runs decide alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from spikecore.files import read_file, write_file

RATES = (0.05, 0.3)
MARGIN = 0.97
"""Events must be faster than dense by this much."""
ROUNDS = 5
LARGEST = 1 << 12
"""Bytes of a file at most."""


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
    """Finds crossovers: in memory, in files, or by measuring.

    Args:
        folder: where the files are; made if needed.
        identity: of processor, compiler and kernels, which the figures depend on.
        pinned: the crossover of all products; None: measure.
    """

    def __init__(self, folder: Path, identity: str, pinned: float | None) -> None:
        self._folder, self._identity, self._pinned = folder, f"{identity}\n{torch.__version__}", pinned
        self._known: dict[ShapeClass, float] = {}

    def of(
        self, shape: ShapeClass, prepare: Callable[[float], tuple[Callable[[], object], Callable[[], object]]]
    ) -> float:
        """The crossover of a class.

        Args:
            shape: the class.
            prepare: gives, for a rate, the dense product and the one by events on the same input.
        """
        if self._pinned is not None:
            return self._pinned
        if shape not in self._known:
            path = self._path(shape)
            known = _read(path)
            if known is None:
                known = _measure(prepare)
                self._write(path, shape, known)
            self._known[shape] = known
        return self._known[shape]

    def _path(self, shape: ShapeClass) -> Path:
        name = hashlib.sha256(f"{self._identity}\n{astuple(shape)}".encode()).hexdigest()[:32]
        return self._folder / "crossovers" / f"{name}.json"

    def _write(self, path: Path, shape: ShapeClass, crossover: float) -> None:
        # Where the folder cannot be written, the figure lasts as long as the process.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps({"crossover": crossover, "of": repr(shape)}) + "\n")


def _read(path: Path) -> float | None:
    """What an earlier process measured; None where there is nothing that makes sense."""
    try:
        value = json.loads(read_file(path, LARGEST))["crossover"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0.0 <= value <= 1.0 else None


def _measure(prepare: Callable[[float], tuple[Callable[[], object], Callable[[], object]]]) -> float:
    runs = [run for rate in RATES for run in prepare(rate)]
    best = [float("inf")] * len(runs)
    for round_number in range(ROUNDS + 1):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
            if round_number:  # the first one warms up
                best[index] = min(best[index], took)
    dense_low, event_low, dense_high, event_high = best
    dense = min(dense_low, dense_high)
    slope = max(event_high - event_low, 1e-9) / (RATES[1] - RATES[0])
    fixed = event_low - slope * RATES[0]
    return min(1.0, max(0.0, (MARGIN * dense - fixed) / slope))
