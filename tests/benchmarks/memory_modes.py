"""What training keeps for the backward pass: peak memory and time of a step by the modes of `trainer.memory`.

    python tests/benchmarks/memory_modes.py [--rounds N]

Eight convolutions of 32 channels with batch norm and LIF, 16×16, batch 4. Peak memory is that of a forked process above
what it had before the step; time is the CPU time of a step, the median of rounds in which the modes take turns. The
gradients of all modes are compared bit by bit before anything is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from table import write

from spikecore import nn
from spikecore.bench.memory import peak_mib

MODES = ("fast", "balanced", "save")
CHANNELS, SIZE, BATCH = 32, 16, 4
GIVES_BACK = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"), "65536")
"""glibc keeps freed memory, and which of it is used again is chance: with these it goes back at once."""


def make_net(backend: str) -> torch.nn.Module:
    """The net, in training mode."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for num_inputs in (2, *[CHANNELS] * 7):
        conv = torch.nn.Conv2d(num_inputs, CHANNELS, 3, padding=1, bias=False)
        layers += [nn.fold_time(torch.nn.Sequential(conv, torch.nn.BatchNorm2d(CHANNELS))), nn.LIF(backend=backend)]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(2), nn.Linear(CHANNELS * SIZE * SIZE, 10))


def make_step(mode: str, num_steps: int, backend: str) -> Callable[[], list[torch.Tensor]]:
    """A forward and backward pass; returns the gradients."""
    net = make_net(backend)
    if mode == "save":
        nn.checkpoint_layers(net)
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(num_steps, BATCH, 2, SIZE, SIZE, generator=generator) < 0.3).float()

    def step() -> list[torch.Tensor]:
        net.zero_grad()
        with nullcontext() if mode == "fast" else nn.packed_spikes():
            loss = net(x).square().mean()
        loss.backward()
        return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]

    return step


def peak(mode: str, num_steps: int, backend: str) -> float:
    """MiB of a step."""
    warm = make_step(mode, 2, backend)
    return peak_mib(partial(make_step, mode, num_steps, backend), torch.device("cpu"), warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    if any(os.environ.get(name) != value for name, value in GIVES_BACK.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **GIVES_BACK})
    torch.set_num_threads(1)
    rows = []
    plugins = ["spikecore-cpu-backend"] if importlib.util.find_spec("spikecore_cpu_backend") else []
    for backend in ("torch", "auto"):
        for num_steps in (16, 64):
            peaks = {mode: peak(mode, num_steps, backend) for mode in MODES}
            steps = {mode: make_step(mode, num_steps, backend) for mode in MODES}
            right = [grad.clone() for grad in steps["fast"]()]
            for mode in MODES[1:]:
                assert all(map(torch.equal, steps[mode](), right)), mode
            times: dict[str, list[float]] = {mode: [] for mode in MODES}
            for _ in range(rounds):
                for mode, step in steps.items():
                    began = time.process_time()
                    step()
                    times[mode].append(time.process_time() - began)
            for mode in MODES:
                cpu_ms = 1000 * statistics.median(times[mode])
                slower = statistics.median(times[mode]) / statistics.median(times["fast"])
                share = peaks[mode] / peaks["fast"]
                row = {
                    "backend": backend,
                    "steps": num_steps,
                    "memory": mode,
                    "peak_mib": round(peaks[mode], 1),
                    "share_of_fast": round(share, 3),
                    "cpu_ms_median": round(cpu_ms, 1),
                    "times_slower": round(slower, 2),
                    "rounds": rounds,
                }
                rows.append(row)
                print(*row.values(), flush=True)
    print(write("memory", rows, *plugins))


if __name__ == "__main__":
    main()
