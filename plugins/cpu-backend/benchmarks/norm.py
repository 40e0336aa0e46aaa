"""Batch norm and neuron in training, in one call and as torch's norm followed by the neuron.

    python plugins/cpu-backend/benchmarks/norm.py

Forward and backward of `ConvBNNeuron` without its convolution, with a LIF. CPU time of one thread per element of
`[T, B, C, H, W]`; the candidates take turns, and the best of the rounds is kept. The floor is the time of a copy of as
many bytes as norm and neuron must move, 32 per element. Writes docs/benchmarks/norm.csv.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikecore import nn
from spikecore.bench.rows import device_name, write_csv

FILE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "norm.csv"
SHAPES = ((4, 4, 64, 32, 32), (4, 8, 128, 16, 16), (4, 16, 256, 8, 8), (8, 32, 32, 16, 16), (4, 16, 64, 32, 32))
BYTES = 32
"""Read twice: y, the gradient of the output. Written: the output, the gradient of y. Both: the gradient of the norm."""
ROUNDS = 60


class Nothing(torch.nn.Conv2d):
    """A convolution's place in a block."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Hand over what a convolution would have given."""
        return x


def step_of(net: torch.nn.Module, y: Tensor, grad: Tensor) -> Callable[[], object]:
    """One forward and one backward pass with all gradients."""

    def step() -> None:
        y.grad = None
        net.zero_grad()
        net(y).backward(grad)

    return step


def copy_of(y: Tensor) -> Callable[[], object]:
    """Moves eight bytes per element."""
    to = torch.empty_like(y)
    return lambda: to.copy_(y)


def candidates(shape: tuple[int, ...], is_last: bool) -> list[Callable[[], object]]:
    """In one call, in two, and a copy."""
    draw = torch.Generator().manual_seed(0)
    y, grad = (torch.randn(shape, generator=draw) for _ in range(2))
    if is_last:
        y, grad = (x.movedim(2, -1).contiguous().movedim(-1, 2) for x in (y, grad))
    channels = shape[2]
    norm = torch.nn.BatchNorm2d(channels)
    fused = nn.ConvBNNeuron(Nothing(channels), norm, nn.LIF(backend="cpu", detach_reset=True))
    parts = torch.nn.Sequential(nn.BatchNorm2d(channels), nn.LIF(backend="cpu", detach_reset=True))
    ours, theirs = (y.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
    with torch.no_grad():
        spikes = fused(ours)
        differing = int((spikes != parts(theirs)).sum())
    rate = float(spikes.mean())
    if not 0.02 < rate < 0.98 or differing > 1e-5 * spikes.numel():
        raise SystemExit(f"{shape}: {differing} spikes differ, firing rate {rate:.3f}: not measured")
    return [step_of(fused, ours, grad), step_of(parts, theirs, grad), copy_of(y)]


def best_ns(calls: list[Callable[[], object]], count: int) -> list[float]:
    """Least CPU time of each per element, in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            begin = time.thread_time()
            call()
            best[index] = min(best[index], time.thread_time() - begin)
    return [1e9 * seconds / count for seconds in best]


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    names = ("spikecore", "spikecore-cpu-backend", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        for is_last in (False, True):
            fused, parts, copy = best_ns(candidates(shape, is_last), torch.Size(shape).numel())
            row = {"shape": "×".join(map(str, shape)), "channels_last": is_last, "one_call_ns": round(fused, 2)}
            row |= {"norm_then_neuron_ns": round(parts, 2), "times_faster": round(parts / fused, 2)}
            rows.append({**row, "floor_ns": round(copy * BYTES / 8, 2), "device": device_name(), **versions})
            print(*row.values(), rows[-1]["floor_ns"], flush=True)
    write_csv(FILE, rows)


if __name__ == "__main__":
    main()
