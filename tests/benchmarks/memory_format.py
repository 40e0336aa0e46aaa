"""Convolutional nets and neurons on contiguous and on channels-last input, of this tree and of an older one.

    python tests/benchmarks/memory_format.py [--before CHECKOUT] [--rounds N]

CPU time of the calling thread, one thread. In a round every tree measures each case once, in its own process, in which
the two formats take turns; medians over the rounds. `times_faster` compares with contiguous input in the same process.
Outputs in both formats are compared, and have to spike, before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from table import write
from torch import Tensor

from spikecore import nn

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
TURNS = 8
NUM_STEPS, BATCH, CHANNELS, SIZE = 4, 8, 32, 32

Call = Callable[[], object]


def channels_last(x: Tensor) -> Tensor:
    """The same values of `[T, B, C, H, W]` with the channels innermost."""
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def net(kind: str) -> torch.nn.Module:
    """Three convolutions with 32 channels; behind each one what `kind` says."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for num_inputs in (3, CHANNELS, CHANNELS):
        if kind == "ConvBNNeuron":
            conv = torch.nn.Conv2d(num_inputs, CHANNELS, 3, padding=1, bias=False)
            layers.append(nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(CHANNELS), nn.LIF()))
        else:
            layers.append(nn.Conv2d(num_inputs, CHANNELS, 3, padding=1))
            layers.append(nn.LIF(v_threshold=0.1) if kind == "Conv2d, LIF" else torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


def forward(module: torch.nn.Module, x: Tensor) -> Call:
    """A call without gradient."""

    def call() -> None:
        with torch.no_grad():
            module(x)

    return call


def training(module: torch.nn.Module, x: Tensor) -> Call:
    """Forward and backward."""

    def call() -> None:
        module.zero_grad()
        x.grad = None
        module(x).sum().backward()

    return call


def net_calls(kind: str) -> Iterator[tuple[str, dict[str, Call], int]]:
    """Pass, a call for each format, and how often it is repeated; of a net."""
    image = torch.rand(NUM_STEPS, BATCH, 3, SIZE, SIZE) * 3
    modules = {"contiguous": net(kind), "channels-last": net(kind).to(memory_format=torch.channels_last)}
    inputs = {"contiguous": image, "channels-last": channels_last(image)}
    outs = [module(inputs[name]) for name, module in modules.items()]
    differing, firing = (float(share.float().mean()) for share in (~torch.isclose(*outs, atol=1e-5), outs[0] != 0))
    # Convolutions round differently in the two formats: a neuron at its threshold may fire in one of them.
    if differing > 1e-3 or not 0.02 < firing < 0.98:
        raise SystemExit(f"{kind}: {differing:.2%} of the outputs differ between the formats, {firing:.2%} are not 0")
    for way, make in WAYS.items():
        yield way, {name: make(module, inputs[name]) for name, module in modules.items()}, 1


def neuron_calls(kind: str) -> Iterator[tuple[str, dict[str, Call], int]]:
    """The same of one neuron."""
    if kind == "LIF, one step 1x256":
        yield "forward", {"contiguous": forward(nn.LIF(step_mode="single"), torch.rand(1, 256))}, 500
    elif kind == "LIF 4x1x256":
        yield "forward", {"contiguous": forward(nn.LIF(), torch.rand(4, 1, 256))}, 500
    elif kind == "LIF 4x32x16384":
        yield "forward", {"contiguous": forward(nn.LIF(), torch.rand(4, 32, 16384))}, 5
    else:
        taus = torch.linspace(1.5, 4.0, CHANNELS).tolist()
        lif = nn.LIF(tau=taus, learnable=("tau",)) if "per channel" in kind else nn.LIF()
        x = torch.rand(NUM_STEPS, BATCH, CHANNELS, SIZE, SIZE) * 3
        for way, make in WAYS.items():
            formats = {"contiguous": x.clone(), "channels-last": channels_last(x)}
            if make is training:
                formats = {name: value.requires_grad_() for name, value in formats.items()}
            yield way, {name: make(lif, value) for name, value in formats.items()}, 5


WAYS = {"forward": forward, "forward and backward": training}
NETS = ("Conv2d, LIF", "ConvBNNeuron", "Conv2d, ReLU")
NEURONS = ("LIF", "LIF, learnable tau per channel", "LIF, one step 1x256", "LIF 4x1x256", "LIF 4x32x16384")


def seconds(call: Call, repeats: int) -> float:
    """CPU time of one call."""
    start = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - start) / repeats


def measure(kind: str) -> list[list[object]]:
    """`[what, pass, format, seconds]` of this process."""
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for way, calls, repeats in net_calls(kind) if kind in NETS else neuron_calls(kind):
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(2 + TURNS):
            for name, call in calls.items():
                times[name].append(seconds(call, repeats))
        rows += [[kind, way, name, statistics.median(values[2:])] for name, values in times.items()]
    return rows


def measure_tree(tree: Path, kind: str) -> list[list[object]]:
    """The same in a process that imports core and the CPU backend from `tree`."""
    paths = [str(tree), str(tree / "plugins" / "cpu-backend" / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE), "--measure", kind]
    result = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    origin, rows = json.loads(result.stdout.splitlines()[-1])
    if not Path(origin).is_relative_to(tree):
        raise SystemExit(f"spikecore comes from {origin}, expected {tree}")
    measured: list[list[object]] = rows
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="an older checkout, measured in turns with this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps([nn.__file__, measure(options.measure)]))
        return
    trees = {"now": ROOT} if options.before is None else {"before": options.before.resolve(), "now": ROOT}
    times: dict[tuple[str, ...], list[float]] = {}
    for _ in range(options.rounds):
        for case in (*NETS, *NEURONS):
            for name, tree in trees.items():
                for kind, way, layout, value in measure_tree(tree, case):
                    times.setdefault((str(kind), str(way), str(layout), name), []).append(float(str(value)))
    rows = []
    for (kind, way, layout, name), values in sorted(times.items()):
        contiguous = times[kind, way, "contiguous", name]
        faster = statistics.median(theirs / ours for theirs, ours in zip(contiguous, values, strict=True))
        rows.append(
            {
                "what": kind,
                "pass": way,
                "format": layout,
                "tree": name,
                "cpu_us_median": round(1e6 * statistics.median(values), 2),
                "cpu_us_min": round(1e6 * min(values), 2),
                "times_faster": round(faster, 3),
                "rounds": options.rounds,
            }
        )
        print(f"{kind:32s} {way:22s} {layout:14s} {name:7s} {1e6 * statistics.median(values):10.1f} us  {faster:6.3f}")
    print(write("memory_format", rows, "torch", "spikecore-cpu-backend"))


if __name__ == "__main__":
    main()
