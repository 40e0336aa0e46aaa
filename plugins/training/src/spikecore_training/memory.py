"""How much memory training takes, and the option that takes less."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from spikecore.interfaces import Table
from spikecore.nn import checkpoint_layers, run_all


@contextmanager
def checkpointed(net: nn.Module, is_wanted: bool) -> Iterator[None]:
    """Inside, the parts of the net run again in the backward pass, where that is wanted."""
    if not is_wanted:
        yield
        return
    checkpoint_layers(net)
    try:
        yield
    finally:
        run_all(net)


class MemoryMeter:
    """The largest memory of this process and of its GPU since the block began."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> MemoryMeter:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def table(self) -> Table:
        """A row for each, in MiB."""
        rows: list[tuple[str, float]] = [("this process, since it began", _peak_mib())]
        if self.device.type == "cuda":
            rows.append((str(self.device), round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)))
        return Table(["memory", "peak in MiB"], rows, caption="Of the first process, where several train together.")


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    is_bytes = sys.platform == "darwin"  # elsewhere KiB
    return round(peak / (2**20 if is_bytes else 2**10), 1)
