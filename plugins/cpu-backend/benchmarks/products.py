"""Layers fed spikes, by events and by torch, at 5, 10 and 20 % of ones.

    python plugins/cpu-backend/benchmarks/products.py

Whole calls of the layers on one thread, in CPU time: packing, the product and the way through Python. For `bits in` the
input's bits are there, as they are behind a neuron; `training` adds the gradient of the weight to that. Events run with
channels last; torch in both memory formats, of which the faster one counts. All have the same weights, take turns, and
the best of the rounds is kept. Writes docs/benchmarks/products.csv.
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
from spikecore.backends.spike_bits import forget_bits
from spikecore.bench.rows import device_name, write_csv

FILE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "products.csv"
RATES = (0.05, 0.1, 0.2)
CONVOLUTIONS = ((32, 32, 32, 1), (64, 64, 32, 1), (128, 128, 16, 1), (256, 256, 8, 1), (64, 128, 32, 2))
"""Channels, outputs, height and width, stride; 16 images."""
ROWS, FEATURES = 2048, 512
LAST = torch.channels_last


def best_ms(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Least time of each, which take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            begin = time.thread_time()
            call()
            best[index] = min(best[index], time.thread_time() - begin)
    return [1e3 * seconds for seconds in best]


def forward(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> None:
    """Without gradients, of an input whose bits must be packed first."""
    forget_bits()
    bits_in(layer, x, grad)


def bits_in(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> None:
    """Without gradients; the first call, which is no round's best, notes the bits."""
    with torch.no_grad():
        layer(x)


def training(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> None:
    """With the gradient of the weight."""
    layer.zero_grad()
    layer(x).backward(grad)


MEASURES = {"forward": (forward, 25), "bits in": (bits_in, 25), "training": (training, 12)}


def candidates(shape: tuple[int, ...] | None, rate: float) -> list[tuple[torch.nn.Module, Tensor, Tensor]]:
    """Layer, input and gradient of the output: torch's first, events last; a linear layer where there is no shape."""
    draw = torch.Generator().manual_seed(0)
    if shape is None:
        x = (torch.rand(ROWS, FEATURES, generator=draw) < rate).float()
        dense: torch.nn.Module = torch.nn.Linear(FEATURES, FEATURES, bias=False)
        event: torch.nn.Module = nn.Linear(FEATURES, FEATURES, bias=False, products="event")
        grad = torch.randn(ROWS, FEATURES, generator=draw)
        return [(dense, x, grad), (event, x.unsqueeze(0), grad.unsqueeze(0))]
    channels, outputs, side, stride = shape
    x = (torch.rand(16, channels, side, side, generator=draw) < rate).float()
    sizes = (channels, outputs, 3, stride, 1)
    dense, last = (torch.nn.Conv2d(*sizes, bias=False) for _ in range(2))
    event = nn.Conv2d(*sizes, bias=False, products="event")
    grad = torch.randn(16, outputs, side // stride, side // stride, generator=draw)
    x_last, grad_last = x.contiguous(memory_format=LAST), grad.contiguous(memory_format=LAST)
    return [
        (dense, x, grad),
        (last.to(memory_format=LAST), x_last, grad_last),
        (event.to(memory_format=LAST), x_last.unsqueeze(0), grad_last.unsqueeze(0)),
    ]


def check(made: list[tuple[torch.nn.Module, Tensor, Tensor]]) -> None:
    """All give the same."""
    with torch.no_grad():
        for layer, _, _ in made[1:]:
            layer.load_state_dict(made[0][0].state_dict())
        outputs = [layer(x).reshape(made[0][2].shape) for layer, x, _ in made]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-4, atol=1e-4)


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    names = ("spikecore", "spikecore-cpu-backend", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    rows: list[dict[str, Any]] = []
    for shape in (*CONVOLUTIONS, None):
        title = "linear 512 → 512, 2048 rows"
        if shape is not None:
            title = f"{shape[0]} → {shape[1]}, {shape[2]}×{shape[2]}" + (", stride 2" if shape[3] == 2 else "")
        for rate in RATES:
            made = candidates(shape, rate)
            check(made)
            for name, (measure, rounds) in MEASURES.items():
                calls = [lambda one=one, measure=measure: measure(*one) for one in made]
                *dense, event = best_ms(calls, rounds)
                row = {"layer": title, "rate": rate, "measure": name, "dense_ms": round(min(dense), 3)}
                row |= {"events_ms": round(event, 3), "times_dense": round(min(dense) / event, 2)}
                rows.append({**row, "device": device_name(), **versions})
                print(*row.values(), flush=True)
    write_csv(FILE, rows)


if __name__ == "__main__":
    main()
