"""Times of LIF on `cpu`, on the reference and in spikingjelly: interleaved, medians, wall clock and CPU time.

    python plugins/cpu-backend/benchmarks/table.py [--threads 2] [--rounds 15] [--csv FILE]

LIF tau = 2, hard reset, atan, detached reset, float32. First the results are compared, then everything takes turns in
one process; in its turn each candidate is called once untimed, so that none pays for the caches that another one
filled, then timed for at least 5 ms. `floor` is a streaming copy of x: 8 bytes for each element-step. On a machine
that does other work, CPU time says more than the clock; both are kept.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from spikecore.backends.selection import backend_named
from spikecore.nn import LIF

SHAPES = ((4, 32, 16384), (16, 32, 4096), (128, 16, 1024), (500, 16, 512), (1000, 1, 256))
TARGETS = {
    (4, 32, 16384): (12, 5),
    (16, 32, 4096): (12, 6),
    (128, 16, 1024): (30, 18),
    (500, 16, 512): (35, 25),
    (1000, 1, 256): (500, 400),
}


def peer() -> torch.nn.Module:
    """spikingjelly's neuron with the same equations."""
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m", surrogate_function=surrogate.ATan())


def inference(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        with torch.no_grad():
            if hasattr(module, "reset"):
                module.reset()
            return module(x)

    return call


def training(module: torch.nn.Module, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        x.grad = None
        if hasattr(module, "reset"):
            module.reset()
        module(x).backward(grad)
        return x.grad

    return call


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds by the clock and of CPU time, the candidates taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            end = time.perf_counter() + 0.005
            clock = 0.0
            while clock < end:
                clock, cpu = time.perf_counter(), time.process_time()
                call()
                times[name].append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - cpu)))
    return {name: tuple(map(statistics.median, zip(*samples, strict=True))) for name, samples in times.items()}


def table(shape: tuple[int, int, int], rounds: int) -> dict[str, object]:
    """One row of the CSV."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(*shape, generator=generator) for _ in range(2))
    given = x.clone().requires_grad_()
    ours, eager, theirs = LIF(backend="cpu", detach_reset=True), LIF(backend="torch", detach_reset=True), peer()
    for other in (eager, theirs):
        assert torch.equal(inference(ours, x)(), inference(other, x)()), "the spikes differ: nothing is measured"
        torch.testing.assert_close(training(ours, given, grad)(), training(other, given, grad)(), rtol=1e-5, atol=1e-6)
    copy, backend = torch.empty_like(x), backend_named("cpu")
    first = {"cpu": inference(ours, x), "torch": inference(eager, x), "spikingjelly": inference(theirs, x)}
    second = {
        "cpu": training(ours, given, grad),
        "torch": training(eager, given, grad),
        "spikingjelly": training(theirs, given, grad),
    }
    by_kind = {
        "inference": measure({**first, "floor": lambda: backend.stream_copy(copy, x)}, rounds),
        "training": measure(second, rounds),
    }
    row: dict[str, object] = {"shape": "x".join(map(str, shape))}
    for kind, times in by_kind.items():
        for name, (clock, cpu) in times.items():
            row[f"{kind} {name} ms"], row[f"{kind} {name} cpu ms"] = round(clock, 3), round(cpu, 3)
        row[f"{kind} ratio"] = round(times["spikingjelly"][0] / times["cpu"][0], 1)
        row[f"{kind} cpu ratio"] = round(times["spikingjelly"][1] / times["cpu"][1], 1)
        row[f"{kind} target"] = TARGETS[shape][kind == "training"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for shape in SHAPES:
        row = table(shape, options.rounds)
        row |= {"threads": options.threads, "load": round(os.getloadavg()[0], 1), "torch": torch.__version__}
        row |= {"machine": platform.processor() or platform.machine(), "date": time.strftime("%Y-%m-%d")}
        rows.append(row)
        print(
            f"{row['shape']:>12}  inference {row['inference cpu ms']} ms: {row['inference ratio']} x by the clock, "
            f"{row['inference cpu ratio']} x by CPU time (target {row['inference target']});  training "
            f"{row['training cpu ms']} ms: {row['training ratio']} x, {row['training cpu ratio']} x "
            f"(target {row['training target']})"
        )
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
