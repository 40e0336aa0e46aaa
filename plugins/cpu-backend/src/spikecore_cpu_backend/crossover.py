"""The firing rate up to which a product runs faster by events: measured once per machine and class of shapes.

Both ways are timed on random spikes of a sample of the shape, packing included, at a few rates; between them the time
by events is a straight line, and the crossover is where it meets MARGIN of the dense time. What was measured is kept in
files, so that later runs decide alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from spikecore.files import read_file, write_file

Prepare = Callable[[float], tuple[Callable[[], object], Callable[[], object]]]

RATES = (0.05, 0.35, 0.65, 0.95)
MARGIN = 0.95
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
        self._folder, self._pinned = folder, pinned
        self._identity = f"{identity}\n{torch.__version__}\n{RATES}\n{MARGIN}"
        self._known: dict[ShapeClass, float] = {}

    def of(self, shape: ShapeClass, prepare: Prepare) -> float:
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
                # On one thread its own CPU time, which does not depend on what else the machine does.
                known = _measure(prepare, time.thread_time if shape.threads == 1 else time.perf_counter)
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


def _measure(prepare: Prepare, clock: Callable[[], float]) -> float:
    runs = [prepare(rate) for rate in RATES]
    candidates = [runs[0][0], *(event for _, event in runs)]
    best = [float("inf")] * len(candidates)
    for round_number in range(ROUNDS + 1):
        for index, run in enumerate(candidates):
            start = clock()
            run()
            took = clock() - start
            if round_number:  # the first one warms up
                best[index] = min(best[index], took)
    return crossing(MARGIN * best[0], best[1:])


def crossing(limit: float, times: Sequence[float]) -> float:
    """The rate at which times, measured at `RATES`, reach a limit; 0 where none is below, 1 where all are."""
    if times[0] >= limit:
        return 0.0
    for index in range(1, len(times)):
        if times[index] >= limit:
            share = (limit - times[index - 1]) / (times[index] - times[index - 1])
            return RATES[index - 1] + share * (RATES[index] - RATES[index - 1])
    return 1.0
